#!/usr/bin/env bash
# Makes deploy/requirements/cpu.txt and cuda.txt from pyproject.toml: every version and hash that the image installs.
#
#   deploy/lock.sh               newest versions that pyproject.toml allows
#   UPGRADE=0 deploy/lock.sh     keeps what is locked, where it still fits
#
# Needs uv (pip install uv). TORCH_CPU_INDEX: a mirror of PyTorch's CPU index. No address enters a lock file.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH_CPU_INDEX=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}
UPGRADE=${UPGRADE:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

lock() {
    local variant=$1 project=$2 file=deploy/requirements/$1.txt extras=(--extra loadtest --extra cache --extra tracing)
    if [ "$variant" = cuda ]; then extras+=(--extra gpu); fi
    if [ "$UPGRADE" = 0 ] && [ -f "$file" ]; then cp "$file" "$work/$variant.txt"; fi
    # Hashes of every platform's wheels are listed, so the platform decides only what is installed: Linux.
    uv pip compile "$project" "${extras[@]}" --quiet --python-version 3.11 \
        --python-platform x86_64-manylinux_2_28 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --output-file "$work/$variant.txt"
    { echo "# Made by deploy/lock.sh from pyproject.toml, for VARIANT=$variant."; cat "$work/$variant.txt"; } > "$file"
}

# Torch alone comes from PyTorch's index, which also carries old copies of numpy and others.
mkdir "$work/cpu"
{
    cat pyproject.toml
    printf '\n[tool.uv.sources]\ntorch = { index = "torch-cpu" }\n'
    printf '\n[[tool.uv.index]]\nname = "torch-cpu"\nurl = "%s"\nexplicit = true\n' "$TORCH_CPU_INDEX"
} > "$work/cpu/pyproject.toml"

lock cpu "$work/cpu/pyproject.toml"
lock cuda pyproject.toml
