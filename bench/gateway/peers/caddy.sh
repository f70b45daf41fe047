#!/bin/bash
# Caddy, GOMAXPROCS=1. Modes: perf, h2, grpc, resil, overload, priority, storm (resil and overload together).
C=$R/Caddyfile; BIN=${CADDY:-caddy}; MODE=$1
EX=; TO=; SERVERS=
H2="servers {
    protocols h1 h2 h2c
  }"
case $MODE in
h2) SERVERS=$H2;;
grpc) SERVERS=$H2; TO="versions h2c 2";;
resil | storm) # without the buffer a repeated POST has no body, and fails at upstreams that are well
  EX="request_buffers 64KiB
    lb_retries 3
    lb_try_duration 2s
    lb_try_interval 5ms
    lb_retry_match {
      method GET HEAD PUT DELETE OPTIONS
    }
    lb_retry_match {
      header Idempotency-Key *
    }
    fail_duration 1s
    max_fails 2
    unhealthy_status 502 503 504
    unhealthy_latency ${CADDY_LAT:-100ms}
    health_uri /healthz
    health_interval 250ms
    health_timeout 250ms"; TO="dial_timeout 250ms
      response_header_timeout ${PERTRY_MS}ms"
  [ "$MODE" = resil ] || EX="$EX
    unhealthy_request_count 8";;
overload | priority) EX="unhealthy_request_count 8";;
esac
SRV=; for p in $UPS; do SRV="$SRV 127.0.0.1:$p"; done
cat > "$C" <<X
{
  admin off
  auto_https off
  persist_config off
  log {
    level ERROR
  }
  $SERVERS
}
http://:$FRONT {
  bind 127.0.0.1
  reverse_proxy$SRV {
    lb_policy least_conn
    $EX
    transport http {
      keepalive_idle_conns_per_host 256
      keepalive_idle_conns 1024
      $TO
    }
  }
}
X
GOMAXPROCS=1 HOME=$R XDG_CONFIG_HOME=$R XDG_DATA_HOME=$R exec "$BIN" run --config "$C" --adapter caddyfile
