"""A job whose pictures are read, decoded and embedded by a cluster, and come back in order."""

import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy, read_datasource
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from model.errors import ModelError
from service.jobs.decoding import Recipe
from service.jobs.ledger import Ledger
from service.jobs.packs import PackCount
from service.jobs.ray import messages
from service.jobs.ray.cluster import Shares
from service.jobs.ray.messages import Known, Place
from service.jobs.ray.reading import PictureSource
from service.jobs.ray.stages import Decode, Digests, Embed, facts_of
from service.jobs.rows import Embedded, Row
from service.jobs.sources.source import Source
from service.limits import Limits, ModelFacts
from service.settings.names import SettingsError
from service.settings.settings import Settings

TASK_FILES = 128
"""Files that one task reads and another one decodes."""
# Packs that a runner's scheduler chooses from at once. The last of them has room left: half a pack, on average.
_WINDOW_PACKS = 16
# What stages hand over in one piece has about so many bytes.
_BLOCK_BYTES = 64 * 1024**2
# A runner has the next window at hand while it works on one.
_WINDOWS_A_RUNNER = 2
# How often a task whose process ends is tried again: a picture may end each process.
_DECODE_RETRIES = 8


@dataclass(frozen=True, slots=True)
class RayJob:
    """Embeds the pictures of sources on the cluster that this process is connected to. count: of packs, so far."""

    settings: Settings
    limits: Limits
    recipe: Recipe
    shares: Shares
    ahead_bytes: int
    task_files: int = TASK_FILES
    count: PackCount = field(default_factory=PackCount)

    def rows(self, sources: Sequence[Source], ledger: Ledger) -> Generator[Row, None, None]:
        """One row a picture, in order; what is new is in the ledger by then.

        Raises `SettingsError` where the cluster gives up.
        """
        before: Place | None = None
        try:
            for table in self._tables(sources, ledger.digests()):
                self._add(messages.counts(table))
                done = list(messages.embedded_rows(table))
                ledger.add([row for _, row in done if isinstance(row, Embedded)])
                for place, row in done:
                    if not place.follows(before):
                        raise SettingsError(f"Ray gave the picture {place} after {before}: rows were lost or repeated")
                    before = place
                    yield _kept(row, ledger) if isinstance(row, Known) else row
        except RayError as error:
            raise plain(error) from error

    def window(self) -> int:
        """Pictures that a runner's scheduler chooses packs from."""
        return max(1, _WINDOW_PACKS * self.limits.max_batch_tokens // self.recipe.budget.token_cap)

    def _tables(self, sources: Sequence[Source], known: bytes) -> Iterator[pa.Table]:
        source = PictureSource(sources, most_file_bytes=self.ahead_bytes, task_files=self.task_files)
        if not source.units:
            return
        digests = ray.put(Digests.of(known))
        # What is fetched ahead would wait for what comes behind it before it is in the ledger.
        yield from self._dataset(source, digests).iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        )

    def _dataset(self, source: PictureSource, known: "ray.ObjectRef[Digests]") -> Dataset:
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.target_max_block_size = _BLOCK_BYTES
        context.enable_progress_bars = False
        shares = self.shares
        tasks = TaskPoolStrategy(size=shares.decoders)
        read = read_datasource(
            source, override_num_blocks=len(source.units), compute=tasks, num_cpus=shares.decode["num_cpus"] / 4
        )
        decode = Decode(self.recipe, max_decode_pixels=self.settings.max_decode_pixels, known=known)
        with warnings.catch_warnings():
            # Later versions of Ray than the extra takes have another way to say how often a task is tried.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            # Another number of retries than the task before has keeps Ray from making one of the two: a large table is
            # read by one task, and decoded by many.
            decoded = read.map_batches(
                decode, batch_size=None, batch_format="pyarrow", compute=tasks, max_retries=_DECODE_RETRIES,
                **cast(Any, shares.decode),
            )  # fmt: skip
        # Ray restarts actors that die, and gives their blocks to others, as often as it takes.
        return decoded.map_batches(
            Embed, fn_constructor_args=(self.settings, self.limits, self.recipe, shares.threads),
            batch_size=self.window(), batch_format="pyarrow", **cast(Any, shares.runner),
            compute=ActorPoolStrategy(size=shares.runners, max_tasks_in_flight_per_actor=_WINDOWS_A_RUNNER),
        )  # fmt: skip

    def _add(self, counts: Iterator[PackCount]) -> None:
        for count in counts:
            for each in fields(PackCount):
                setattr(self.count, each.name, getattr(self.count, each.name) + getattr(count, each.name))


def _kept(row: Known, ledger: Ledger) -> Row:
    found = ledger.find(row.sha256)
    assert found, "the ledger loses nothing while a job runs"
    return Embedded(row.path, row.sha256, found.plan, found.embedding, found.repaired)


def model_facts(settings: Settings, shares: Shares) -> ModelFacts:
    """The facts of a runner on the cluster: the driver's machine may be of another kind. Raises what loading raises."""
    try:
        facts: ModelFacts = ray.get(ray.remote(facts_of).options(**cast(Any, shares.runner)).remote(settings))
    except RayError as error:
        raise plain(error) from error
    return facts


def plain(error: BaseException) -> ModelError | SettingsError:
    """What went wrong on the cluster, as the same error here."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None) or seen.__cause__
        if isinstance(seen, ModelError | SettingsError) and not isinstance(seen, RayError):
            return seen
        seen = cause if isinstance(cause, BaseException) else None
    return SettingsError(f"the job on Ray has ended: {str(error).strip().splitlines()[-1]}")
