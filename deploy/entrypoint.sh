#!/bin/sh
# `packlight` with a baked checkpoint as its model, unless the settings name one. A baked checkpoint has a cache of its
# own: the volume on /models would hide it, or keep an old one past an upgrade.
set -eu
if [ -n "${BAKED_MODEL:-}" ] && [ -z "${PACKLIGHT_MODEL:-}" ]; then
    export PACKLIGHT_MODEL="$BAKED_MODEL" PACKLIGHT_REVISION="${BAKED_REVISION:-}"
    export HF_HUB_CACHE=/opt/baked/hub HF_HUB_OFFLINE=1
fi
exec packlight "$@"
