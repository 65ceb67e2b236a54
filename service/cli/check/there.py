"""A server that is asked over HTTP by the same pictures. Its vectors are compared with those that are recorded here."""

import io
import re
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import msgspec
from PIL import Image, PngImagePlugin

from model.errors import ModelError
from model.fingerprint import identity_of
from model.kernels.hardware import has_vnni
from model.sizing.geometry import Geometry
from service.canary.background import lacking_memory
from service.canary.files import Subject, canary_folder, read_recording
from service.canary.jobs import CanaryPicture, canary_pictures, digest_of
from service.cli.check.findings import Report, add_canary
from service.cli.upgrade.server import Refused, RemoteServer
from service.engine.canary.rule import Recorded, Vectors, allowed_distance, distance
from service.settings.names import SettingsError
from service.settings.settings import Settings

_AT_ONCE = 8
_TIMED_S = 3.0


def check_there(url: str, settings: Settings) -> Report:
    """settings: with which the server's model is loaded here, if nothing is recorded of it yet. Raises
    `SettingsError`."""
    with closing(RemoteServer(url, {})) as server:
        fingerprint, pictures = _pictures_of(server)
        report = Report(f"{server.url}: {server.summary}\nfingerprint {fingerprint}")
        status, body = server.text("/readyz")
        report.add("ready", status == 200, body.strip())
        if status != 200:
            return report
        recorded, why = _recorded(server.info, pictures, settings)
        vectors = _vectors(server, pictures)
        add_canary(report, vectors, recorded, {each.name: each.plan.tokens for each in pictures}, why)
        again = _vectors(server, pictures)
        apart = max(distance(again[name], vectors[name]) for name in vectors)
        allowed = recorded.allowed if recorded else 0.02
        report.add("asked again", apart <= allowed, f"distance {apart:.2g} at most")
        _add_rate(report, server, pictures)
        _add_memory(report, server)
    return report


def _pictures_of(server: RemoteServer) -> tuple[str, list[CanaryPicture]]:
    """The fingerprint of its exact vectors, and the pictures for its model. Raises `SettingsError` if its version tells
    less of itself than this one."""
    try:
        fingerprint = server.info["fingerprint"]["by_decode"]["exact"]
        geometry = msgspec.convert(server.info["model"]["geometry"], Geometry)
        return fingerprint, canary_pictures(geometry, server.info["limits"]["max_image_tokens"])
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise SettingsError(f"{server.url}/info is not that of this version of Packlight ({error})") from None


def _recorded(info: dict[str, Any], pictures: list[CanaryPicture], settings: Settings) -> tuple[Recorded | None, str]:
    """What is known of the pictures here, or why nothing is."""
    model, text = info["model"], info["model"].get("text")
    exact = info["fingerprint"]["by_decode"]["exact"]
    subject = Subject(exact, text["fingerprint"] if text else "", digest_of(pictures))
    found = read_recording(canary_folder(), subject)
    if found is not None:
        return Recorded(found.vectors, allowed_distance(model["dtype"], found.measured)), ""
    if lacks := lacking_memory(model["name"], model["parameters"]):
        return None, lacks
    from service.canary.recorder import recorded

    sys.stderr.write(f"recording what a CPU computes of {model['name']} in float32\n")
    # What this CPU cannot compute has the usual bound.
    here = model["dtype"] if model["dtype"] != "int8" or has_vnni() else "float32"
    # By its limits the pictures have the size that they have there.
    limits = {name: info["limits"][name] for name in ("max_image_tokens", "max_batch_tokens")}
    its = limits | {"model": model["name"], "dtype": here, "default_max_tokens": None, "max_queue_tokens": None}
    try:
        made = recorded(settings.model_copy(update=its))
    except (ModelError, SettingsError) as error:
        return None, f"{model['name']} cannot be loaded here ({error})"
    if made.fingerprint and identity_of(made.fingerprint) != identity_of(exact):
        return None, f"{model['name']} is another model here ({made.fingerprint})"
    return Recorded(made.vectors, allowed_distance(model["dtype"], made.measured)), ""


def _vectors(server: RemoteServer, pictures: list[CanaryPicture]) -> dict[str, Vectors]:
    """All at once, so that the server packs them. Raises `SettingsError` for a picture that it refuses."""

    def ask(picture: CanaryPicture) -> Vectors:
        answer = server.embed(
            png(picture), max_tokens=str(picture.plan.token_cap), normalize="false", decode="exact",
        )  # fmt: skip
        if isinstance(answer, Refused):
            raise SettingsError(f"{server.url} refuses {picture.name}: {answer.reason}")
        return answer.embedding[None]

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return dict(zip((each.name for each in pictures), threads.map(ask, pictures), strict=True))


def png(picture: CanaryPicture) -> bytes:
    """With other bytes every time: a server that remembers pictures would not compute it again."""
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("Comment", secrets.token_hex(8))
    file = io.BytesIO()
    Image.fromarray(picture.pixels).save(file, "PNG", pnginfo=chunk)
    return file.getvalue()


def _add_rate(report: Report, server: RemoteServer, pictures: list[CanaryPicture]) -> None:
    """What this client gets of the server, which others may use as well."""
    tokens = images = 0
    began_s = time.monotonic()
    while time.monotonic() - began_s < _TIMED_S:
        _vectors(server, pictures)
        images += len(pictures)
        tokens += sum(each.plan.tokens for each in pictures)
    seconds = time.monotonic() - began_s
    report.add(
        "throughput", None,
        f"{images / seconds:,.1f} images/s, {tokens / seconds:,.0f} tokens/s, for one client with {_AT_ONCE} requests",
    )  # fmt: skip


def _add_memory(report: Report, server: RemoteServer) -> None:
    status, body = server.text("/metrics")
    found = re.search(r"^process_resident_memory_bytes (\S+)$", body, re.MULTILINE)
    words = f"{float(found[1]) / 1e9:.2f} GB of all its processes" if found else f"not told (/metrics: {status})"
    report.add("memory", None, words)
