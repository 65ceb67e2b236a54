"""Every kind of file: what it holds, and that it is there whole or not at all."""

import json
import os
import shutil
from pathlib import Path

import lance
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from model.sizing.plan import plan_image
from service.jobs.rows import Embedded, Failed, Row, TextVector
from service.jobs.sinks.kinds import SUFFIXES, TABLES, open_sink
from service.jobs.sinks.tables import PART_ROWS
from tests.service.jobs.parts import GEOMETRY, RECIPE

PLAN = plan_image((40, 30), geometry=GEOMETRY, budget=RECIPE.budget, strategy="naflex")
GRID = list(PLAN.segments[0].grid)
COLUMNS = ["path", "sha256", "size", "grid", "tokens", "fingerprint", "error", "embedding"]


def rows(count: int) -> list[Row]:
    """Every third one has failed."""
    made: list[Row] = []
    for number in range(count):
        vector = np.array([number, 0.1, -0.0, 1e-30], np.float32)
        failed = Failed(f"{number}.png", "not an image", None if number % 2 else "cd" * 32)
        made.append(failed if number % 3 == 2 else Embedded(f"{number}.png", "ab" * 32, PLAN, vector))
    return made


def write(path: Path, given: list[Row], texts: tuple[TextVector, ...] = ()) -> Path:
    with open_sink(path, width=4, fingerprint="f") as sink:
        for row in given:
            sink.add(row)
        for text in texts:
            sink.add_text(text)
    return path


def break_off(path: Path) -> None:
    with open_sink(path, width=4, fingerprint="g") as sink:
        for row in rows(PART_ROWS + 9):
            sink.add(row)
        raise ValueError("the job has ended")


def read(path: Path) -> pa.Table:
    return pq.read_table(path) if path.suffix == ".parquet" else lance.dataset(str(path)).to_table()


@pytest.mark.parametrize("suffix", TABLES)
def test_a_table_has_a_row_a_picture_and_nulls_where_one_failed(tmp_path: Path, suffix: str) -> None:
    count = PART_ROWS + 5
    table = read(write(tmp_path / f"x{suffix}", rows(count)))
    assert table.schema.names == COLUMNS
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    assert table.num_rows == count
    head = table.slice(0, 3).to_pylist()
    assert head[1] == {
        "path": "1.png", "sha256": "ab" * 32, "size": [40, 30], "grid": GRID, "tokens": PLAN.tokens,
        "fingerprint": "f", "error": None, "embedding": [1.0, float(np.float32(0.1)), -0.0, float(np.float32(1e-30))],
    }  # fmt: skip
    assert head[2] == dict.fromkeys(COLUMNS) | {"path": "2.png", "error": "not an image", "sha256": "cd" * 32}
    assert [path.as_py() for path in table.column("path")] == [f"{number}.png" for number in range(count)]
    vectors = table.column("embedding").drop_null().combine_chunks().flatten().to_numpy().reshape(-1, 4)
    assert vectors.tobytes() == b"".join(row.embedding.tobytes() for row in rows(count) if isinstance(row, Embedded))


def test_parquet_is_written_in_row_groups(tmp_path: Path) -> None:
    assert pq.ParquetFile(write(tmp_path / "x.parquet", rows(2 * PART_ROWS + 1))).num_row_groups == 3


@pytest.mark.parametrize("suffix", TABLES)
def test_a_table_of_nothing_has_its_columns(tmp_path: Path, suffix: str) -> None:
    table = read(write(tmp_path / f"x{suffix}", []))
    assert (table.num_rows, table.schema.names) == (0, COLUMNS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"x{suffix}", rows(4))

    def content() -> dict[str, bytes]:
        return {str(each): each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}

    before = content()
    with pytest.raises(ValueError, match="the job has ended"):
        break_off(path)
    assert content() == before
    (tmp_path / f".x{suffix}.partial").mkdir() if suffix == ".lance" else (tmp_path / f".x{suffix}.partial").touch()
    write(path, rows(7))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert content() != before


@pytest.mark.parametrize("suffix", TABLES)
def test_the_name_of_a_table_may_look_like_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a:b").mkdir()
    write(Path(f"a:b/x{suffix}"), rows(3))
    assert read(tmp_path / f"a:b/x{suffix}").num_rows == 3


def test_a_name_that_is_not_utf8_is_written_or_refused(tmp_path: Path) -> None:
    latin = tmp_path / os.fsdecode(b"caf\xe9.parquet")
    write(latin, rows(3))
    with latin.open("rb") as file:
        assert pq.read_table(file).num_rows == 3
    with pytest.raises(OSError, match="UTF-8"):
        write(latin.with_suffix(".lance"), rows(3))


def test_what_a_job_left_that_was_killed_while_it_replaced_a_dataset_is_removed(tmp_path: Path) -> None:
    path, before = tmp_path / "x.lance", tmp_path / ".x.lance.partial.before"
    write(path, rows(4))
    shutil.copytree(path, before)
    write(path, rows(5))
    assert list(tmp_path.iterdir()) == [path]
    path.rename(before)
    with pytest.raises(ValueError, match="the job has ended"):
        break_off(path)
    assert read(path).num_rows == 5
    path.rename(before)
    write(path, rows(6))
    assert list(tmp_path.iterdir()) == [path]
    assert read(path).num_rows == 6


def test_plain_files_leave_failures_out_and_take_texts(tmp_path: Path) -> None:
    texts = (TextVector("a dog", 5, False, np.ones(4, np.float32)),)
    wanted = np.stack([*(row.embedding for row in rows(4) if isinstance(row, Embedded)), texts[0].embedding])
    array = np.load(write(tmp_path / "x.npy", rows(4), texts))
    assert array.tobytes() == wanted.tobytes()
    with safe_open(write(tmp_path / "x.safetensors", rows(4), texts), "numpy") as file:
        assert file.get_tensor("embeddings").tobytes() == wanted.tobytes()
        assert file.get_tensor("tokens").tolist() == [PLAN.tokens] * 3 + [5]
        assert file.get_tensor("grids").tolist() == [GRID] * 3
        assert json.loads(file.metadata()["files"]) == ["0.png", "1.png", "3.png"]
        assert json.loads(file.metadata()["texts"]) == ["a dog"]
    lines = [orjson.loads(line) for line in write(tmp_path / "x.jsonl", rows(4), texts).read_bytes().splitlines()]
    assert [line.get("file") for line in lines] == ["0.png", "1.png", "3.png", None]
    assert np.array([line["embedding"] for line in lines], np.float32).tobytes() == wanted.tobytes()
    assert lines[3] == {"text": "a dog", "embedding": [1, 1, 1, 1], "tokens": 5, "truncated": False}


def test_plain_files_of_nothing_can_be_read_and_joined_to_others(tmp_path: Path) -> None:
    assert np.load(write(tmp_path / "x.npy", [])).shape == (0, 4)
    with safe_open(write(tmp_path / "x.safetensors", []), "numpy") as file:
        assert file.get_tensor("embeddings").shape == (0, 4)
        assert file.get_tensor("grids").shape == (0, 2)
    assert write(tmp_path / "x.jsonl", []).read_bytes() == b""
