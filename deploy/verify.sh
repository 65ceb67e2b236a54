#!/usr/bin/env bash
# Builds the image and brings the compose file up, for real, on a bare Debian 12 host without a container registry:
# it installs Docker and docker-compose, starts an engine of its own (nothing of another is touched), stands in for the
# images that it cannot pull, and takes all of it down again. Root; about four minutes; not part of `make test`.
#
#   deploy/verify.sh
#
# CPU only. VERIFY_CUDA=1 builds the CUDA image too (several GB) and runs it without a GPU. TORCH_CPU_INDEX: a mirror.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian's client: it carries BuildKit for its own engine, and finds no other by its environment.
DOCKER=/usr/bin/docker
VERSION=$(python3 -m deploy.version)
IMAGE=packlight:$VERSION-cpu
BASE=python:3.11-slim-bookworm
KEY=sentinel-api-key-5b1f HUB_TOKEN=sentinel-hub-token-77c0 STRAY=sentinel-stray-file-90ae

[ "$(id -u)" = 0 ] || { echo "run it as root: it installs packages and starts an engine"; exit 2; }
work=$(mktemp -d /var/tmp/packlight-verify.XXXXXX)
export DOCKER_HOST=unix://$work/docker.sock
forwarding=$(cat /proc/sys/net/ipv4/ip_forward)
pids=()
skipped=()

