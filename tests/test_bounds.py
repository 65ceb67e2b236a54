"""What Packlight relies on inside its dependencies: names that their documentation does not promise.

Each of these packages is bounded above in pyproject.toml. To allow a newer version, raise the bound and run this test;
then run the tests named beside a group, which hold it to what these names do.
"""

import asyncio
import ctypes
import inspect
import re
import tomllib
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import httptools
import pytest
import torch
import uvicorn
from PIL import AvifImagePlugin, Image, _imaging
from prometheus_client import ProcessCollector, metrics_core, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.samples import Sample
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from model.deferred import REFERENCES, RULES
from service.http.protocol.answer_transport import AnswerTransport
from service.http.protocol.parser import RequestParser
from tests.model.images.matrix import png_cells

ROOT = Path(__file__).parent.parent
BOUNDED = ("fastapi-offline", "httptools", "pillow", "prometheus-client", "torch", "uvicorn", "uvloop")
# `service/http/protocol/connection.py`, held by tests/service/http/protocol/test_connection.py.
PROTOCOL_CALLED_BY_UVICORN = (
    "connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing", "shutdown",
    "timeout_keep_alive_handler", "on_message_begin", "on_headers_complete", "on_body", "on_message_complete",
    "on_response_complete", "send_400_response",
)  # fmt: skip
PROTOCOL_STATE = (
    "connections", "cycle", "flow", "headers", "loop", "parser", "pipeline", "timeout_keep_alive",
    "timeout_keep_alive_task", "transport",
)  # fmt: skip
# `service/http/protocol/server.py`, held by tests/process/test_stopping.py.
SERVER_METHODS = ("handle_exit", "startup", "shutdown", "run")
SERVER_STATE = ("should_exit", "force_exit")


def requirement(package: str) -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (found,) = [line for line in project["dependencies"] if re.match(rf"{package}\b", line)]
    return str(found)


def lost(package: str, name: str, user: str) -> str:
    return f"{package} has no {name} any more, and {user} relies on it: allow no such version in pyproject.toml"


@pytest.mark.parametrize("package", BOUNDED)
def test_a_package_whose_insides_are_used_is_bounded_above(package: str) -> None:
    assert "<" in requirement(package), f"{requirement(package)} has no upper bound"


async def made_protocol() -> HttpToolsProtocol:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    config = uvicorn.Config(app, lifespan="off", log_config=None)
    return HttpToolsProtocol(config=config, server_state=ServerState(), app_state={})


@pytest.mark.parametrize("name", PROTOCOL_CALLED_BY_UVICORN)
def test_uvicorns_protocol_has_the_methods_that_ours_overrides(name: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name, None)), lost(
        "uvicorn", name, "service/http/protocol/connection.py"
    )


def test_uvicorns_protocol_has_the_state_that_ours_reads() -> None:
    protocol = asyncio.run(made_protocol())
    for name in PROTOCOL_STATE:
        assert hasattr(protocol, name), lost("uvicorn", name, "service/http/protocol/connection.py")
    assert not isinstance(protocol.connections, dict), "`connections` counts the connections of one server"
    # Set for each request.
    assert re.search(r"self\.url\b", inspect.getsource(HttpToolsProtocol)), lost("uvicorn", "url", "connection.py")
    for name in ("response_started", "response_complete", "disconnected", "message_event", "keep_alive", "scope"):
        source = inspect.getsource(RequestResponseCycle)
        assert re.search(rf"self\.{name}\b", source), lost("uvicorn", name, "service/http/protocol/connection.py")


def test_uvicorns_answers_ask_no_more_of_their_transport_than_ours_has() -> None:
    """Held by tests/service/http/protocol/test_answer_transport.py."""
    used = set(re.findall(r"self\.transport\.(\w+)", inspect.getsource(RequestResponseCycle)))
    assert "write" in used
    assert used <= set(dir(AnswerTransport)), "uvicorn asks more of the transport of an answer"


def test_our_parser_has_all_that_uvicorn_calls_and_httptools_has_all_that_ours_calls() -> None:
    """Held by tests/service/http/protocol/test_parser.py."""
    called = set(re.findall(r"self\.parser\.(\w+)\(", inspect.getsource(HttpToolsProtocol)))
    assert "feed_data" in called
    assert called - {"set_dangerous_leniencies"} <= set(dir(RequestParser)), "uvicorn calls more of its parser"
    for name in (*called, "should_upgrade"):
        assert hasattr(httptools.HttpRequestParser, name), lost("httptools", name, "service/http/protocol/parser.py")
    assert issubclass(httptools.HttpParserUpgrade, Exception)
    assert not issubclass(httptools.HttpParserUpgrade, httptools.HttpParserError), "ours catches the first alone"


