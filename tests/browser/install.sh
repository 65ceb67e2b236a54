#!/usr/bin/env bash
# Installs what the browser's tests need beside .venv: chromium and axe-core, which looks for what a screen reader cannot
# read. A second run installs nothing. Chromium without its windows computes the same pages in 0.6 of the processor time.
set -euo pipefail
cd "$(dirname "$0")/../.."
missing=()
if ! command -v chromium-headless-shell >/dev/null; then missing+=(chromium-headless-shell); fi
if ! command -v npm >/dev/null && [ ! -d build/browser/node_modules/axe-core ]; then missing+=(npm); fi
if ! command -v curl >/dev/null; then missing+=(curl); fi
if [ ${#missing[@]} -gt 0 ]; then tests/apt_install.sh "${missing[@]}"; fi
if [ ! -d build/browser/node_modules/axe-core ]; then
    npm install --prefix build/browser --no-audit --no-fund --silent axe-core@4
fi
