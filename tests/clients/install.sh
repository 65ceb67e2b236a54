#!/usr/bin/env bash
# Installs what the clients of `make test-clients` lack: a JDK, curl and Node with apt-get, undici with npm (or, without
# npm, Debian's undici). Where it may not, it says what is missing and ends with 1.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
if ! command -v javac >/dev/null; then missing+=(default-jdk-headless); fi
if ! command -v curl >/dev/null; then missing+=(curl); fi
if ! command -v node >/dev/null; then missing+=(nodejs); fi
if ! command -v npm >/dev/null && [ ! -d /usr/share/nodejs/undici ]; then missing+=(node-undici); fi
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "missing: ${missing[*]} (Debian's names). Install them with: apt-get install ${missing[*]}"
        exit 1
    fi
    echo "installing ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
fi
if command -v npm >/dev/null && [ ! -d build/clients/node_modules/undici ]; then
    # 6 runs on the Node of Debian 12.
    npm install --prefix build/clients --no-audit --no-fund --silent undici@6
fi
