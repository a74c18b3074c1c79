# Sourced before `ray start` on every node: what all of them must have alike. No secret stands here.
# shellcheck shell=bash

# Serve's fast transport and HAProxy, for the whole cluster, before Serve starts.
export RAY_SERVE_THROUGHPUT_OPTIMIZED=1
export RAY_SERVE_ENABLE_HA_PROXY=1
export RAY_SERVE_HAPROXY_METRICS_PORT=9101
export RAY_SERVE_HAPROXY_STATS_PORT=8404
# Serve's own listeners pass every request through our filter of headers first.
export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.deployments.proxy:middlewares
export RAY_ENABLE_UV_RUN_RUNTIME_ENV=0
export RAY_USAGE_STATS_ENABLED=0
# Nobody talks to Ray without the token below.
export RAY_AUTH_MODE=token
# Models are downloaded once a node.
export HF_HOME="${HF_HOME:-$HOME/models}"
export AWS_DEFAULT_REGION="${AWS_DEFAULT_REGION:-us-east-1}"

# Secrets lie in the Parameter Store as SecureString under /tierwise/; the nodes' roles may read those and no others.
parameter() {
  aws ssm get-parameter --name "/tierwise/$1" --with-decryption --query Parameter.Value --output text
}
for name in RAY_AUTH_TOKEN TIERWISE_API_KEYS TIERWISE_ADMIN_KEYS TIERWISE_LEDGER_URL TIERWISE_HASH_KEY HF_TOKEN; do
  value=$(parameter "$name") || { printf 'environment: /tierwise/%s cannot be read\n' "$name" >&2; return 1; }
  export "$name=$value"
done
unset -f parameter
unset name value
