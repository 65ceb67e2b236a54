"""One replica: a whole Packlight server behind Serve's proxy, with its own engine, queue and admission."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

import ray
import uvicorn
from ray import serve
from starlette.types import ASGIApp

from deploy.ray.door import Door, OwnPages
from deploy.ray.ingress import HOOK
from model import threads
from model.memory import settle
from service import logs
from service.assembly import Assembly
from service.engine.under_way import EngineWatch
from service.http.protocol.server import config_of
from service.http.stats.totals import read_gauges
from service.limits import Limits
from service.loading import load_runner, warm_up
from service.settings.loading import load_settings
from service.settings.names import PREFIX, SettingsError
from service.settings.settings import Settings

_CLOSE_S = 10.0

_log = logging.getLogger(__name__)


def settings_of_replica(environment: Mapping[str, str], *, cpus: int) -> Settings:
    """The settings, where a replica has other defaults: as many decoding threads as it has CPUs, not the machine, and
    no `/stats`, which would show any one replica and hold up its end. Raises `SettingsError`."""
    variable, hook = HOOK
    if environment.get(variable) != hook or environment.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        raise SettingsError(
            f"nothing bounds the bodies that Serve's proxies take: start every node of Ray with {variable}={hook} and "
            "without RAY_SERVE_ENABLE_HA_PROXY (docs/ray.md)"
        )
    own = {"decode_threads": str(cpus), "stats": "off"}
    settings = load_settings(
        {name: value for name, value in own.items() if f"{PREFIX}{name.upper()}" not in environment}, names=environment
    )
    if settings.in_processes:
        raise SettingsError("a replica is one process with one device: leave engine, http_workers and devices unset")
    return settings


@serve.ingress()
class Replica:
    """Serve calls its methods by these names."""

    def __init__(self) -> None:
        """Loads the model. Raises `ModelError` or `SettingsError`."""
        cpus = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        # Ray sets it to 1 for a replica that names no number of CPUs. Torch reads it when it is loaded.
        os.environ["OMP_NUM_THREADS"] = str(cpus)
        self._settings = settings_of_replica(os.environ, cpus=cpus)
        logs.configure(self._settings.log_format, self._settings.log_level)
        runner, model = load_runner(self._settings)
        _log.info("%s", model.summary)
        cost = warm_up(runner, Limits.of(self._settings, model))
        watch = EngineWatch()
        self._parts = Assembly.of(self._settings, runner, model, cost=cost, watch=watch, draining=lambda: False)
        logs.count_lost(self._parts.metrics.log_lines_lost.inc)
        self._door = Door(self._parts.app, self._settings, self._targets)
        self._tokens_per_request = 0.0

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called on the event loop of requests."""
        self._address = self._listen()
        settle()
        return self._door

    def _listen(self) -> str:
        """Starts to answer for this replica alone, on a free port. Returns the address."""
        listening = socket.socket()
        listening.bind((ray.util.get_node_ip_address(), 0))
        self._server = uvicorn.Server(config_of(OwnPages(self._parts.app), self._settings, self._parts.metrics))
        self._serving = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listening]))
        host, port = listening.getsockname()
        return f"{host}:{port}"

    async def _targets(self) -> list[dict[str, Any]]:
        """The `target` of every replica that answers."""
        context = serve.get_replica_context()
        handle = serve.get_deployment_handle(context.deployment, context.app_name)
        answers = await handle.broadcast("target").results_async(return_exceptions=True)
        # A replica that has just died is no target.
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def target(self) -> dict[str, Any]:
        """Where Prometheus scrapes this replica, and what its series are called."""
        return {"targets": [self._address], "labels": {"instance": serve.get_replica_context().replica_tag}}

    def check_health(self) -> None:
        """As `/readyz`. Serve replaces a replica that fails three times. Nobody watches its threads but this."""
        if lost := threads.lost():
            raise RuntimeError(f"the thread {lost[0]} has ended")
        if not self._parts.engine.any_device_ready:
            raise RuntimeError("the engine is not ready")

    def record_routing_stats(self) -> dict[str, float]:
        """For `OutstandingTokens`. While the replica has no request, the last one counts."""
        if self._door.requests and (queued := self._queued_tokens()):
            self._tokens_per_request = queued / self._door.requests
        return {"tokens_per_request": self._tokens_per_request}

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For `QueuedTokens`."""
        return {"queued_tokens": self._queued_tokens(), "tokens_per_s": self._parts.engine.tokens_per_s or 0.0}

    def _queued_tokens(self) -> float:
        return read_gauges(self._parts.metrics)[("packlight_queue_tokens",)]

    async def __del__(self) -> None:
        """Serve calls it once the replica has answered what it had."""
        if hasattr(self, "_server"):
            self._server.should_exit = True
            await self._serving
        if hasattr(self, "_parts"):
            await asyncio.to_thread(self._parts.close, timeout_s=_CLOSE_S)
