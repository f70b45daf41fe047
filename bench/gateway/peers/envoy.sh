#!/bin/bash
# Envoy, one worker. Modes: perf, h2, grpc, resil, overload, priority, storm (resil and overload together).
C=$R/envoy.yaml; BIN=${ENVOY:-envoy}; MODE=$1
EP=; for p in $UPS; do EP="$EP
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $p}}}"; done
ROUTES="          - {match: {prefix: /}, route: {cluster: u, timeout: 60s}}"; CL=; FILT=
TRY=$(awk "BEGIN{print $PERTRY_MS/1000}")s
OTHER="host_selection_retry_max_attempts: 3, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}], retry_back_off: {base_interval: 0.005s, max_interval: 0.05s}"
case $MODE in
grpc) CL="    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}";;
resil | storm)
  AGAIN="{cluster: u, timeout: 5s, hedge_policy: {hedge_on_per_try_timeout: true}, retry_policy: {retry_on: 'connect-failure,refused-stream,reset,gateway-error', per_try_timeout: $TRY, num_retries: 3, $OTHER}}"
  ROUTES="          - match: {prefix: /, headers: [{name: ':method', string_match: {exact: GET}}]}
            route: $AGAIN
          - match: {prefix: /, headers: [{name: idempotency-key, present_match: true}]}
            route: $AGAIN
          - match: {prefix: /}
            route: {cluster: u, timeout: 5s, retry_policy: {retry_on: 'connect-failure,refused-stream,reset-before-request', num_retries: 3, $OTHER}}"
  CL="    health_checks: [{timeout: 0.25s, interval: 0.25s, unhealthy_threshold: 2, healthy_threshold: 1, no_traffic_interval: 0.25s, http_health_check: {path: /healthz}}]
    outlier_detection: {consecutive_5xx: 3, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, split_external_local_origin_errors: true, consecutive_local_origin_failure: 2, interval: 0.25s, base_ejection_time: 1s, max_ejection_percent: 67}";;
esac
case $MODE in overload | priority | storm)
  FILT="          - {name: envoy.filters.http.adaptive_concurrency, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency, gradient_controller_config: {sample_aggregate_percentile: {value: 90}, concurrency_limit_params: {concurrency_update_interval: 0.1s, max_concurrency_limit: 200}, min_rtt_calc_params: {jitter: {value: 10}, interval: 30s, request_count: 50, min_concurrency: 6}}, enabled: {default_value: true, runtime_key: x}}}";;
esac
cat > "$C" <<X
admin: {address: {socket_address: {address: 127.0.0.1, port_value: $ADMIN}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: $FRONT}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: f
          generate_request_id: false
          use_remote_address: true
          upgrade_configs: [{upgrade_type: websocket}]
          http_filters:
$FILT
          - {name: envoy.filters.http.router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}
          route_config:
            virtual_hosts:
            - name: v
              domains: ['*']
              routes:
$(echo "$ROUTES" | sed 's/^/    /')
  clusters:
  - name: u
    type: STATIC
    connect_timeout: 0.25s
    lb_policy: LEAST_REQUEST
    circuit_breakers: {thresholds: [{max_connections: 4096, max_pending_requests: 4096, max_requests: 4096, retry_budget: {budget_percent: {value: 20}, min_retry_concurrency: 20}}]}
$CL
    load_assignment:
      cluster_name: u
      endpoints:
      - lb_endpoints:$EP
X
exec "$BIN" -c "$C" --concurrency 1 --disable-hot-restart -l error
