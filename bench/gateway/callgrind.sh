#!/bin/bash
# callgrind.sh: instructions per request of our gateway, one worker, counted by valgrind: a figure that a busy machine cannot change.
# Environment: as of one.sh; REQUESTS (about so many are counted, 20000). The command in GW_OWN must be one process.
set -u
P=own; S=callgrind; . "$(dirname "$0")/lib.sh"
command -v valgrind >/dev/null || { echo "valgrind is missing: install the package \`valgrind\`" >&2; exit 2; }
up_nginx; rm -f "$R"/callgrind.out*; OWN=$GW_OWN
GW_OWN="valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file=$R/callgrind.out $OWN" peer own perf
VALGRIND=$(pgrep -P "$PEER" | head -1); VALGRIND=${VALGRIND:-$PEER}
wrk -t1 -c16 -d2s "http://127.0.0.1:$FRONT/" > "$R/wrk.out"
rps=$(awk '/Requests\/sec/{print $2}' "$R/wrk.out"); secs=$(calc "${REQUESTS:-20000}/($rps/2+1)+1")
callgrind_control -i on "$VALGRIND" >/dev/null 2>&1
wrk -t1 -c16 -d"${secs}s" "http://127.0.0.1:$FRONT/" > "$R/wrk.out"
callgrind_control -i off "$VALGRIND" >/dev/null 2>&1
n=$(awk '/requests in/{print $1}' "$R/wrk.out"); callgrind_control -d "$VALGRIND" >/dev/null 2>&1
kill -TERM "$VALGRIND"; for _ in $(seq 100); do kill -0 "$VALGRIND" 2>/dev/null || break; sleep 0.1; done
total=$(awk '/^(totals|summary):/{t += $2; if (t > 0) exit} END{print t + 0}' "$R"/callgrind.out*)
[ "$total" -gt 0 ] || total=$(awk '/Collected/{print $NF}' "$R/own.log")
result "requests=$n" "instructions=$total" "instructions_per_request=$((total / n))"
