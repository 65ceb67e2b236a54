"""The socket that a server listens on, and another server that wants the same port."""

import socket

import pytest

from model.running.runner import Runner
from service import logs
from service.limits import ModelFacts
from service.processes.listening import bound, page_of
from service.processes.server import serve
from service.settings.names import SettingsError
from service.settings.settings import Settings

Loaded = tuple[Runner, ModelFacts]


@pytest.mark.parametrize(
    ("address", "page"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/"),
        ("http://0.0.0.0:8000", "http://localhost:8000/"),
        ("http://[::]:8000", "http://localhost:8000/"),
        ("http://[::1]:8000", "http://[::1]:8000/"),
        ("http://192.168.1.7:80", "http://192.168.1.7:80/"),
    ],
)
def test_the_page_has_an_address_that_a_browser_opens(address: str, page: str) -> None:
    assert page_of(address) == page


def test_a_host_with_a_port_is_told_where_the_port_goes() -> None:
    with pytest.raises(SettingsError, match=r"host \(0.0.0.0:8000\) is an address alone; the port has a setting"):
        bound("0.0.0.0:8000", 8000)


def test_a_server_that_another_one_overtakes_while_it_loads_cannot_start(
    loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers may bind the same port as long as neither listens."""
    monkeypatch.setattr(logs, "configure", lambda log_format, log_level: None)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

        def load_slowly(settings: Settings) -> Loaded:
            other.listen()
            return loaded

        with pytest.raises(SettingsError, match=rf"cannot listen on 127\.0\.0\.1:{port} \(host, port\)"):
            serve(Settings(engine="thread", port=port), load=load_slowly)
