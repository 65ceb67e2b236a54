import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
# A model that runs without the rules; then something asks for them. Says which were still waiting before and after.
PROGRAM = """
import json, sys
import numpy as np
from model.deferred import RULES
from model.pack import pack
from service.loading import load_runner
from service.settings import Settings

runner, _ = load_runner(Settings(devices="cpu", dtype="float32"))
grids = [(3, 5), (8, 8)]
rows = [np.full((h * w, 3 * runner.patch_size**2), 7 * h, dtype=np.uint8) for h, w in grids]
output = runner.run(pack(rows, grids), tokens=True)

waiting = lambda: [name for name in RULES if "__getattr__" in vars(sys.modules[name])]
before = waiting()
import torch
exec(sys.argv[1])
rules = sys.modules[RULES[0]]
print(json.dumps({
    "before": before, "after": waiting(), "loader": type(rules.__spec__.loader).__name__,
    "registered": "activate_meta" in vars(rules), "pooled": output.pooled.tobytes().hex(),
}))
"""


def run(asking: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, asking], cwd=ROOT, check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def test_a_forward_needs_no_rules_of_shapes_and_gives_the_same_bits() -> None:
    import torch

    from model.checkpoint.load import load_checkpoint
    from model.deferred import RULES
    from model.pack import pack
    from model.running.runner import Runner

    assert "activate_meta" in vars(torch._meta_registrations)
    runner, grids = Runner(load_checkpoint("packlight-tiny"), dtype="float32"), [(3, 5), (8, 8)]
    rows = [np.full((h * w, 3 * runner.patch_size**2), 7 * h, dtype=np.uint8) for h, w in grids]
    whole = runner.run(pack(rows, grids)).pooled.tobytes().hex()

    found = run("")

    assert found["before"] == found["after"] == list(RULES)
    assert found["pooled"] == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "asking",
    [
        "import torch._dynamo",
        "torch._meta_registrations.activate_meta",
        "assert torch.compile(lambda x: x.relu() + 1, backend='aot_eager')(torch.ones(3)).tolist() == [2.0] * 3",
        # Without the rules of references, and then with both.
        "assert torch.broadcast_shapes((2, 1), (1, 3)) == (2, 3); import torch._dynamo",
    ],
)
def test_whatever_traces_finds_the_rules(asking: str) -> None:
    found = run(asking)

    assert found["before"]
    assert not [name for name in found["after"] if name == "torch._meta_registrations"]
    assert found["registered"]
    assert found["loader"] == "SourceFileLoader"
