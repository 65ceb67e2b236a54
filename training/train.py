"""`python -m training.train`: trains packlight-tiny from scratch on pictures drawn for it.

Two views of a picture (another crop, shape, file, colours and budget) should get one vector, and views of other
pictures other vectors. A folder keeps the pictures and what has been learnt, and an interrupted run continues from
there.
"""

import argparse
import ctypes
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from model.checkpoint.tiny import CONFIG
from model.kernels.hardware import usable_cores
from training.learning.learner import Learner
from training.learning.offset import with_offset
from training.learning.pool import Pool
from training.learning.schedule import Schedule, courses
from training.learning.steps import Step, make_step
from training.learning.stretch import with_stretch

_AHEAD = 4  # steps that are made ahead of the one being learnt
SAVED_EVERY = 50  # steps
_LOOKED_AT = 8  # steps after the last, whose pictures set the stretch and the offset
EXIT_CANNOT_RUN = 2


class RecipeChanged(Exception):
    """The saved run has another recipe."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """pictures: number of pictures to draw. pictures_of_step: pictures of a step, which shows two views of each."""

    pictures: int
    schedule: Schedule
    pictures_of_step: int = 192


RECIPES = {
    "full": Recipe(16_000, courses((700, 130), (140, 90))),
    "short": Recipe(2_000, courses((50, 8), (10, 5))),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws, learns and writes `model.safetensors`. Returns 0, or 2 if the folder has a run of another recipe."""
    options = _parser().parse_args(arguments)
    _keep_memory()
    recipe, saved = RECIPES[options.recipe], options.folder / f"{options.recipe}-{options.seed}.pt"
    learner = Learner(CONFIG, seed=options.seed, device=torch.device(options.device))
    try:
        first = _resume(learner, saved, recipe)
    except RecipeChanged as error:
        sys.stderr.write(f"training.train: {error}\n")
        return EXIT_CANNOT_RUN
    pool = Pool(options.folder / "drawn", count=recipe.pictures)
    with tqdm(total=len(pool), desc="drawing", unit="picture") as progress:
        for done in pool.fill(usable_cores()):
            progress.update(done - progress.n)
    _learn(learner, pool, recipe, seed=options.seed, first=first, saved=saved)
    out = options.folder / "model.safetensors"
    vectors, sort = _vectors(learner, pool, recipe, options.seed)
    save_file(with_offset(with_stretch(learner.weights(), vectors, sort), vectors), out, {"format": "pt"})
    sys.stderr.write(f"wrote {out}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.train", description="Trains packlight-tiny.", allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="keeps pictures, progress and the weights")
    parser.add_argument("--recipe", choices=RECIPES, default="full", help="how long to train (default: full)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of weights and views (default: 1)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:N (default: cpu)")
    return parser


def _learn(learner: Learner, pool: Pool, recipe: Recipe, *, seed: int, first: int, saved: Path) -> None:
    schedule, steps = recipe.schedule, recipe.schedule.steps
    found = deque[float](maxlen=20)
    began = time.monotonic()
    with tqdm(total=steps, initial=first, desc="learning", unit="step") as progress:
        for number, step in enumerate(_made_ahead(pool, first, recipe, seed), start=first):
            course, within = schedule.at(number)
            loss, right = learner.learn(step, course.share_of_rate(within), course.weights)
            found.append(right)
            if within + 1 == course.steps:
                learner.end_course()
            progress.set_postfix(loss=f"{loss:.3f}", found=f"{sum(found) / len(found):.3f}")
            progress.update()
            if (number + 1) % SAVED_EVERY == 0 or number + 1 == steps:
                _save(learner, number + 1, recipe, saved)
    learner.finish()
    sys.stderr.write(f"{steps - first} steps in {(time.monotonic() - began) / 60:.1f} minutes\n")


def _made_ahead(pool: Pool, first: int, recipe: Recipe, seed: int) -> Iterator[Step]:
    """Yields steps in order. Other processes make them while earlier ones are learnt."""
    workers = max(1, usable_cores() // 2)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes:
        waiting: deque[Future[Step]] = deque()
        for number in range(first, recipe.schedule.steps):
            course, within = recipe.schedule.at(number)
            make = partial(make_step, pictures=recipe.pictures_of_step, budgets=course.budgets(within), seed=seed)
            waiting.append(processes.submit(make, pool, number))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _vectors(learner: Learner, pool: Pool, recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
    """Returns vectors of pictures, float32 `[B, D]`, and their sorts, int64 `[B]`.

    The pictures are whole views of the steps that would come after the last.
    """
    steps, pictures = recipe.schedule.steps, recipe.pictures_of_step
    course, within = recipe.schedule.at(steps - 1)
    shown = range(steps, steps + _LOOKED_AT)
    after = [make_step(pool, n, pictures=pictures, budgets=course.budgets(within), seed=seed) for n in shown]
    sort = np.concatenate([step.sort for step in after])
    return torch.cat([learner.vectors(step.whole) for step in after]), torch.from_numpy(sort)


def _resume(learner: Learner, saved: Path, recipe: Recipe) -> int:
    """Returns how many steps have been learnt. Raises `RecipeChanged`."""
    if not saved.exists():
        return 0
    state: dict[str, Any] = torch.load(saved, weights_only=True)
    if state.get("recipe") != repr(recipe):
        raise RecipeChanged(f"{saved} is of another recipe: remove it, or use another folder")
    learner.restore(state["learner"])
    return int(state["steps"])


def _save(learner: Learner, steps: int, recipe: Recipe, saved: Path) -> None:
    unfinished = saved.with_suffix(".unfinished")
    torch.save({"learner": learner.state(), "steps": steps, "recipe": repr(recipe)}, unfinished)
    os.replace(unfinished, saved)


def _keep_memory() -> None:
    """Makes glibc keep large blocks. Giving each back and clearing it again takes a tenth of all time."""
    if sys.platform == "linux":
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_mmap_threshold, 2**25)


if __name__ == "__main__":
    sys.exit(main())