say() { printf '== %4ds  %s\n' "$SECONDS" "$*"; }
skip() { skipped+=("$*"); }
die() { printf 'FAILED: %s\n' "$*"; exit 1; }
# How every container of the image is run here.
run() { $DOCKER run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --init "$@"; }
compose() {
    VARIANT=cpu docker-compose --project-name packlight-verify --project-directory . \
        --file docker-compose.yml --file "$work/standins.yml" "$@"
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
field() { $DOCKER inspect --format "$2" "$1"; }
wait_healthy() {
    for _ in $(seq 120); do
        if [ "$(field "$1" '{{.State.Health.Status}}')" = healthy ]; then return 0; fi
        sleep 0.5
    done
    $DOCKER logs "$1" 2>&1 | tail -n 20
    die "$1 did not become healthy"
}

finish() {
    local status=$?
    set +e
    if [ "$status" != 0 ]; then compose logs --tail 20 2>&1 | tail -n 60; fi
    [ -S "$work/docker.sock" ] && $DOCKER ps -aq | xargs -r $DOCKER rm -fv >/dev/null 2>&1
    [ -S "$work/docker.sock" ] && $DOCKER network prune -f >/dev/null 2>&1
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    wait
    if [ -f "$work/iptables" ]; then iptables-restore <"$work/iptables"; fi
    echo "$forwarding" >/proc/sys/net/ipv4/ip_forward
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT

# No image of one's own can have the digest of a real one.
cat >"$work/standins.yml" <<'YAML'
services:
  prometheus: {image: "packlight-verify-prometheus"}
  grafana: {image: "packlight-verify-grafana"}
YAML

say "packages"
export DEBIAN_FRONTEND=noninteractive
{ apt-get update && apt-get install --yes --no-install-recommends \
    docker.io docker-compose runc iptables mmdebstrap prometheus python3-pip; } >"$work/apt.log" 2>&1 ||
    { tail "$work/apt.log"; die "apt-get"; }

say "an engine of its own"
# It writes firewall rules and turns forwarding on. Where another engine has done so already, they stay.
if ! iptables --list DOCKER >/dev/null 2>&1; then iptables-save >"$work/iptables"; fi
# Without a default bridge: that one is another engine's, if there is another. Compose makes networks of its own.
dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" --host "$DOCKER_HOST" \
    --bridge none >"$work/dockerd.log" 2>&1 &
pids+=($!)
for _ in $(seq 60); do if $DOCKER info >/dev/null 2>&1; then break; fi; sleep 0.5; done
$DOCKER info >/dev/null || { tail "$work/dockerd.log"; die "dockerd did not start"; }

say "a stand-in for $BASE"
mmdebstrap --quiet --variant=apt --include=ca-certificates,python3,python3-venv bookworm "$work/base.tar" 2>"$work/mm.log" ||
    { tail "$work/mm.log"; die "mmdebstrap"; }
# The build trusts whom the host trusts, as where a company's proxy signs for the world.
bundle=etc/ssl/certs/ca-certificates.crt
mkdir -p "$work/root/etc/ssl/certs" && cp "/$bundle" "$work/root/$bundle"
tar --delete --file "$work/base.tar" "./$bundle" && tar --append --file "$work/base.tar" --directory "$work/root" "./$bundle"
$DOCKER import --change "ENV PIP_CERT=/$bundle" "$work/base.tar" $BASE >/dev/null
skip "the real base images of Python, Prometheus and Grafana: nothing is pulled; Debian's packages stand in, and for \
Grafana a page that checks what is provisioned"

say "a page with torch for the CPU, from wherever pip finds it"
mkdir -p "$work/index/torch"
python3 -m pip download --quiet --no-deps --dest "$work/index/torch" \
    --python-version 3.11 --platform manylinux_2_28_x86_64 --only-binary :all: \
    --find-links "${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}/torch/" \
    "$(grep --only-matching '^torch==[^ ]*' deploy/requirements/cpu.txt)" 2>"$work/torch.log" ||
    { tail "$work/torch.log"; die "torch"; }
index_port=$(free_port)
python3 -m http.server "$index_port" --bind 127.0.0.1 --directory "$work/index" >"$work/index.log" 2>&1 &
pids+=($!)

say "the image, as a release builds it"
torch_index=http://127.0.0.1:$index_port
ENGINE=$DOCKER VARIANT=cpu TORCH_CPU_INDEX=$torch_index deploy/image.sh --network host >"$work/build.log" 2>&1 ||
    { tail -n 30 "$work/build.log"; die "deploy/image.sh"; }
bytes=$(field "$IMAGE" '{{.Size}}')
say "built: $((bytes / 1000000)) MB"
[ "$bytes" -lt 1600000000 ] || die "the CPU image is over 1.6 GB"
for label in title=Packlight licenses=Apache-2.0 "version=$VERSION" "revision=$(git rev-parse HEAD)" "created=$(date -u +%Y-)"; do
    found=$(field "$IMAGE" "{{index .Config.Labels \"org.opencontainers.image.${label%%=*}\"}}")
    # A commit may have "-dirty" behind it, and the time its hours.
    case $found in "${label#*=}"*) ;; *) die "the label ${label%%=*} is '$found'" ;; esac
done

say "the image, from a tree in which secrets lie about"
mkdir "$work/tree"
tar --exclude=./.git --exclude=./.venv --exclude=./build -cf - . | tar -xf - -C "$work/tree"
for stray in .env model/.env service/.env.local deploy/requirements/key.pem key.pem; do echo $STRAY >"$work/tree/$stray"; done
build() {
    DOCKER_BUILDKIT=1 $DOCKER build --network host --build-arg TORCH_CPU_INDEX="$torch_index" "$@" "$work/tree" \
        >"$work/build.log" 2>&1 || { tail -n 30 "$work/build.log"; die "docker build $*"; }
}
build --build-arg VARIANT=cpu --tag "$IMAGE"

say "what is in it"
# shellcheck disable=SC2016
run --rm --entrypoint sh "$IMAGE" -c '
    set -eu
    [ "$(id -u)" = 10001 ] || { echo "not its own user"; exit 1; }
    grep -q "^CapEff:\s*0*$" /proc/self/status || { echo "capabilities"; exit 1; }
    grep -q "^NoNewPrivs:\s*1" /proc/self/status || { echo "new privileges"; exit 1; }
    if touch /app/x /opt/venv/x 2>/dev/null; then echo "the root file system can be written to"; exit 1; fi
    touch /tmp/x /models/x
    for name in gcc cc g++ clang ld make pip; do
        if command -v $name >/dev/null; then echo "$name is in the image"; exit 1; fi
    done' || die "the container"
