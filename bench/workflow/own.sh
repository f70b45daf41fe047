#!/usr/bin/env bash
# Brings up `stack` on loopback, runs N workflows of three steps over HTTP with C in flight, prints a line of JSON, then the CPU and
# memory of Standfast's own processes, and takes the stack down again.
#   N=2000 C=128 FLOW=bench/three bench/workflow/own.sh
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
OWN=${OWN:-$HERE/../../target/release/standfast}
WORK=$(mktemp -d)
export N=${N:-2000} C=${C:-128} FLOW=${FLOW:-bench/three}
stop() { "$OWN" down "$HERE/stack" --state "$WORK/state" >/dev/null 2>&1 || true; rm -rf "$WORK"; }
trap stop EXIT
"$OWN" up "$HERE/stack" --state "$WORK/state" -d --listen 127.0.0.1:0 > "$WORK/up.log" 2>&1 || { cat "$WORK/up.log"; exit 1; }
# A service is told where the API is.
for place in /proc/[0-9]*; do
  [ "$(readlink "$place/cwd")" = "$HERE/stack" ] && BASE=$(tr '\0' '\n' < "$place/environ" | sed -n 's/^STANDFAST_WORKFLOWS_URL=//p') && [ -n "$BASE" ] && break
done
export BASE
# The process of the node and its children (its evaluators): seconds of CPU, and the memory that they have now.
own() { for place in /proc/[0-9]*; do grep -qz -- "$WORK/state\|serve-expressions" "$place/cmdline" 2>/dev/null && echo "${place#/proc/}"; done; }
cpu() { for pid in $(own); do awk '{print $14+$15}' "/proc/$pid/stat"; done | awk -v t="$(getconf CLK_TCK)" '{s+=$1} END{print s/t}'; }
before=$(cpu)
node "$HERE/load.mjs"
after=$(cpu)
echo "own_cpu_s $(awk "BEGIN{print $after-$before}") for $((N + 200)) runs"
for pid in $(own); do awk -v p="$pid" '/^Name/{n=$2} /VmHWM/{print "peak_rss_MiB", n, p, int($2/1024)}' "/proc/$pid/status"; done
du -sm "$WORK/state" | awk '{print "data_MiB " $1}'
