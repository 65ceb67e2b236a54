#!/usr/bin/env bash
# Installs Debian packages, tests/apt_install.sh NAME…, or says how to where it may not, and ends with 1.
set -euo pipefail
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "missing: $* (Debian's names). Install them with: apt-get install $*"
    exit 1
fi
echo "installing $*"
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$@" >/dev/null
