# own_write N: writes what our gateway is told, in its N-th variant: other routes, and every other time one endpoint less. Both forms:
# the stack folder of `standfast gateway`, and the plain list of `examples/gateway_bench.rs`. Written beside, then renamed.
own_write() { local n=$1 p i protocol=http1 all; mkdir -p "$R/own"; read -ra all <<< "$UPS"
  [ $((n % 2)) = 0 ] || unset 'all[2]'
  [ "${MODE:-}" != grpc ] || protocol=http2
  { for p in "${all[@]}"; do echo "upstream 127.0.0.1:$p"; done
    for i in 0 1 2 3 4 5 6 7 8 9; do echo "route /r$((n + i))"; done; } > "$R/own/endpoints.new"
  { printf 'name: bench\nservices:\n  up:\n    external:\n'
    for p in "${all[@]}"; do echo "      - 127.0.0.1:$p"; done
    printf '    traffic: {protocol: %s}\nroutes:\n' $protocol
    for i in 0 1 2 3 4 5 6 7 8 9; do echo "  - {path: /r$((n + i)), to: up}"; done
    echo "  - {path: /, headers: {standfast-priority: high}, priority: high, to: up}"
    echo "  - {path: /, to: up}"; } > "$R/own/standfast.yaml.new"
  mv "$R/own/endpoints.new" "$R/own/endpoints"; mv "$R/own/standfast.yaml.new" "$R/own/standfast.yaml"; }
