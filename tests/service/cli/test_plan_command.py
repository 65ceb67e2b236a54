"""`packlight plan`, run as a user does: a table, JSON, a picture; without a server and with one."""

import io
import json
import socketserver
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.running.runner import Runner
from service.__main__ import main
from service.limits import ModelFacts
from service.planning.answer import read_plan
from service.planning.picture import draw_plan
from tests.service.running import Running, serving

DOCS = Path(__file__).parents[3] / "docs"
WORKLOAD = DOCS / "workload.json"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["plan", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_documentation_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "planner.md").read_text(encoding="utf-8")
    command = "packlight plan --workload docs/workload.json --budget-tokens 500000"
    assert command in text
    status, out, err = run(capsys, "--workload", WORKLOAD, "--budget-tokens", 500_000)
    assert (status, err) == (0, "")
    shown = text.partition(command)[2].partition("```\n")[2].partition("```")[0].removeprefix("```\n")
    for line in shown.strip().splitlines():
        assert line in out or line == "…", line


def test_json_is_what_the_route_answers(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--workload", WORKLOAD, "--budget-tokens", 10**6, "--json")
    assert status == 0
    assert read_plan(out.encode()).totals.images == 1400
    assert json.loads(out)["groups"][0]["take"]["parameters"] == {"strategy": "naflex", "max_tokens": 1024}


def test_a_workload_comes_from_standard_input_and_may_bring_its_budget(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"workload": json.loads(WORKLOAD.read_text()), "budget_tokens": 1399}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(content)))
    status, out, _ = run(capsys, "--workload", "-", "--geometry", "qwen14x2")
    assert status == 1, "the budget is too small"
    assert "cannot be lowered that far" in out
    assert "→ qwen14x2         native" in out


