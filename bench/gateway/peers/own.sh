#!/bin/bash
# Ours, one worker, in every mode with the same settings: nothing is tuned for a scenario, all policies are on.
# GW_OWN is the command; {listen} {upstreams} {stack} {endpoints} in it are replaced. It rereads {stack} or {endpoints} on SIGHUP.
MODE=$1; . "$(dirname "$0")/../own-write.sh"
own_write 0
OWN=${GW_OWN:?set GW_OWN to the command that starts our gateway}
OWN=${OWN//\{listen\}/127.0.0.1:$FRONT}; OWN=${OWN//\{stack\}/$R/own}; OWN=${OWN//\{endpoints\}/$R/own/endpoints}
OWN=${OWN//\{upstreams\}/$(for p in $UPS; do printf -- '--upstream 127.0.0.1:%s ' "$p"; done)}
eval "exec $OWN"
