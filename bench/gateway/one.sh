#!/bin/bash
# one.sh PEER SCENARIO: one measurement; the last line is RESULT with key=value pairs. `cargo xtask bench gateway` runs all of them.
# Environment: GW_RUN, GW_TOOLS, GW_OWN (ours), GW_UNIT (seconds, the length of everything, 5), GW_RATE (latency: requests/s),
# GW_PORT, GW_PIN, GW_PRIO, GW_PERTRY_MS, GW_KEYS (process|shared), GW_BUSY (starved: loops on each core, 2).
set -u
# GW_PRIO=-15: a session of its own with this autogroup priority, on a machine that does other things (root only).
if [ -n "${GW_PRIO:-}" ] && [ -z "${GW_SESSION:-}" ]; then GW_SESSION=1 exec setsid -w bash "$0" "$@"; fi
[ -z "${GW_PRIO:-}" ] || echo "$GW_PRIO" > /proc/$$/autogroup
P=$1; S=$2; . "$(dirname "$0")/lib.sh"
U=${GW_UNIT:-5}; DELAY_US=10000; WORKERS=0; RATE=500
at() { calc "$U*$1" 2; }
post() { case $S in *-get) echo --method GET;; *-post) echo --method POST;; *-key) echo --method POST --keyed;; esac; }
# per_cpu REQUESTS TICKS
per_cpu() { calc "$1/(($2>0?$2:1)/100)"; }
# The failed by status, as code:count,…
codes() { awk '/^STATUS/{split($2, c, "="); split($3, n, "="); printf "%s%s:%s", s, c[2], n[2]; s = ","} END{if (s == "") printf "none"}' "$R/load.out"; }

case $S in
throughput) up_nginx; peer "$P" perf; url=http://127.0.0.1:$FRONT/
  $PINL wrk -t1 -c64 -d1s "$url" >/dev/null
  a=$(ticks "$PEER"); $PINL wrk -t1 -c64 -d"${U}s" --latency "$url" > "$R/wrk.out"; b=$(ticks "$PEER")
  n=$(awk '/requests in/{print $1}' "$R/wrk.out"); bad=$(awk '/Non-2xx/{print $NF}' "$R/wrk.out")
  result "req_per_cpu_s=$(per_cpu "$n" $((b - a)))" "rps=$(awk '/Requests\/sec/{print $2}' "$R/wrk.out")" \
    "p99=$(awk '$1=="99%"{print $2}' "$R/wrk.out")" "bad=${bad:-0}" "cpu_share=$(calc "($b-$a)/$U/100" 2)" "rss_mib=$(calc "$(rss_kb "$PEER")/1024" 1)";;
h2 | grpc) if [ "$S" = grpc ]; then up_nginx http2; else up_nginx; fi
  peer "$P" "$S"; url=http://127.0.0.1:$FRONT/; args=()
  [ "$S" = h2 ] || { head -c 128 /dev/zero > "$R/message"; args=(-d "$R/message" -H 'content-type: application/grpc' -H 'te: trailers'); }
  timeout 10 h2load -n 3 -c 1 -m 1 "${args[@]}" "$url" > "$R/h2load.out" 2>&1
  grep -q ' 3 2xx' "$R/h2load.out" || { result unsupported=no_http2; exit 0; }
  timeout 20 $PINL h2load -t1 -c16 -m8 -n 5000 "${args[@]}" "$url" >/dev/null 2>&1
  a=$(ticks "$PEER"); timeout $((U * 3 + 20)) $PINL h2load -t1 -c16 -m8 -D "$U" "${args[@]}" "$url" > "$R/h2load.out" 2>&1; b=$(ticks "$PEER")
  n=$(sed -n 's/^status codes: \([0-9]*\) 2xx.*/\1/p' "$R/h2load.out"); bad=$(sed -n 's/^requests: .* \([0-9]*\) failed.*/\1/p' "$R/h2load.out")
  result "req_per_cpu_s=$(per_cpu "${n:-0}" $((b - a)))" "rps=$(calc "${n:-0}/$U")" "bad=${bad:-0}" "rss_mib=$(calc "$(rss_kb "$PEER")/1024" 1)";;