skip "that the real slim base brings no compiler: asked of the stand-in"

say "a checkpoint baked in, from a hub that asks for a token"
mkdir "$work/hub" && chmod 777 "$work/hub"
run --rm --interactive --volume "$work/hub:/hub" --entrypoint python "$IMAGE" - /hub <deploy/verify/checkpoint.py
hub_port=$(free_port)
python3 deploy/verify/hub.py "$work/hub" "$hub_port" $HUB_TOKEN >"$work/hub.log" 2>&1 &
pids+=($!)
printf %s $HUB_TOKEN >"$work/token"
build --build-arg VARIANT=cpu --build-arg BAKE_MODEL=example/baked --build-arg HF_ENDPOINT="http://127.0.0.1:$hub_port" \
    --secret id=hf_token,src="$work/token" --tag "packlight:$VERSION-cpu-baked"
baked=$(run --detach --network none "packlight:$VERSION-cpu-baked")
wait_healthy "$baked"
$DOCKER logs "$baked" 2>&1 | grep "example/baked" >/dev/null || die "the baked checkpoint is not what is served"
$DOCKER rm -fv "$baked" >/dev/null

say "no secret in any layer or in the history"
# `grep -q` would stop reading, and `pipefail` take what wrote to it for failed.
holds() { local image=$1; shift; { $DOCKER history --no-trunc "$image" && $DOCKER save "$image"; } | grep --text --fixed-strings "$@" >/dev/null; }
for image in "$IMAGE" "packlight:$VERSION-cpu-baked"; do
    holds "$image" -e NaFlexConfig || die "the search of layers does not find what is there"
    if holds "$image" -e $STRAY -e $HUB_TOKEN -e $KEY; then die "a secret in a layer of $image"; fi
done

say "compose: stand-ins for Prometheus and Grafana"
mkdir "$work/standins" && cp /usr/bin/prometheus /usr/bin/promtool deploy/verify/grafana.py "$work/standins"
for name in prometheus grafana; do
    $DOCKER build --quiet --file deploy/verify/standins.Dockerfile --target $name \
        --tag packlight-verify-$name "$work/standins" >/dev/null
done
SERVER_PORT=$(free_port) PROMETHEUS_PORT=$(free_port) GRAFANA_PORT=$(free_port)
server=http://127.0.0.1:$SERVER_PORT prometheus=http://127.0.0.1:$PROMETHEUS_PORT
printf %s $KEY >"$work/scrape_key" && chmod 644 "$work/scrape_key"
export SERVER_PORT PROMETHEUS_PORT GRAFANA_PORT SCRAPE_KEY_FILE=$work/scrape_key
export PACKLIGHT_API_KEYS=other,$KEY LOADTEST_API_KEY=$KEY LOADTEST_RATE=4 LOADTEST_DURATION=45 PROBE_KEY=$KEY

say "compose: up, in the order of health"
compose up --detach --no-build >"$work/up.log" 2>&1 || { cat "$work/up.log"; die "docker-compose up"; }
before=0
for name in packlight prometheus grafana; do
    id=$(compose ps --quiet $name)
    wait_healthy "$id"
    started=$(date --date "$(field "$id" '{{.State.StartedAt}}')" +%s%N)
    [ "$started" -gt "$before" ] || die "$name started before what it waits for was healthy"
    # When the check that made it healthy ended: what comes next may not start earlier.
    before=$(field "$id" '{{range .State.Health.Log}}{{if eq .ExitCode 0}}{{.End.UnixNano}}{{"\n"}}{{end}}{{end}}' | head -n 1)
    field "$id" '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}' |
        grep -Ex "true \[ALL\] \[no-new-privileges:true\] [1-9][0-9]+ [1-9][0-9]+ unless-stopped" >/dev/null || die "$name is not held as it should be"
