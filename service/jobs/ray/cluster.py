"""The cluster, and how much of it the stages of a job take."""

import logging
import socket
from dataclasses import dataclass
from typing import Any, Self

import ray

from service.settings.names import SettingsError

_CONNECT_S = 5.0
# What Ray counts for a task that decodes, where runners take processors too. It bounds how many start at once when Ray
# makes again what a lost node had.
_TASK_CPUS = 0.25


@dataclass(frozen=True, slots=True)
class Shares:
    """What Ray gives to a job.

    runners: actors. runner: what each of them takes. threads: of each of them, None for Ray's choice. decoders: tasks
    that decode at once, None for as many as there are free processors. decode: what each of them takes.
    """

    runners: int
    runner: dict[str, float]
    threads: int | None
    decoders: int | None
    decode: dict[str, float]

    @classmethod
    def of(cls, *, gpus: int, cpus: int, runners: int | None, runner_cpus: int | None) -> Self:
        """gpus, cpus: of the cluster. runners: None for one a GPU, or one for every second share of the processors.

        runner_cpus: processors of a runner, and its threads, where there is no GPU; None for one. Raises
        `SettingsError`.
        """
        if gpus:
            if runner_cpus:
                raise SettingsError(f"--ray-cpus is for a cluster without GPUs, and this one has {gpus}")
            if runners and runners > gpus:
                raise SettingsError(f"--ray-runners is {runners}, and the cluster has {gpus} GPUs")
            # Decoding and reading take the processors: a runner needs one for moments.
            return cls(runners or gpus, {"num_gpus": 1, "num_cpus": 0}, None, None, {"num_cpus": 1})
        runner_cpus = runner_cpus or 1
        chosen = runners or max(1, cpus // (2 * runner_cpus))
        if chosen * runner_cpus > cpus:
            raise SettingsError(
                f"{chosen} runners of {runner_cpus} processors (--ray-runners, --ray-cpus) need more than the {cpus} "
                "of the cluster"
            )
        # Where a node is lost, runners that start anew may take all processors that are left. Tasks that decode would
        # wait for ever, and the runners for them: so each runner leaves room for one task.
        runner, decode = {"num_cpus": runner_cpus - _TASK_CPUS}, {"num_cpus": _TASK_CPUS}
        return cls(chosen, runner, runner_cpus, max(1, cpus - chosen * runner_cpus), decode)


def connect(address: str) -> None:
    """address: empty for the cluster of RAY_ADDRESS or of this machine, otherwise a new one. Raises `SettingsError`."""
    host, _, port = address.rpartition(":")
    try:
        if host and "/" not in host:
            # Ray itself tries for minutes.
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        ray.init(address=address or None, logging_level=logging.WARNING, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingsError(f"no cluster of Ray answers at {address or 'this machine'}: {error}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def resources() -> dict[str, Any]:
    return dict(ray.cluster_resources())
