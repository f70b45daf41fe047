#!/bin/bash
# Traefik, GOMAXPROCS=1. Modes: perf, h2, grpc, resil, overload, priority, storm (resil and overload together).
W=$R/traefik; mkdir -p "$W"; BIN=${TRAEFIK:-traefik}; MODE=$1
ST=p2c; MW=; HC=; TO="dialTimeout: 1s"; DEF=; SCHEME=http; KEYED=
case $MODE in
grpc) SCHEME=h2c;;
resil | storm) ST=leasttime; MW="middlewares: [retry]"; [ "$MODE" = resil ] || MW="middlewares: [limit, retry]"
  DEF="  middlewares:
    retry: {retry: {attempts: 3, initialInterval: 5ms, status: ['502-504']}}
    retryall: {retry: {attempts: 3, initialInterval: 5ms, status: ['502-504'], retryNonIdempotentMethod: true}}
    limit: {inFlightReq: {amount: 24, sourceCriterion: {requestHost: true}}}"
  KEYED="    keyed: {rule: 'HeaderRegexp(\`Idempotency-Key\`, \`.+\`)', service: u, entryPoints: [f], middlewares: [retryall]}"
  HC="        healthCheck: {path: /healthz, interval: 250ms, unhealthyInterval: 250ms, timeout: 250ms}
        passiveHealthCheck: {failureWindow: 1s, maxFailedAttempts: 1}"
  TO="dialTimeout: 250ms, responseHeaderTimeout: ${PERTRY_MS}ms";;
overload | priority) MW="middlewares: [limit]"; DEF="  middlewares: {limit: {inFlightReq: {amount: 24, sourceCriterion: {requestHost: true}}}}";;
esac
SRV=; for p in $UPS; do SRV="$SRV {url: '$SCHEME://127.0.0.1:$p'},"; done
cat > "$W/dyn.yaml" <<X
http:
$DEF
  routers:
    r: {rule: 'PathPrefix(\`/\`)', service: u, entryPoints: [f], $MW}
$KEYED
  serversTransports: {t: {maxIdleConnsPerHost: 256, forwardingTimeouts: {$TO}}}
  services:
    u:
      loadBalancer:
        strategy: $ST
        serversTransport: t
$HC
        servers: [${SRV%,}]
X
cat > "$W/traefik.yaml" <<X
global: {checkNewVersion: false, sendAnonymousUsage: false}
log: {level: ERROR}
entryPoints: {f: {address: '127.0.0.1:$FRONT'}}
providers: {file: {filename: $W/dyn.yaml, watch: false}}
X
GOMAXPROCS=1 exec "$BIN" --configFile="$W/traefik.yaml"