def test_uvicorns_server_has_what_ours_overrides_and_reads() -> None:
    server = uvicorn.Server(uvicorn.Config(lambda: None, log_config=None))
    for name in (*SERVER_METHODS, *SERVER_STATE):
        assert hasattr(server, name), lost("uvicorn", f"Server.{name}", "service/http/protocol/server.py")
    # Set when it has started.
    assert "self.servers" in inspect.getsource(uvicorn.Server), lost("uvicorn", "Server.servers", "server.py")


def test_prometheus_client_lets_values_be_kept_in_files_of_a_chosen_name() -> None:
    """Held by tests/service/processes and tests/process/test_front_ends.py."""
    assert hasattr(values, "ValueClass"), lost("prometheus-client", "values.ValueClass", "service/metrics.py")
    assert "process_identifier" in inspect.signature(values.MultiProcessValue).parameters
    assert "pid" in inspect.signature(ProcessCollector).parameters
    assert hasattr(metrics_core, "Metric"), lost("prometheus-client", "metrics_core.Metric", "service/metrics.py")
    assert hasattr(Sample, "_replace"), lost("prometheus-client", "Sample._replace", "service/metrics.py")
    assert hasattr(MmapedDict, "read_all_values_from_file"), lost(
        "prometheus-client", "MmapedDict.read_all_values_from_file", "service/http/stats/totals.py"
    )


def test_fastapi_offline_carries_the_files_of_swagger_ui() -> None:
    """Held by tests/service/http/routes/test_docs.py."""
    spec = find_spec("fastapi_offline")
    assert spec is not None
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert Path(str(spec.origin)).parent.joinpath("static", name).is_file(), lost(
            "fastapi-offline", f"static/{name}", "service/http/routes/docs.py"
        )


def test_pillow_keeps_an_opened_file_and_tiles_that_can_be_read_in_another_way() -> None:
    """`model/images/formats/png.py` and `frames.py`, held by tests/model/images/matrix."""
    data = next(cell.data for cell in png_cells.cells() if cell.row == "RGB, 16 bits")
    image = Image.open(file := BytesIO(data))
    assert image.fp is file, lost("Pillow", "ImageFile.fp", "png.py")
    (tile,) = image.tile
    assert (tile.extents, tile.args) == ((0, 0, *image.size), "RGB;16B"), lost("Pillow", "ImageFile.tile", "png.py")


def test_pillow_has_one_library_and_one_number_to_confine_it_by() -> None:
    """Held by tests/model/images. Without TIFFSetErrorHandler, libtiff writes past the log; that alone is no error."""
    assert hasattr(AvifImagePlugin, "DEFAULT_MAX_THREADS"), lost("Pillow", "DEFAULT_MAX_THREADS", "model/images")
    assert ctypes.CDLL(_imaging.__file__)


def test_torch_has_onednns_linear_layer_and_the_order_of_its_weights() -> None:
    """Held by tests/model/running/test_pack_invariance.py."""
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        for name in ("_reorder_linear_weight", "_linear_pointwise"):
            assert hasattr(torch.ops.mkldnn, name), lost("torch", f"ops.mkldnn.{name}", "model/kernels/linear.py")


def test_torch_loads_some_modules_once_they_are_read() -> None:
    # `model/deferred.py`, held by tests/model/test_deferred.py.
    assert "_dynamo" in vars(torch)["_lazy_modules"], lost("torch", "_lazy_modules", "model/deferred.py")
    for name in (*RULES, *(f"torch.{reference}" for reference in REFERENCES)):
        assert find_spec(name), lost("torch", name, "model/deferred.py")


def test_torch_has_attention_of_segments_of_various_lengths() -> None:
    """Held by `python -m loadtest.bench gpu`, on a CUDA device."""
    from torch.nn.attention import varlen

    named = list(inspect.signature(varlen.varlen_attn).parameters)
    expected = ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert named[:7] == expected, lost("torch", "varlen_attn(...)", "model/kernels/attention.py")
