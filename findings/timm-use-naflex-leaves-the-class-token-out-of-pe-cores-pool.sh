#!/usr/bin/env bash
# timm: use_naflex=True gives PE-Core other vectors on the same weights and picture.
#
# Versions: timm 1.0.31, torch 2.13.0 (CPU). Seen on 2026-11-30. timm needs torchvision for transforms alone: a
#   stand-in spares us the package.
# Behaviour: timm builds `vit_pe_core_*` (Perception Encoder) as an `Eva`, or with use_naflex=True (or
#   TIMM_USE_NAFLEX=1) as a `NaFlexVit`, which takes any size. Both give the same tokens. `Eva` pools by attention over
#   all of them, as the model was trained; `NaFlexVit` leaves the class token out, because pool_include_prefix is false
#   there and the translation of arguments does not set it. Nothing warns. The gigantic model has no class token.
# Output seen (random weights, 224 x 224 pixels; differences relative to the largest value):
#   pool_include_prefix=False: tokens differ by 7.8e-07, vectors by 5.6e-03
#   pool_include_prefix=True: tokens differ by 7.8e-07, vectors by 4.1e-07
# Why it matters: vectors of a server that sets use_naflex for the sake of other sizes do not match an index that timm's
#   default made, even at the same size. Passing pool_include_prefix=True mends it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 safetensors==0.8.0 pyyaml==6.0.4 \
    huggingface-hub==2.4.0 pillow==13.0.0
"$folder/venv/bin/pip" install --quiet --no-deps timm==1.0.31

"$folder/venv/bin/python" - <<'PYTHON'
import sys
from unittest.mock import MagicMock

for part in ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc", ".datasets", ".models"):
    sys.modules[f"torchvision{part}"] = MagicMock()
sys.modules["torchvision.models.feature_extraction"] = MagicMock()

import timm
import torch
from timm.models.naflexvit import checkpoint_filter_fn

name, shape = "vit_pe_core_base_patch16_224", {"depth": 2}
torch.manual_seed(0)
eva = timm.create_model(name, **shape).eval()
with torch.no_grad():
    for parameter in eva.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
picture = torch.rand(1, 3, 224, 224)


def outputs(model):
    with torch.no_grad():
        tokens = model.forward_features(picture)
        return tokens, model.forward_head(tokens, pre_logits=True)


def apart(ours, theirs):
    return float((ours - theirs).abs().max() / theirs.abs().max())


tokens, vector = outputs(eva)
weights = {key: value.clone() for key, value in eva.state_dict().items()}
found = {}
for include in (False, True):
    naflex = timm.create_model(name, use_naflex=True, pool_include_prefix=include, **shape).eval()
    naflex.load_state_dict(checkpoint_filter_fn({k: v.clone() for k, v in weights.items()}, naflex))
    its_tokens, its_vector = outputs(naflex)
    found[include] = apart(its_tokens, tokens), apart(its_vector, vector)
    print(f"pool_include_prefix={include}: tokens differ by {found[include][0]:.1e}, vectors by {found[include][1]:.1e}")
default = timm.create_model(name, use_naflex=True, **shape)
assert default.pool_include_prefix is False, "the translation sets it now"
assert found[False][0] < 1e-5 < 1e-3 < found[False][1], "the vectors agree now"
assert max(found[True]) < 1e-5, "the option does not help any more"
PYTHON
