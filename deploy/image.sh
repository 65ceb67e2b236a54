#!/usr/bin/env bash
# Builds the image with labels that say which version and commit it is, and when it was made:
#
#   deploy/image.sh                packlight:VERSION-cuda
#   VARIANT=cpu deploy/image.sh    packlight:VERSION-cpu
#
# More options go to the build: deploy/image.sh --build-arg HEIF=1. ENGINE=podman builds with another engine.
set -euo pipefail
cd "$(dirname "$0")/.."

variant=${VARIANT:-cuda}
image=packlight:$(python3 -m deploy.version)-$variant
commit=$(git rev-parse HEAD)
# Otherwise the label would name a commit that holds something else.
if [ -n "$(git status --porcelain)" ]; then commit+=-dirty; fi
options=(--build-arg VARIANT="$variant" --build-arg GIT_COMMIT="$commit" --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)")
if [ -n "${TORCH_CPU_INDEX:-}" ]; then options+=(--build-arg TORCH_CPU_INDEX="$TORCH_CPU_INDEX"); fi
export DOCKER_BUILDKIT=1
"${ENGINE:-docker}" build "${options[@]}" "$@" --tag "$image" .
printf '%s\n' "$image"