latency) # `direct`: the upstream is where the gateway would be, so that load and server have a core each
  if [ "$P" = direct ]; then PINU=$PINP; FRONT=${UP[0]}; fi; up_nginx
  peer "$P" perf; rate=${GW_RATE:?latency needs GW_RATE}; CONNS=256
  load "${rate}x1" --timeout-ms 2000; wait "$L"
  a=$(ticks "$PEER"); load "${rate}x$U" --timeout-ms 2000; wait "$L"; b=$(ticks "$PEER")
  result "p50_ms=$(total p50_ms)" "p99_ms=$(total p99_ms)" "failed=$(total failed)" "rate=$rate" "cpu_share=$(calc "($b-$a)/$U/100" 2)";;
kill-*) up_slow; peer "$P" resil; V=${UP[1]}
  # shellcheck disable=SC2046
  load "${RATE}x$(at 4)" $(post) --normal-after "$U"; sleep "$U"; kill -9 "${UPPID[$V]}"; wait "${UPPID[$V]}" 2>/dev/null; sleep "$U"; up_start "$V"; wait "$L"
  result "failed=$(total failed)" "last_fail_s=$(total last_fail_s)" "max_ms=$(total max_ms)" "codes=$(codes)" "$(effects)";;
freeze-*) up_slow; peer "$P" resil; V=${UP[1]}
  # shellcheck disable=SC2046
  load "${RATE}x$(at 4)" $(post) --normal-after "$U"; sleep "$U"; kill -STOP "${UPPID[$V]}"; sleep "$U"; kill -CONT "${UPPID[$V]}"; wait "$L"
  result "failed=$(total failed)" "last_fail_s=$(total last_fail_s)" "max_ms=$(total max_ms)" "codes=$(codes)" "$(effects)";;
gray-*) up_slow; peer "$P" resil; V=${UP[1]}
  # shellcheck disable=SC2046
  load "${RATE}x$(at 4)" $(post) --mark "gray=$(calc "$U+1"):$(at 3)"; sleep "$U"; ctl "$V" "delay_us=$((DELAY_US * 100))"; sleep "$(at 2)"; ctl "$V" "delay_us=$DELAY_US"; wait "$L"
  m() { field "$R/load.out" '^MARK' "$1"; }
  result "failed=$(total failed)" "p99_ms=$(m p99_ms)" "p999_ms=$(m p999_ms)" "worst_p99_ms=$(m worst_p99_ms)" "codes=$(codes)" "$(effects)";;
overload | priority) # 3 upstreams x 4 at a time x 10 ms = 1200 requests/s of capacity
  WORKERS=4; CONNS=4096; up_slow; peer "$P" "$S"; share=0; [ "$S" = overload ] || share=0.3
  T=$(at 1.6); load "720x$T,2400x$T,720x$T" --timeout-ms 1000 --priority "$share" --normal-after "$(at 3.2)"; wait "$L"
  ph() { field "$R/load.out" "^PHASE n=$1" "$2"; }; cl() { field "$R/load.out" "^PRIORITY class=$1 n=2" "$2"; }
  more=; [ "$S" = overload ] || more="high_pct=$(calc "100*$(cl high good)/$(cl high sent)" 1) high_p99_ms=$(cl high p99_ms) normal_pct=$(calc "100*$(cl normal good)/$(cl normal sent)" 1) "
  result "${more}goodput_pct=$(calc "100*$(ph 2 good_per_s)/1200" 1)" "p50_ms=$(ph 2 p50_ms)" "p99_ms=$(ph 2 p99_ms)" "refused_before=$(ph 1 failed)" "refused_after=$(ph 3 failed)" \
    "normal_after_s=$(field "$R/load.out" '^NORMAL' after_s)" "codes=$(codes)";;
storm) # 80 % of capacity; for 6 units half of the requests end without an answer after their service time
  WORKERS=4; CONNS=4096; up_slow; peer "$P" storm
  load "960x$(at 10)" --timeout-ms 1000 --mark "storm=$(at 2):$(at 8)" --normal-after "$(at 8)"
  sleep "$(at 2)"; x=$(received); for p in "${UP[@]}"; do ctl "$p" abort=0.5; done; sleep "$(at 6)"; for p in "${UP[@]}"; do ctl "$p" abort=0; done; y=$(received); wait "$L"
  sent=$(field "$R/load.out" '^MARK' sent); good=$(field "$R/load.out" '^MARK' good)
  result "extra_pct=$(calc "100*($y-$x)/$sent-100" 1)" "good_pct=$(calc "100*$good/$sent" 1)" "normal_after_s=$(field "$R/load.out" '^NORMAL' after_s)" "codes=$(codes)";;
