"""The panel "Take it along": its code is copied, runs as it stands, and gives the vectors that the page shows."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from model.running.runner import Runner
from service.limits import ModelFacts
from tests import pictures
from tests.browser.conftest import Open, address_of
from tests.browser.visit import File, Visit
from tests.service.running import PATIENCE_S, Running, serving

# Names that a shell, a form and a string would each take for something else.
NAMES = ("plain.jpg", 'it\'s a "picture"; $HOME, @1.jpg', "Ärger 日本.jpg")
FILES: list[File] = [
    (name, "image/jpeg", pictures.save(pictures.picture(200 + 40 * number, 300), "JPEG"))
    for number, name in enumerate(NAMES)
]


def copied(opened: Visit, language: str) -> str:
    opened.page.get_by_role("tab", name="Take it along").click()
    opened.page.get_by_role("button", name=f"Copy the {language} code").click()
    expect(opened.page.locator(".code").filter(has_text=language).get_by_role("status")).to_have_text("Copied")
    text: str = opened.page.evaluate("navigator.clipboard.readText()")
    assert text == opened.page.get_by_role("region", name=f"{language} code").text_content()
    return text


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Runs it among the pictures, with nothing in the environment that it does not need."""
    known = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"}
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=known | environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def first_numbers(opened: Visit, name: str) -> list[str]:
    opened.page.get_by_role("tab", name="Try").click()
    found = re.search(r"\[(.*), …", opened.card(name).locator(".vector").text_content() or "")
    assert found
    return found[1].split(", ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, _, content in FILES:
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_the_curl_that_was_copied_gives_the_vectors_that_are_shown(visit: Open, server: Running, folder: Path) -> None:
    opened = visit(address_of(server), permissions=["clipboard-read", "clipboard-write"])
    opened.drop(FILES)
    opened.set_budget(200)
    opened.page.get_by_role("radio", name="native").check(force=True)
    opened.embed()
    data = json.loads(run(["bash", "-c", copied(opened, "curl")], folder))["data"]
    assert len(data) == len(FILES)
    for item, name in zip(data, NAMES, strict=True):
        assert (item["strategy"], item["token_cap"]) == ("native", 200)
        assert [f"{value:.3f}" for value in item["embedding"][:3]] == first_numbers(opened, name)


def test_the_python_and_the_javascript_run_as_they_stand(visit: Open, server: Running, folder: Path) -> None:
    opened = visit(address_of(server), permissions=["clipboard-read", "clipboard-write"])
    opened.drop(FILES)
    opened.embed()
    assert f"({len(FILES)}, {server.facts.dim})" in run([sys.executable, "-c", copied(opened, "Python")], folder)
    node = shutil.which("node")
    assert node, "run tests/browser/install.sh"
    (folder / "code.mjs").write_text(copied(opened, "JavaScript"))
    printed = run([node, "code.mjs"], folder)
    assert printed.count("Float") == 0
    for name in NAMES:
        first = float(first_numbers(opened, name)[0])
        assert any(abs(float(value) - first) < 6e-4 for value in re.findall(r"-?\d\.\d+(?:e-\d+)?", printed)), name


def test_the_code_fetches_our_samples_and_overwrites_no_picture_of_the_user(
    visit: Open, server: Running, folder: Path
) -> None:
    opened = visit(address_of(server), permissions=["clipboard-read", "clipboard-write"])
    opened.drop(FILES[:1])
    opened.page.get_by_role("button", name="Use our samples").click()
    expect(opened.page.locator(".card .grid").filter(has_text="tokens")).to_have_count(5)
    opened.embed()
    data = json.loads(run(["bash", "-c", copied(opened, "curl")], folder))["data"]
    assert [f"{value:.3f}" for value in data[2]["embedding"][:3]] == first_numbers(opened, "receipt.webp")
    assert "(5, " in run([sys.executable, "-c", copied(opened, "Python")], folder)
    node = shutil.which("node")
    assert node, "run tests/browser/install.sh"
    (folder / "code.mjs").write_text(copied(opened, "JavaScript"))
    run([node, "code.mjs"], folder)
    assert (folder / NAMES[0]).read_bytes() == FILES[0][2]


def test_a_key_is_named_and_never_shown(visit: Open, loaded: tuple[Runner, ModelFacts], folder: Path) -> None:
    with serving(loaded, api_keys="a-secret") as server:
        opened = visit(address_of(server), permissions=["clipboard-read", "clipboard-write"])
        opened.expected += ["401"]
        opened.page.get_by_label("This server asks for a key.").fill("a-secret")
        opened.page.keyboard.press("Enter")
        expect(opened.page.locator("#key")).to_be_hidden()
        opened.drop(FILES[:1])
        opened.embed()
        for language in ("curl", "Python", "JavaScript"):
            assert "a-secret" not in copied(opened, language)
        data = json.loads(run(["bash", "-c", copied(opened, "curl")], folder, API_KEY="a-secret"))["data"]
        assert [f"{value:.3f}" for value in data[0]["embedding"][:3]] == first_numbers(opened, NAMES[0])


@pytest.mark.parametrize("older_way_works", [True, False])
def test_without_a_clipboard_the_code_is_copied_the_older_way_or_left_selected(
    visit: Open, server: Running, older_way_works: bool
) -> None:
    init = "" if older_way_works else "document.execCommand = () => false;"
    opened = visit(address_of(server, host="packlight.test"), init=init)
    assert opened.page.evaluate("navigator.clipboard === undefined")
    expect(opened.page.locator(".card .grid").filter(has_text="tokens")).to_have_count(4)
    opened.page.get_by_role("tab", name="Take it along").click()
    expect(opened.page.get_by_role("region", name="curl code")).to_contain_text("chart.webp")
    opened.page.get_by_role("button", name="Copy the curl code").click()
    said = opened.page.locator(".code").filter(has_text="curl").get_by_role("status").first
    expect(said).to_have_text("Copied" if older_way_works else re.compile("press Ctrl"))
    code = opened.page.get_by_role("region", name="curl code").text_content()
    assert opened.page.evaluate("getSelection().toString()").strip() == (code or "").strip()
