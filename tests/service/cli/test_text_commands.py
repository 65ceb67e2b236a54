"""`packlight embed --text`, `search` and `classify`: what they print, write and refuse."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors

from service.__main__ import main
from tests import pictures
from tests.text_models import save_whole

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_whole(folder, "siglip2")
    return folder


@pytest.fixture
def run(model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object, model: Path | str = model) -> tuple[int, str, str]:
        status = main([*map(str, arguments), "--model", str(model), "--devices", "cpu", "--dtype", "float32"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    (made / "below").mkdir(parents=True)
    for name in ("rocket.jpg", "page.png", "text.png"):
        (made / name).write_bytes(pictures.photograph_file(name))
    (made / "below/small.png").write_bytes(pictures.save(pictures.picture(48, 64), "PNG"))
    return made


def names(out: str) -> list[str]:
    return [Path(line.split()[-1]).name for line in out.splitlines()]


def test_texts_and_files_are_written_together(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.jsonl"
    long = "word " * 200
    status, _, err = run("embed", folder / "page.png", "--text", "a cat", "--text", long, "--out", out)
    items = [json.loads(line) for line in out.read_text().splitlines()]
    assert (status, [item.get("file", item.get("text")) for item in items]) == (
        0, [str(folder / "page.png"), "a cat", long],
    )  # fmt: skip
    assert [item["truncated"] for item in items[1:]] == [False, True]
    assert all(np.linalg.norm(item["embedding"]) == pytest.approx(1, abs=1e-5) for item in items)
    assert "3 embedded" in err
    assert "tokens of text" in err


def test_safetensors_name_files_and_texts(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.safetensors"
    run("embed", folder / "page.png", "--text", "a cat", "--out", out)
    with safetensors.safe_open(out, framework="numpy") as file:
        assert file.get_tensor("embeddings").shape[0] == len(file.get_tensor("tokens")) == 2
        assert json.loads(file.metadata()["texts"]) == ["a cat"]


def test_the_page_has_the_pictures_nearest_to_each_text(run: Run, folder: Path, tmp_path: Path) -> None:
    html, out = tmp_path / "report.html", tmp_path / "vectors.jsonl"
    assert run("embed", folder, "--text", "a cat", "--top", 2, "--html", html, "--out", out)[0] == 0
    *images, cat = [json.loads(line)["embedding"] for line in out.read_text().splitlines()]
    cosines = np.array(images) @ np.array(cat)
    data = html.read_text().split('<script type="application/json" id="report">')[1].split("</script>")[0]
    (text,) = json.loads(data)["texts"]
    order = np.argsort(-cosines)[:2]
    assert (text["text"], [place for place, _ in text["near"]]) == ("a cat", order.tolist())
    assert [cosine for _, cosine in text["near"]] == pytest.approx(cosines[order], abs=1e-4)


def test_texts_alone_are_printed(run: Run) -> None:
    status, out, err = run("embed", "--text", "a cat")
    assert status == 0
    assert out.rstrip().endswith("a cat")
    assert err.startswith("1 embedded, ")


def test_a_picture_is_nearest_to_itself(run: Run, folder: Path) -> None:
    status, out, _ = run("search", folder, "--image", folder / "page.png", "--top", 2)
    assert (status, names(out)[0], len(names(out))) == (0, "page.png", 2)
    assert out.split()[0] == "1.000"


def test_a_search_by_text_ranks_by_cosine(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    files = sorted([*folder.glob("*.*"), *folder.glob("below/*")])
    run("embed", *files, "--text", "a rocket", "--out", out)
    vectors = np.load(out)
    best = [files[place].name for place in np.argsort(-(vectors[:-1] @ vectors[-1]))]
    status, printed, _ = run("search", folder, "a rocket")
    assert (status, names(printed)) == (0, best)


def test_the_index_follows_the_folder(run: Run, folder: Path) -> None:
    first = run("search", folder, "a rocket")[1]
    index = folder.with_name("photos.packlight-index")
    written = index.stat().st_mtime_ns
    (folder / "rocket.jpg").rename(folder / "moved.jpg")
    second = run("search", folder, "a rocket")[1]
    assert second == first.replace("rocket.jpg", "moved.jpg")
    (folder / "moved.jpg").unlink()
    assert "moved.jpg" not in run("search", folder, "a rocket")[1]
    assert index.stat().st_mtime_ns > written


def test_a_broken_file_is_named_and_the_others_are_found(run: Run, folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    status, out, err = run("search", folder, "a rocket")
    assert (status, len(names(out))) == (1, 4)
    assert "broken.jpg: " in err


def test_a_link_that_leads_nowhere_and_files_that_are_no_pictures_are_named(run: Run, folder: Path) -> None:
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "notes.txt").write_text("no picture")
    status, out, err = run("search", folder, "a rocket")
    assert (status, len(names(out))) == (1, 4)
    assert f"{folder / 'gone.png'}: the link leads nowhere\n" in err
    assert "not searched: 1 .txt (notes.txt)\n" in err
    only = folder.with_name("links")
    only.mkdir()
    (only / "gone.png").symlink_to("nowhere.png")
    status, _, err = run("search", only, "a rocket")
    assert (status, err) == (2, f"packlight: {only} holds no image file; {only / 'gone.png'}: the link leads nowhere\n")


def test_an_interrupted_index_goes_on_where_it_was(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from service.cli.folder_index import FolderIndex

    added: list[str] = []
    add = FolderIndex.add

    def interrupted(self: FolderIndex, file: Path, vector: np.ndarray) -> None:
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(file.name)
        add(self, file, vector)

    with monkeypatch.context() as patched:
        patched.setattr(FolderIndex, "add", interrupted)
        assert run("search", folder, "a rocket") == (130, "", "packlight: interrupted\n")
    later: list[str] = []

    def noted(self: FolderIndex, file: Path, vector: np.ndarray) -> None:
        later.append(file.name)
        add(self, file, vector)

    monkeypatch.setattr(FolderIndex, "add", noted)
    assert run("search", folder, "a rocket")[0] == 0
    assert sorted(added + later) == ["page.png", "rocket.jpg", "small.png", "text.png"]


def test_pictures_are_found_though_the_index_cannot_be_written(run: Run, folder: Path) -> None:
    folder.with_name("photos.packlight-index").mkdir()
    status, out, err = run("search", folder, "a rocket")
    assert (status, len(names(out))) == (2, 4)
    assert "photos.packlight-index cannot be written" in err


def test_labels_are_ranked_and_their_probabilities_printed(run: Run, folder: Path) -> None:
    status, out, _ = run("classify", folder / "page.png", folder / "rocket.jpg", "--labels", "cat, dog,rocket")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 2)
    for line in lines:
        scores = [float(word[:-1]) for word in line.split() if word.endswith("%")]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "{folder}"], "give one of them"),
        (["search", "{folder}", "text", "--image", "{folder}/page.png"], "give one of them"),
        (["search", "{folder}", "--image", "{folder}/none.png"], "none.png"),
        (["embed"], "name an image file or a folder, or give a --text"),
        (["embed", "{folder}/page.png", "--text", "x", "--neighbors", "{folder}"], "packlight search"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    run: Run, folder: Path, arguments: Sequence[str], words: str
) -> None:
    status, out, err = run(*(argument.format(folder=folder) for argument in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert err.startswith("packlight: ")


@pytest.mark.parametrize(
    "arguments",
    [["search", "{folder}", "cat"], ["embed", "--text", "cat"], ["classify", "{folder}/page.png", "--labels", "a"]],
)
def test_a_model_without_text_says_what_to_serve(run: Run, folder: Path, arguments: Sequence[str]) -> None:
    status, _, err = run(*(argument.format(folder=folder) for argument in arguments), model="packlight-tiny")
    assert status == 2
    assert "packlight-tiny takes no texts" in err


def test_a_picture_is_found_without_a_text_tower(run: Run, folder: Path) -> None:
    assert run("search", folder, "--image", folder / "page.png", model="packlight-tiny")[0] == 0


@pytest.mark.parametrize(
    "arguments", [["--labels", "a,,b"], ["--labels", ""], ["--labels", "a", "--template", "none"], []]
)
def test_wrong_labels_are_refused_before_a_model_is_loaded(run: Run, folder: Path, arguments: Sequence[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        run("classify", folder / "page.png", *arguments)
    assert exited.value.code == 2


def test_a_task_is_for_texts_and_for_models_with_prompts(run: Run, folder: Path) -> None:
    assert "has no prompts" in run("embed", "--text", "a", "--task", "query")[2]
    assert "--task is for texts" in run("embed", folder, "--task", "query")[2]
    assert "--task is for a TEXT" in run("search", folder, "--image", folder / "page.png", "--task", "query")[2]
