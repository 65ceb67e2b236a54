import json
import subprocess
import sys
from pathlib import Path

import pytest

# Something asks for the rules; says which were waiting before and after.
PROGRAM = """
import json, sys
from model.deferred import RULES, import_torch

import_torch()
waiting = lambda: [name for name in RULES if "__getattr__" in vars(sys.modules[name])]
before = waiting()
import torch
exec(sys.argv[1])
rules = sys.modules[RULES[0]]
print(json.dumps([before, waiting(), "activate_meta" in vars(rules), type(rules.__spec__.loader).__name__]))
"""
RULES = ["torch._meta_registrations", "torch.distributed._meta_registrations"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asking", "left"),
    [
        ("", RULES),
        ("import torch._dynamo", []),
        ("torch._meta_registrations.activate_meta", RULES[1:]),
        ("assert torch.compile(lambda x: x.relu() + 1, backend='aot_eager')(torch.ones(3)).tolist() == [2.0] * 3", []),
        # The references alone, and then the rules.
        ("assert torch.broadcast_shapes((2, 1), (1, 3)) == (2, 3)", RULES),
        ("assert torch.broadcast_shapes((2, 1), (1, 3)) == (2, 3); import torch._dynamo", []),
    ],
)
def test_whatever_traces_finds_the_rules(asking: str, left: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, asking]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True)

    before, after, loaded, loader = json.loads(ended.stdout.splitlines()[-1])

    assert before == RULES
    assert after == left
    assert loaded == (RULES[0] not in left)
    assert (loader == "SourceFileLoader") == loaded
