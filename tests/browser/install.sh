#!/usr/bin/env bash
# Installs what the browser's tests need beside .venv: chromium and axe-core, which looks for what a screen reader cannot
# read. A second run installs nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
missing=()
if ! command -v chromium >/dev/null; then missing+=(chromium); fi
if ! command -v npm >/dev/null && [ ! -d build/browser/node_modules/axe-core ]; then missing+=(npm); fi
if ! command -v curl >/dev/null; then missing+=(curl); fi
if [ ${#missing[@]} -gt 0 ]; then tests/apt_install.sh "${missing[@]}"; fi
if [ ! -d build/browser/node_modules/axe-core ]; then
    npm install --prefix build/browser --no-audit --no-fund --silent axe-core@4
fi
