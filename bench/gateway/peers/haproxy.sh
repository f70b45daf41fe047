#!/bin/bash
# HAProxy, one thread. Modes: perf, h2, grpc, resil, overload, priority, storm (resil and overload together).
C=$R/haproxy.cfg; BIN=${HAPROXY:-haproxy}; MODE=$1
servers() { local p n=0; for p in $UPS; do n=$((n + 1)); echo "  server s$n 127.0.0.1:$p $*"; done; }
{ cat <<X
global
  nbthread 1
  maxconn 16000
  no strict-limits
  tune.idle-pool.shared on
defaults
  mode http
  timeout client 75s
  timeout http-keep-alive 75s
  timeout tunnel 1h
  option http-keep-alive
  http-reuse always
  option forwardfor
frontend f
  bind 127.0.0.1:$FRONT backlog 4096
  default_backend b
backend b
  balance leastconn
X
case $MODE in
perf | h2) echo "  timeout connect 1s"; echo "  timeout server 60s"; servers;;
grpc) echo "  timeout connect 1s"; echo "  timeout server 60s"; servers proto h2;;
resil | storm) cat <<X
  timeout connect 250ms
  timeout server ${PERTRY_MS}ms
  retries 3
  option redispatch 1
  retry-on all-retryable-errors
  http-request disable-l7-retry unless METH_GET or { method HEAD PUT DELETE OPTIONS } or { req.hdr(idempotency-key) -m found }
  option httpchk GET /healthz
  default-server check inter 250ms fastinter 100ms downinter 250ms fall 2 rise 2 observe layer7 error-limit 3 on-error mark-down on-marked-down shutdown-sessions slowstart 2s
X
  [ "$MODE" = resil ] || { echo "  timeout queue 200ms"; echo "  default-server maxconn 4 maxqueue 20"; }
  servers;;
overload | priority) cat <<X
  timeout connect 250ms
  timeout server 2s
  timeout queue 200ms
  default-server maxconn 4 maxqueue 20
X
  [ "$MODE" = overload ] || echo "  http-request set-priority-class int(-10) if { req.hdr(standfast-priority) high }"
  servers;;
esac; } > "$C"
exec "$BIN" -db -f "$C"
