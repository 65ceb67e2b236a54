"""The command line: its reports, its exit statuses, Ctrl-C, and one line for each error."""

import json
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import loadtest
from loadtest.__main__ import main
from loadtest.bench.__main__ import main as bench_main
from tests.loadtest.fakes import FakePacklight
from tests.service.running import PATIENCE_S, until

SMALL = "--mix thumbnails --distinct 4 --quiet"
ROOT = Path(loadtest.__file__).parents[1]


class Page(HTMLParser):
    """A page's elements, which must open and close in order, and every address that it would fetch."""

    VOID = {"meta", "link", "line", "circle", "rect", "polyline", "polygon", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.titles = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in self.VOID or tag == "rect" and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.titles += tag == "title"


def test_a_run_writes_both_reports(tmp_path, capsys):
    with FakePacklight(lambda number: 0.01, refuse=lambda number: 429 * (number == 20)) as server:
        status = main(
            f"run --url {server.url} --rate 80 --duration 1 --ramp 0.25 --arrivals burst --slo-ms 100 {SMALL} "
            f"--json {tmp_path / 'r.json'} --html {tmp_path / 'r.html'}".split()
        )
    out, document = capsys.readouterr().out, json.loads((tmp_path / "r.json").read_text())
    assert status == 0
    assert document["schema"] == loadtest.SCHEMA
    assert all(check["agrees"] for check in document["checks"])
    assert document["summary"]["errors"] in ({"429": 1}, {})
    assert len(document["requests"]["due_s"]) == 70
    for word in ("offered", "goodput", "p99.9", "pack fill", "padded to the cap", "forward", "tokens/s", "thumbnail"):
        assert word in out
    page = Page((tmp_path / "r.html").read_text())
    assert page.open == []
    assert page.addresses == ["data:,"]
    assert page.titles > 5
    assert main(["compare", str(tmp_path / "r.json"), str(tmp_path / "r.json")]) == 0
    del document["requests"]["due_s"]
    (tmp_path / "damaged.json").write_text(json.dumps(document))
    assert main(["compare", str(tmp_path / "r.json"), str(tmp_path / "damaged.json")]) == 2
    assert "damaged.json: a result that lacks something" in capsys.readouterr().err


def test_a_closed_loop_and_several_senders(tmp_path, capsys):
    with FakePacklight(lambda number: 0.02) as server:
        status = main(f"run --url {server.url} --concurrency 3 --senders 2 --duration 0.5 {SMALL}".split())
    assert status == 0
    assert "Closed loop" in capsys.readouterr().out


def test_a_gate_on_a_figure_sets_the_exit_status(capsys):
    with FakePacklight(lambda number: 0.05) as server:
        command = f"run --url {server.url} --rate 40 --duration 0.4 {SMALL}"
        assert main(f"{command} --fail-if p50>10ms --fail-if errors>1%".split()) == 1
        out = capsys.readouterr().out
        assert main(f"{command} --fail-if p50>1.1x".split()) == 2
    assert "'p50>10ms': met" in out
    assert "'errors>1%': clear" in out


def test_ctrl_c_still_writes_a_report_of_what_was_measured(tmp_path):
    with FakePacklight(lambda number: 0.01) as server:
        command = f"run --url {server.url} --rate 50 --duration 60 {SMALL} --json {tmp_path / 'r.json'}"
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtest", *command.split()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # As a terminal starts it. A background process may ignore SIGINT, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        until(lambda: process.poll() is not None or len(server.bodies) >= 30)
        # A terminal signals the whole group, senders too.
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    document = json.loads((tmp_path / "r.json").read_text())
    assert process.returncode == 130, err
    assert "Interrupted after" in out
    assert document["summary"]["answered"] >= 20
    assert all(check["agrees"] for check in document["checks"])
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("", "", "401 Unauthorized: this server wants a key (give --api-key)"),
        ("/nowhere", "--api-key k", "404 Not Found"),
    ],
)
def test_a_server_that_refuses_gives_one_line_and_status_2(capsys, path, options, said):
    with FakePacklight(api_key="k") as server:
        assert main(f"run --url {server.url}{path} --rate 5 --duration 1 {options} {SMALL}".split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_a_server_with_a_key_takes_requests_that_carry_it(capsys):
    with FakePacklight(api_key="k") as server:
        assert main(f"run --url {server.url} --rate 10 --duration 0.3 --api-key k {SMALL}".split()) == 0


@pytest.mark.parametrize("command", ["run --rate 5", "sweep", "compare"])
def test_a_dead_server_gives_one_line_and_status_2(capsys, command):
    with FakePacklight() as server:
        url = server.url
    named = f"compare {url} {url} --rate 5" if command == "compare" else f"{command} --url {url}"
    assert main(f"{named} {SMALL}".split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(r"POST http://127.0.0.1:\d+/embed: cannot connect", err)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--url localhost --rate 5", "not a URL"),
        ("--url http://[::1 --rate 5", "not a URL"),
        ("--url http://127.0.0.1:x --rate 5", "not a URL"),
        ("--url http://127.0.0.1:9 --rate 5 --mix holiday", "not one of"),
        ("--url http://127.0.0.1:9 --rate 5 --json /nowhere/at/all.json", "no folder"),
        ("--url http://127.0.0.1:9 --rate 5 --ramp 20 --duration 10", "nothing of the 10 s"),
        ("--url http://127.0.0.1:9 --rate 5 --param colour", "not NAME=VALUE"),
        ("--url http://127.0.0.1:9 --rate 5 --extra []", "not a JSON object"),
        ("--url http://127.0.0.1:9 --concurrency 5 --arrivals burst", "--arrivals is for a --rate"),
        ("--url http://127.0.0.1:9 --concurrency 5 --ramp 2", "--ramp is for a --rate"),
        ("--url http://127.0.0.1:9 --rate 5 --burst 4", "it needs --arrivals burst"),
        ("--url http://127.0.0.1:9 --rate 5 --model m", "--model is for --form openai, and this is multipart"),
        ("--url http://127.0.0.1:9 --rate 5 --form raw --field f", "--field is for --form multipart"),
        (
            "--url http://127.0.0.1:9 --rate 5 --form raw --extra {}",
            "--extra is for --form multipart or json or openai",
        ),
        ("--url http://127.0.0.1:9 --rate 5 --no-params --bulk 0.5", "--no-params sends no parameters"),
        ("--url http://127.0.0.1:9 --rate 5 --no-params --answer base64", "--no-params sends none"),
        ("--url http://127.0.0.1:9 --rate 5 --form openai --param strategy=native", "--extra adds other fields"),
        ("--url http://no-such-host.invalid --rate 5 --mix thumbnails --distinct 2", "no such host"),
    ],
)
def test_a_mistake_in_the_command_gives_one_line_and_status_2(capsys, options, said):
    assert main(f"run {options}".split()) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("options", ["--rate 0", "--rate x", "--concurrency 0", "", "--rate 5 --concurrency 2"])
def test_what_argparse_refuses_has_status_2_too(options):
    with pytest.raises(SystemExit) as error:
        main(f"run --url http://127.0.0.1:9 {options}".split())
    assert error.value.code == 2


@pytest.mark.parametrize("command", ["run --url http://127.0.0.1:9 --rate 5 --durat 1", "bench refusal --jso x"])
def test_an_abbreviated_option_is_refused(command, capsys, monkeypatch):
    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as error:
        bench_main() if name == "bench" else main([name, *arguments])
    assert error.value.code == 2
    assert f"unrecognized arguments: {' '.join(arguments[-2:])}" in capsys.readouterr().err


def test_a_load_test_loads_neither_the_model_nor_the_service():
    code = "import sys, loadtest.__main__; print(sorted({'model', 'service', 'torch'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_aiohttp_one_line_says_what_to_install():
    program = "import runpy, sys; sys.modules['aiohttp'] = None; runpy.run_module('loadtest', run_name='__main__')"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == (
        "loadtest: aiohttp is not installed; `make setup` or `pip install 'packlight[loadtest]'` installs it\n"
    )
