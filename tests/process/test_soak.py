"""`python -m loadtest.bench soak` for half a minute: it strikes, watches and judges. The test judges no times."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.server import ROOT

FAULTS = ["engine-killed", "http-process-killed"]
BY_TIME = ("goodput", "slowest recovery", "memory", "open files", "threads")


@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_short_soak_answers_all_once_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest.bench", "soak", "--minutes", "0.5", "--every", "5", "--rate", "2"]
    files = {name: tmp_path / f"soak.{name}" for name in ("json", "html", "svg")}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    ended = subprocess.run(
        [*command, *options, "--faults", *FAULTS], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert ended.returncode in (0, 1), ended.stderr
    rows = json.loads(files["json"].read_text())
    judged = {row["case"]: row for row in rows if "verdict" in row}
    wrong = [row for case, row in judged.items() if row["verdict"] == "failed" and not case.startswith(BY_TIME)]
    assert wrong == []
    cases = {row["case"] for row in rows}
    # A slow machine has time for one of them.
    assert cases & {"fault: engine killed", "fault: HTTP process killed"}
    assert "fault: burst" in cases
    assert "Goodput through the faults" in files["html"].read_text()
    assert files["svg"].read_text().startswith("<svg")
