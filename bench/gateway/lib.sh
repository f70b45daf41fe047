# Shared helpers of the gateway benchmark; sourced. Everything binds to 127.0.0.1; only processes started here are ended, by pid.
D=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export R=${GW_RUN:?set GW_RUN to a work folder}; mkdir -p "$R"
TOOLS=${GW_TOOLS:?set GW_TOOLS to the folder of gwload, gwup and gwhold}
BASE=${GW_PORT:-28080}                    # the peer; +1 is for the admin interface of Envoy, +921 and on for the upstreams
export FRONT=$BASE ADMIN=$((BASE + 1))
UP=($((BASE + 921)) $((BASE + 922)) $((BASE + 923))); export UPS="${UP[*]}"
export PERTRY_MS=${GW_PERTRY_MS:-1000}    # the per-try timeout that peers are told; ours is told nothing
ulimit -n "$(ulimit -Hn)" 2>/dev/null
PIDS=(); declare -A UPPID
# The peer on one core, load and upstreams on another (GW_PIN=0 switches pinning off).
if [ "${GW_PIN:-1}" = 1 ] && [ "$(nproc)" -gt 1 ]; then PINP="taskset -c 1"; PINL="taskset -c 0"; else PINP=; PINL=; fi

kids() { local p; for p in $(cat /proc/"$1"/task/*/children 2>/dev/null); do echo "$p"; kids "$p"; done; }
tree() { echo "$1"; kids "$1"; }
# CPU ticks (1/100 s), user and system, of a process and its living children.
ticks() { local t=0 p a; for p in $(tree "$1"); do a=$(sed 's/.*) //' /proc/"$p"/stat 2>/dev/null | awk '{print $12+$13}'); t=$((t + ${a:-0})); done; echo "$t"; }
rss_kb() { local t=0 p a; for p in $(tree "$1"); do a=$(awk '/^Rss:/{print $2}' /proc/"$p"/smaps_rollup 2>/dev/null); t=$((t + ${a:-0})); done; echo "$t"; }
stop() { local p; for p in $(tree "$1" | tac); do kill -CONT "$p" 2>/dev/null; kill -9 "$p" 2>/dev/null; done; wait "$1" 2>/dev/null; true; }
cleanup() { local p; trap '' TERM INT; for p in "${PIDS[@]}" "${UPPID[@]}"; do stop "$p"; done; }
trap cleanup EXIT; trap 'exit 1' TERM INT
wait_port() { local i; for i in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/"$1") 2>/dev/null && return 0; sleep 0.1; done; return 1; }
calc() { awk "BEGIN{printf \"%.${2:-0}f\", $1}"; }
# field FILE PATTERN KEY: the value of KEY=… in the first line that matches.
field() { awk -v k="$3=" "/$2/"'{for (i = 1; i <= NF; i++) if (index($i, k) == 1) {print substr($i, length(k) + 1); exit}}' "$1"; }
get() { (exec 3<>/dev/tcp/127.0.0.1/"$1"; printf 'GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n' "$2" >&3; cat <&3) 2>/dev/null; }

# up_nginx [http2]: three upstreams for throughput, answering 200 and 1 KiB.
up_nginx() { local p; for p in "${UP[@]}"; do mkdir -p "$R/up$p"
  cat > "$R/up$p/nginx.conf" <<X
daemon off; master_process off; worker_processes 1; pid $R/up$p/pid; error_log /dev/null crit;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 600s; default_type text/plain; client_body_temp_path $R/up$p/b; proxy_temp_path $R/up$p/p; fastcgi_temp_path $R/up$p/f; uwsgi_temp_path $R/up$p/u; scgi_temp_path $R/up$p/s;
 server { listen 127.0.0.1:$p ${1:-} backlog=4096; location / { return 200 "$(head -c 1024 /dev/zero | tr '\0' x)"; } } }
X
  ${PINU-$PINL} nginx -c "$R/up$p/nginx.conf" >/dev/null 2>&1 & UPPID[$p]=$!; done; for p in "${UP[@]}"; do wait_port "$p"; done; }
# up_start PORT, up_slow: upstreams with a service time (DELAY_US), a limit (WORKERS) and effects.
up_start() { local keys=--idempotent; [ "${GW_KEYS:-process}" = process ] || keys="--keys $R/keys"
  # shellcheck disable=SC2086
  $PINL "$TOOLS/gwup" --port "$1" --delay-us "$DELAY_US" --workers "${WORKERS:-0}" --log "$R/effects.$1" $keys 2>/dev/null & UPPID[$1]=$!; }
up_slow() { local p; rm -rf "$R"/effects.* "$R/keys"; mkdir -p "$R/keys"; for p in "${UP[@]}"; do up_start "$p"; done; for p in "${UP[@]}"; do wait_port "$p"; done; }
ctl() { get "$1" "/__ctl?$2" >/dev/null; }
received() { local p t=0 n; for p in "${UP[@]}"; do n=$(get "$p" /__stats | sed -n 's/.*received=\([0-9]*\).*/\1/p'); t=$((t + ${n:-0})); done; echo "$t"; }
# peer NAME MODE: starts it; its pid is in PEER.
peer() { $PINP bash "$D/peers/$1.sh" "$2" >"$R/$1.log" 2>&1 & PEER=$!; PIDS+=("$PEER")
  [ "$1" != direct ] || return 0
  wait_port "$FRONT" && sleep 1.5 && kill -0 "$PEER" 2>/dev/null && return
  tail -3 "$R/$1.log" >&2; echo "RESULT peer=$1 scenario=$S unsupported=did_not_start"; exit 0; }
# load PHASES [ARGS…]: the open loop in the background (pid in L), its report in $R/load.out.
load() { local phases=$1; shift
  $PINL "$TOOLS/gwload" --port "$FRONT" --phases "$phases" --conns "${CONNS:-384}" --ids "$R/ok.ids" "$@" > "$R/load.out" & L=$!; PIDS+=("$L"); sleep 0.1; }
# Effects that were done more than once, and requests answered with 200 that had none.
effects() { sort "$R"/effects.* > "$R/effects"; sort -u "$R/effects" > "$R/once"; sort -u "$R/ok.ids" > "$R/ok"
  echo "twice=$(uniq -d "$R/effects" | wc -l) lost=$(comm -13 "$R/once" "$R/ok" | wc -l)"; }
total() { field "$R/load.out" '^TOTAL ' "$1"; }
result() { echo "RESULT peer=$P scenario=$S $*"; }
