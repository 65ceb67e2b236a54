#!/usr/bin/env bash
# The checklist of a release, up to what cannot be taken back. It makes dist/ and, where there is Docker, an image; it
# changes nothing in the repository, and it publishes nothing: at its end it prints the commands that do.
#
#   python3 -m deploy.version 0.2.0 && git commit -am "Release 0.2.0"    first
#   deploy/release.sh                                                    then; half an hour
#   deploy/release.sh --try                                              without the tests, from any branch
#
# VARIANTS="cpu cuda": the images to build. ENGINE=podman: with another engine. REMOTE=origin: where main is pushed to.
set -euo pipefail
cd "$(dirname "$0")/.."

BIN=.venv/bin
REMOTE=${REMOTE:-origin}
VARIANTS=${VARIANTS:-cpu}
ENGINE=${ENGINE:-docker}
for_real=1
if [ "${1:-}" = --try ]; then for_real=0; fi
skipped=()

say() { printf '== %4ds  %s\n' "$SECONDS" "$*"; }
skip() { skipped+=("$*"); }
die() { printf 'NOT READY: %s\n' "$*"; exit 1; }
# What a release needs, and a try only tells.
must() { if [ $for_real = 1 ]; then die "$*"; else skip "$*"; fi; }

say "the tree"
[ -z "$(git status --porcelain)" ] || die "there are changes that are not committed: git status"
branch=$(git rev-parse --abbrev-ref HEAD)
[ "$branch" = main ] || must "releases are made from main, and this is $branch"
if git fetch --quiet --tags "$REMOTE" main 2>/dev/null; then
    [ "$(git rev-parse HEAD)" = "$(git rev-parse FETCH_HEAD)" ] || must "main and that of $REMOTE differ: git pull, git push"
else
    must "$REMOTE does not answer (REMOTE=...)"
fi

say "the version and its changes"
version=$(python3 -m deploy.version)
tag=v$version
python3 -m deploy.version --release || must "CHANGELOG.md is not ready"
if git rev-parse --quiet --verify "refs/tags/$tag" >/dev/null; then die "$tag exists: python3 -m deploy.version NEXT"; fi
grep --quiet '^\[project\.urls\]' pyproject.toml || skip "pyproject.toml has no [project.urls]: a package index shows no \
address, and links and pictures of the README lead nowhere there"

if [ $for_real = 1 ]; then
    say "all tests"
    make check test-clients test-browser docs deploy-check
else
    skip "the tests: make check test-clients test-browser docs deploy-check"
fi

say "sdist and wheel"
make dist
$BIN/twine check --strict dist/*

say "the wheel, in an environment of its own"
DIST=$PWD/dist make test-release

images=()
for variant in $VARIANTS; do
    if command -v "$ENGINE" >/dev/null && "$ENGINE" info >/dev/null 2>&1; then
        say "the image for $variant"
        VARIANT=$variant deploy/image.sh | tail -n 1
        images+=("packlight:$version-$variant")
        revision=$("$ENGINE" inspect --format '{{index .Config.Labels "org.opencontainers.image.revision"}}' "${images[-1]}")
        [ "$revision" = "$(git rev-parse HEAD)" ] || die "the image is labelled with commit '$revision'"
    else
        skip "the image for $variant: no $ENGINE. VARIANT=$variant deploy/image.sh builds it, make verify tries it"
    fi
done
[ -z "$(git status --porcelain)" ] || die "the checks have changed the tree: git status"

say "done"
if [ ${#skipped[@]} -gt 0 ]; then printf 'left out: %s\n' "${skipped[@]}"; fi
if [ $for_real = 0 ]; then echo "This was a try: nothing here is to be published."; exit 0; fi
cat <<COMMANDS

Ready. Nothing has been published. What is left, in this order; none of it can be taken back:

    git tag --annotate $tag --message "Packlight $version" $(git rev-parse HEAD)
    git push $REMOTE $tag
    $BIN/twine upload dist/*
COMMANDS
for image in "${images[@]}"; do
    printf '    %s tag %s REGISTRY/%s && %s push REGISTRY/%s\n' "$ENGINE" "$image" "$image" "$ENGINE" "$image"
done
