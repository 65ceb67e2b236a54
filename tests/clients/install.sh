#!/usr/bin/env bash
# Installs what the clients of `make test-clients` lack: a JDK, curl, jq, Go, Node and npm with apt-get, Node's packages with
# npm, and the packages of docs/clients/ with pip, in a virtual environment of their own. Where it may not, it says what is
# missing and ends with 1.
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
if ! command -v javac >/dev/null; then missing+=(default-jdk-headless); fi
if ! command -v curl >/dev/null; then missing+=(curl); fi
if ! command -v jq >/dev/null; then missing+=(jq); fi
if ! command -v go >/dev/null; then missing+=(golang-go); fi
if ! command -v node >/dev/null; then missing+=(nodejs); fi
if ! command -v npm >/dev/null; then missing+=(npm); fi
if [ ${#missing[@]} -gt 0 ]; then tests/apt_install.sh "${missing[@]}"; fi

clients=build/clients
if [ ! -d $clients/node_modules/@electric-sql/pglite ] || [ ! -d $clients/node_modules/undici ]; then
    # undici 6 runs on the Node of Debian 12.
    npm install --prefix $clients --no-audit --no-fund --silent undici@6 @electric-sql/pglite@0.5.14 \
        @electric-sql/pglite-pgvector@0.0.15 @electric-sql/pglite-socket@0.2.17
fi

wanted=$(cat tests/clients/requirements.txt tests/clients/constraints.txt)
if [ "$wanted" != "$(cat $clients/venv/installed.txt 2>/dev/null)" ]; then
    echo "installing the packages of docs/clients/"
    rm -rf $clients/venv
    "${PYTHON:-python3}" -m venv $clients/venv
    $clients/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
        --requirement tests/clients/requirements.txt --constraint tests/clients/constraints.txt
    echo "$wanted" > $clients/venv/installed.txt
fi
