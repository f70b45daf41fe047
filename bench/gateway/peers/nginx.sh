#!/bin/bash
# nginx (open source), one worker process. Modes: perf, h2, grpc, resil, overload, priority, storm (resil and overload together).
W=$R/nginx; mkdir -p "$W"; C=$W/nginx.conf; BIN=${NGINX:-nginx}; MODE=$1
EACH=; EXTRA=; H2=; KEYED=
PASS="proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \$upgraded; proxy_set_header Upgrade \$http_upgrade; proxy_set_header Host \$http_host; proxy_set_header X-Forwarded-For \$remote_addr;"
case $MODE in
perf) EACH="max_fails=0";; # no ejection where nothing is to fail
h2) H2=http2; EACH="max_fails=0";;
grpc) H2=http2; EACH="max_fails=0"; PASS="grpc_pass grpc://u; grpc_set_header X-Forwarded-For \$remote_addr;";;
resil | storm) EACH="max_fails=1 fail_timeout=1s"; [ "$MODE" = resil ] || EACH="$EACH max_conns=4"
  # nginx repeats only idempotent methods unless told "non_idempotent": so it is told for requests with a key.
  NEXT="error timeout http_500 http_502 http_503 http_504"
  EXTRA="proxy_next_upstream_tries 3; proxy_next_upstream_timeout 3s; proxy_connect_timeout 250ms; proxy_read_timeout ${PERTRY_MS}ms;"
  KEYED="if (\$http_idempotency_key) { rewrite ^ /keyed\$uri last; }"
  MORE="location /keyed/ { internal; rewrite ^/keyed(.*)\$ \$1 break; $PASS $EXTRA proxy_next_upstream $NEXT non_idempotent; }"
  EXTRA="$EXTRA proxy_next_upstream $NEXT;";;
overload | priority) EACH="max_conns=4"; EXTRA="proxy_next_upstream off;";; # no queue in the open-source version: above, it answers 502
esac
SRV=; for p in $UPS; do SRV="$SRV server 127.0.0.1:$p $EACH;"; done
cat > "$C" <<X
daemon off; worker_processes 1; pid $W/pid; error_log /dev/null crit; worker_rlimit_nofile $(ulimit -n);
events { worker_connections 16384; }
http { access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_body_temp_path $W/b; proxy_temp_path $W/p; fastcgi_temp_path $W/f; uwsgi_temp_path $W/u; scgi_temp_path $W/s;
 map \$http_upgrade \$upgraded { default upgrade; '' ''; }
 upstream u { zone u 256k; least_conn; $SRV keepalive 256; keepalive_requests 100000000; }
 server { listen 127.0.0.1:$FRONT $H2 backlog=4096; location / { $KEYED $PASS $EXTRA } ${MORE:-} } }
X
exec "$BIN" -c "$C"
