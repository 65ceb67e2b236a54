"""packlight-tiny still gives the vectors of the golden file, by cosine, since bits depend on the machine.

`python -m tests.model.checkpoint.test_tiny_golden` rewrites the file. Do that for new weights only.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from model.checkpoint.load import load_checkpoint
from model.checkpoint.tiny import NAME, PREPROCESSING
from model.images.patches import patch_rows
from model.pack import pack
from model.running.devices import DtypeName
from model.running.runner import Runner
from model.sizing.budget import Budget
from model.sizing.plan import plan_image

GOLDEN = Path(__file__).with_name("tiny.npz")
PICTURES = ("astronaut", "coffee", "page", "text", "rocket", "chelsea")
BUDGETS = (64, 256, 576)


def vectors(dtype: DtypeName) -> dict[str, NDArray[np.float32]]:
    """One vector per picture and budget, float32 `[D]` of length 1, all from one pack."""
    geometry = PREPROCESSING.geometry
    rows, grids, names = [], [], []
    for name in PICTURES:
        image = Image.fromarray(getattr(data, name)()).convert("RGB")
        for tokens in BUDGETS:
            budget = Budget.of_tokens(tokens, geometry.patch_size)
            plan = plan_image((image.height, image.width), geometry=geometry, budget=budget, strategy="naflex")
            rows.append(patch_rows(image, plan, geometry))
            grids.append(plan.segments[0].grid)
            names.append(f"{name} {tokens}")
    pooled = Runner(load_checkpoint(NAME), device="cpu", dtype=dtype).run(pack(rows, grids)).pooled
    return dict(zip(names, pooled / np.linalg.norm(pooled, axis=1, keepdims=True), strict=True))


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.99999), ("bfloat16", 0.998)])
def test_vectors_match_the_golden_file(dtype: DtypeName, least: float) -> None:
    golden = np.load(GOLDEN)
    found = vectors(dtype)
    assert set(found) == set(golden.files)
    for name, vector in found.items():
        assert vector @ golden[name] >= least, name


def test_the_nearest_vector_is_the_same_picture_at_another_budget() -> None:
    """On six pictures. `python -m training.evaluate` uses hundreds."""
    found = vectors("float32")
    for name in PICTURES:
        for tokens in BUDGETS:
            nearest = max((other for other in found if other != f"{name} {tokens}"), key=lambda other: float(
                found[f"{name} {tokens}"] @ found[other]))  # fmt: skip
            assert nearest.startswith(name), (name, tokens, nearest)


if __name__ == "__main__":
    np.savez(GOLDEN, allow_pickle=False, **vectors("float32"))