@pytest.mark.parametrize(
    ("workload", "options", "message"),
    [
        ("[]", ["--budget-tokens", "5"], "workload: list should have at least 1 item"),
        ('[{"height": 0, "width": 1, "task": "photo"}]', ["--budget-tokens", "5"], "workload.0.height: "),
        ("[", ["--budget-tokens", "5"], "is not JSON"),
        ('[{"height": 1, "width": 1, "task": "photo"}]', [], "either budget_tokens or budget_ms"),
        ('[{"height": 1, "width": 1, "task": "photo"}]', ["--budget-ms", "5"], "--url"),
        (
            '[{"height": 1, "width": 1, "task": "photo"}]',
            ["--budget-tokens", "5", "--geometry", "fixed336/14", "--strategy", "naflex"],
            "the model does not take strategy=naflex",
        ),
        ('[{"height": 1, "width": 1, "task": "photo"}]', ["--budget-tokens", "5", "--url", "ftp://a"], "looks like"),
        ('[{"height": 1, "width": 1, "task": "photo"}]', ["--budget-tokens", "5", "--url", "http://[::1"], "--url is"),
        ('[{"height": 1, "width": 1, "task": "photo"}]', ["--budget-tokens", "5", "--url", "http://a:b"], "port"),
        (
            '[{"height": 1, "width": 1, "task": "photo"}]',
            ["--budget-tokens", "5", "--url", "http://127.0.0.1:9", "--api-key", "ключ"],
            "ASCII",
        ),
        (
            '[{"height": 1, "width": 1, "task": "photo"}]',
            ["--budget-tokens", "5", "--url", "http://127.0.0.1:9"],
            "http://127.0.0.1:9: ",
        ),
        (
            '[{"height": 1, "width": 1, "task": "photo"}]',
            ["--budget-tokens", "1" + "0" * 30, "--url", "http://127.0.0.1:9"],
            "http://127.0.0.1:9: ",
        ),
        ("[]", ["--budget-tokens", "5", "--api-key", "a"], "--api-key is for a server"),
        (
            "[]",
            ["--budget-tokens", "5", "--url", "http://127.0.0.1:9", "--max-batch-tokens", "64"],
            "--max-batch-tokens and --url exclude each other",
        ),
        (
            '[{"height": 1, "width": 1, "task": "photo"}]',
            ["--budget-tokens", "5", "--png", "nowhere/at/all.png"],
            "cannot be written",
        ),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_status_2(
    workload: str, options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.json"
    path.write_text(workload)
    status, out, err = run(capsys, "--workload", path, *options)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert message in line
    assert line.startswith("packlight: ")


def test_packs_bound_images_as_those_of_a_server_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.json"
    path.write_text('[{"height": 3000, "width": 2000, "task": "document"}]')
    _, out, _ = run(capsys, "--workload", path, "--budget-tokens", 5000, "--max-batch-tokens", 512)
    assert "max_tokens=512:" in out


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "--workload", tmp_path / "none.json", "--budget-tokens", 5)
    assert (status, len(err.splitlines())) == (2, 1)


def test_a_budget_may_have_any_number_of_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--workload", WORKLOAD, "--budget-tokens", 10**400)[0] == 0


# With a server


class _Ssh(socketserver.BaseRequestHandler):
    """Says what an SSH server says, once it is asked."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


class _SshServer(socketserver.ThreadingTCPServer):
    # Whoever else knocks at the port, and then says nothing, holds up neither the test nor its end.
    daemon_threads, block_on_close = True, False


def test_a_server_that_speaks_no_http_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with _SshServer(("127.0.0.1", 0), _Ssh) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{listening.server_address[1]}"
        status, _, err = run(capsys, "--workload", WORKLOAD, "--budget-tokens", 5, "--url", url)
        listening.shutdown()
    assert (status, err) == (2, f"packlight: {url}: it does not answer as a Packlight server does\n")


def test_a_server_plans_for_its_model(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{server.port}"
    status, out, _ = run(capsys, "--workload", WORKLOAD, "--budget-tokens", 10**6, "--url", url, "--json")
    assert status == 0
    assert json.loads(out)["model"] == "packlight-tiny"
    status, _, err = run(capsys, "--workload", WORKLOAD, "--budget-ms", 0, "--url", url)
    assert (status, "budget_ms" in err) == (2, True)


def test_the_key_of_a_server_is_given(loaded: tuple[Runner, ModelFacts], capsys: pytest.CaptureFixture[str]) -> None:
    with serving(loaded, api_keys="a-key") as guarded:
        asked = ["--workload", WORKLOAD, "--budget-tokens", 10**6, "--url", f"http://127.0.0.1:{guarded.port}"]
        status, _, err = run(capsys, *asked)
        assert (status, "api_keys" in err) == (2, True)
        assert run(capsys, *asked, "--api-key", "a-key")[0] == 0


# The picture


def drawn(capsys: pytest.CaptureFixture[str], path: Path, *options: object) -> np.ndarray:
    assert run(capsys, "--workload", WORKLOAD, "--budget-tokens", 10**7, "--png", path, *options)[0] == 0
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def coloured(row: np.ndarray) -> int:
    """Pixels of a row that are neither gray nor white: of images."""
    return int((row.max(axis=1).astype(int) - row.min(axis=1) > 40).sum())


def test_the_bars_of_the_picture_have_one_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = drawn(capsys, tmp_path / "out.png")
    rows = np.array([coloured(row) for row in pixels])
    bars = [int(np.median(part)) for part in np.split(rows, np.flatnonzero(np.diff(rows > 300)) + 1) if part[0] > 300]
    assert len(bars) == 4, "packed, to the cap, to the longest, one square"
    packed, to_cap, to_longest, square = bars
    # The same images, so as much colour but for rounding and for lines; squares take what they take.
    assert abs(to_cap - packed) < 30
    assert abs(to_longest - packed) < 30
    assert square > 2 * packed


def test_tiles_are_segments_of_their_own_in_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = drawn(capsys, tmp_path / "a.png", "--geometry", "fixed336/14", "--strategy", "square")
    tiled = drawn(
        capsys, tmp_path / "b.png", "--geometry", "fixed336/14", "--strategy", "anyres", "--max-image-tokens", 4096
    )
    assert lines(tiled) > 2 * lines(plain)


def lines(pixels: np.ndarray) -> int:
    """How often the first bar changes to white."""
    first = next(row for row in pixels if coloured(row) > 300)
    white = (first == 255).all(axis=1)
    return int((np.diff(white.astype(int)) == 1).sum())


def test_a_workload_of_which_nothing_fits_is_drawn_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text('[{"height": 100000, "width": 100000, "task": "photo"}]')
    status, out, _ = run(capsys, "--workload", path, "--budget-tokens", 5, "--json")
    assert status == 0
    assert draw_plan(read_plan(out.encode())).width > 0
