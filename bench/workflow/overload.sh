#!/usr/bin/env bash
# Brings `limited` up on loopback, has three times as many workflows started as its service can do, prints a line of JSON, and takes it down.
#   LASTS=60 bench/workflow/overload.sh
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
OWN=${OWN:-$HERE/../../target/release/standfast}
WORK=$(mktemp -d)
stop() { "$OWN" down "$HERE/limited" --state "$WORK/state" >/dev/null 2>&1 || true; rm -rf "$WORK"; }
trap stop EXIT
"$OWN" up "$HERE/limited" --state "$WORK/state" -d --listen 127.0.0.1:0 > "$WORK/up.log" 2>&1 || { cat "$WORK/up.log"; exit 1; }
# A service is told where the API is, and where it is to listen.
for place in /proc/[0-9]*; do
  [ "$(readlink "$place/cwd")" = "$HERE/limited" ] || continue
  said() { tr '\0' '\n' < "$place/environ" | sed -n "s/^$1=//p"; }
  [ -n "$(said STANDFAST_WORKFLOWS_URL)" ] && BASE=$(said STANDFAST_WORKFLOWS_URL) STEPS=http://$(said HOST):$(said PORT) && break
done
BASE=$BASE STEPS=$STEPS LASTS=${LASTS:-60} node "$HERE/overload.mjs"