done
if $DOCKER ps --format '{{.Ports}}' | tr ',' '\n' | grep -- '->' | grep -v '127.0.0.1:'; then die "a port is open to the network"; fi

say "compose: /embed answers whoever has a key, and nobody else"
python3 deploy/verify/probe.py "$server"
if PROBE_KEY=wrong python3 deploy/verify/probe.py "$server"; then die "a wrong key was taken"; fi

say "compose: the loadtest profile, and every expression of the board while it runs"
compose run --rm loadtest >"$work/load.log" 2>&1 &
load=$!
python3 deploy/check_dashboard.py --prometheus "$prometheus" --wait 90
python3 - "$prometheus" <<'PYTHON'
import json, sys, urllib.request
targets = json.load(urllib.request.urlopen(f"{sys.argv[1]}/api/v1/targets"))["data"]["activeTargets"]
health = {target["labels"]["job"]: target["health"] for target in targets}
sys.stdout.write(f"targets: {health}\n")
sys.exit(health != {"packlight": "up", "prometheus": "up"})
PYTHON
wait $load || { tail -n 20 "$work/load.log"; die "loadtest"; }
grep -E "^  answered" "$work/load.log"
id=$(compose ps --quiet prometheus)
$DOCKER exec "$id" promtool check config /etc/prometheus/prometheus.yml >/dev/null || die "promtool check config"

say "compose: a crash is restarted"
id=$(compose ps --quiet packlight)
# Behind the engine's back: what `docker kill` ends stays down.
kill -KILL "$(field "$id" '{{.State.Pid}}')"
for _ in $(seq 40); do if [ "$(field "$id" '{{.RestartCount}}')" = 1 ]; then break; fi; sleep 0.5; done
[ "$(field "$id" '{{.RestartCount}}')" = 1 ] || die "it was not restarted"
wait_healthy "$id"

say "compose: another setting, and SIGTERM in the midst of a request"
# An image that waits four seconds for company is in the midst of things whatever the speed of this host.
export PACKLIGHT_MAX_WAIT_MS=4000
compose up --detach --no-build packlight >"$work/again.log" 2>&1
id=$(compose ps --quiet packlight)
wait_healthy "$id"
python3 deploy/verify/probe.py "$server" >"$work/probe.log" 2>&1 &
probe=$!
sleep 1.5
kill -0 $probe 2>/dev/null || die "the request was over before the signal"
compose stop packlight >"$work/stop.log" 2>&1
wait $probe || { cat "$work/probe.log"; die "a request that had been accepted was not answered"; }
cat "$work/probe.log"
[ "$(field "$id" '{{.State.ExitCode}} {{.State.OOMKilled}}')" = "0 false" ] || die "the server did not end by itself"
compose down --volumes >"$work/down.log" 2>&1

say "compose: a GPU reservation, where there is none"
VARIANT=cuda docker-compose config | grep "driver: nvidia" >/dev/null || die "no reservation in the default"
if VARIANT=cpu docker-compose config | grep -i nvidia; then die "the cpu way asks for something of NVIDIA"; fi
if [ "${VERIFY_CUDA:-0}" = 1 ]; then
    say "the CUDA image"
    build --build-arg VARIANT=cuda --tag "packlight:$VERSION-cuda"
    say "built: $(($(field "packlight:$VERSION-cuda" '{{.Size}}') / 1000000)) MB"
    id=$(run --detach "packlight:$VERSION-cuda")
    wait_healthy "$id"
    $DOCKER logs "$id" 2>&1 | grep " on "
else
    skip "the CUDA image: several GB (VERIFY_CUDA=1)"
fi
skip "a GPU in a container: needs one, and NVIDIA's container toolkit"

say "done"
printf 'skipped: %s\n' "${skipped[@]}"
