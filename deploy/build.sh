#!/usr/bin/env bash
# Builds the sdist, and from it the wheel: deploy/build.sh FOLDER, which must be empty or missing.
#
# What is built is the working tree as git sees it, copied aside: nothing that git ignores gets in, and no file of an
# earlier build. A commit gives a wheel of the same bytes each time. No network: the setuptools is that of .venv (PYTHON=...).
set -euo pipefail
cd "$(dirname "$0")/.."

umask 022
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
out=${1:?where to build to}
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -z "$(ls -A "$out")" ] || { echo "$out is not empty"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir "$work/tree"
git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - | tar --extract --directory "$work/tree"
chmod -R u=rwX,go=rX "$work/tree"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
build() { "$PYTHON" -P -m build --no-isolation "$@" "$work/tree" >"$work/log" 2>&1 || { tail -n 30 "$work/log"; exit 1; }; }
build --outdir "$out"
build --outdir "$work/direct" --wheel
cmp "$out"/*.whl "$work"/direct/*.whl || { echo "the wheel of the sdist is not the wheel of the tree"; exit 1; }
ls -l "$out"
