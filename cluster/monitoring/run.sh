#!/usr/bin/env bash
# Prometheus and the cost exporter beside a running `make serve`. Both listen on this machine only; data lies in a temporary
# folder, which goes when they end. Environment: PORT, EXPORTER_PORT, CONFIG, INTERVAL, DISCOVERY, RULES.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
discovery=${DISCOVERY:-/tmp/ray/prom_metrics_service_discovery.json}
config=$(realpath "${CONFIG:-deployments.yaml}")
port=${PORT:-9090}
exporter_port=${EXPORTER_PORT:-9470}
bin=${BIN:-$here/../../.venv/bin}
say() { printf 'monitoring: %s\n' "$*"; }
stop() { say "$*" >&2; exit 2; }

command -v prometheus >/dev/null || stop "needs Prometheus (on Debian and Ubuntu: apt install prometheus)"
[ -e "$discovery" ] || stop "there is no $discovery: is \`make serve\` running?"
[ -f "$config" ] || stop "there is no $config"

folder=$(mktemp -d)
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
trap 'exit 0' INT TERM

sed -e "s|/tmp/ray/prom_metrics_service_discovery.json|$discovery|" \
  -e "s|127.0.0.1:9470|127.0.0.1:$exporter_port|" \
  -e "s|_interval: 10s.*|_interval: ${INTERVAL:-10s}|" \
  "$here/prometheus.yml" > "$folder/prometheus.yml"
cp -r "${RULES:-$here/rules}" "$folder/rules"

(cd "$folder" && exec "$bin/tierwise" cost-exporter --config "$config" --discovery "$discovery" --port "$exporter_port") &
prometheus --config.file="$folder/prometheus.yml" --storage.tsdb.path="$folder/data" --web.listen-address="127.0.0.1:$port" --log.level=warn &
say "http://127.0.0.1:$port shows queries and alerts; dashboards for Grafana are in cluster/monitoring/grafana; Ctrl-C ends it"
wait -n || stop "a part of it ended: see above"