starved) up_slow; peer "$P" resil; cores=0; [ -z "$PINP" ] || cores="0 1"
  load "${RATE}x$(at 4)" --mark "starved=$U:$(at 3)"; sleep "$U"; BUSY=()
  for c in $cores; do for _ in $(seq "${GW_BUSY:-2}"); do ${PINP:+taskset -c $c} bash -c 'while :; do :; done' & BUSY+=($!); PIDS+=($!); done; done
  sleep "$(at 2)"; for p in "${BUSY[@]}"; do kill "$p"; wait "$p" 2>/dev/null; done; wait "$L"
  own=$(awk '/^STATUS code=50[234]/{split($3, n, "="); t += n[2]} END{print t + 0}' "$R/load.out")
  result "self_inflicted=$own" "failed=$(total failed)" "p99_ms=$(field "$R/load.out" '^MARK' p99_ms)" "codes=$(codes)";;
idle) N=${GW_IDLE:-10000}; max=$(($(ulimit -n) - 200)); [ "$N" -le "$max" ] || N=$max
  DELAY_US=0; up_slow; peer "$P" perf; load "${RATE}x1"; wait "$L"
  r0=$(rss_kb "$PEER"); mkfifo "$R/hold.in" 2>/dev/null
  $PINL "$TOOLS/gwhold" --port "$FRONT" --conns "$N" --mode idle < "$R/hold.in" > "$R/hold.out" 2>"$R/hold.err" & H=$!; PIDS+=("$H"); exec 9> "$R/hold.in"
  for _ in $(seq 300); do grep -q READY "$R/hold.out" && break; sleep 0.2; done
  for p in "${UP[@]}"; do ctl "$p" "delay_us=10000"; done
  r1=$(rss_kb "$PEER"); load "${RATE}x$(at 2)"; wait "$L"; r2=$(rss_kb "$PEER"); exec 9>&-; wait "$H"
  opened=$(field "$R/hold.out" '^HOLD' opened)
  result "rss_mib=$(calc "$r2/1024" 1)" "kib_each=$(calc "($r1-$r0)/(${opened:-0}>0?${opened:-0}:1)" 2)" "opened=${opened:-0}" "still_open=$(field "$R/hold.out" '^HOLD' still_open)" \
    "failed=$(total failed)" "p99_ms=$(total p99_ms)" "codes=$(codes)";;
changes) # only ours: rewrites its file and sends SIGHUP, under load and with open WebSockets
  [ "$P" = own ] || { result unsupported=only_ours; exit 0; }
  . "$D/own-write.sh"; N=${GW_CHANGES:-1000}; W=${GW_SOCKETS:-1000}; up_slow; peer "$P" resil; mkfifo "$R/hold.in" 2>/dev/null
  $PINL "$TOOLS/gwhold" --port "$FRONT" --conns "$W" --mode websocket < "$R/hold.in" > "$R/hold.out" 2>"$R/hold.err" & H=$!; PIDS+=("$H"); exec 9> "$R/hold.in"
  for _ in $(seq 300); do grep -q READY "$R/hold.out" && break; sleep 0.2; done
  secs=$(calc "$N*0.02+2" 0); load "${RATE}x$secs"; sleep 1
  began=$EPOCHREALTIME; for i in $(seq "$N"); do own_write "$i"; kill -HUP "$PEER"; sleep 0.005; done; took=$(calc "$EPOCHREALTIME-$began" 1)
  wait "$L"; exec 9>&-; wait "$H"
  kill -0 "$PEER" 2>/dev/null || { result "unsupported=ended_by_SIGHUP"; exit 0; }
  echoing=$(field "$R/hold.out" '^HOLD' echoing); opened=$(field "$R/hold.out" '^HOLD' opened)
  result "changes=$N" "took_s=$took" "sockets=$opened" "sockets_dropped=$((${opened:-0} - ${echoing:-0}))" "failed=$(total failed)" "p99_ms=$(total p99_ms)" "codes=$(codes)";;
*) echo "one.sh: no scenario $S" >&2; exit 2;;
esac
# The full report of an open loop, for reading.
[ ! -f "$R/load.out" ] || { mkdir -p "$R/reports"; mv "$R/load.out" "$R/reports/$P.$S"; }
