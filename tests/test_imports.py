"""Who may import whom, held by reading every import of every module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PURE = [
    "model/sizing/geometry.py",
    "model/sizing/budget.py",
    "model/sizing/plan.py",
    "model/sizing/native.py",
    "model/sizing/anyres.py",
    "model/pack.py",
    "model/running/shares.py",
    "model/running/buckets.py",
    "service/engine/room.py",
    "service/engine/scheduler.py",
    "service/engine/cost.py",
    "service/planning/quality.py",
    "service/planning/geometries.py",
    "service/planning/options.py",
    "service/planning/reasons.py",
    "service/planning/planner.py",
]
NO_TORCH = [
    "model/errors.py",
    "model/sizing/plan.py",
    "model/images/decode.py",
    "model/images/patches.py",
    "model/pack.py",
    "model/running/shares.py",
]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize(
    ("importer", "forbidden"),
    [
        ("model", {"service", "loadtest", "deploy", "tests", "asyncio", "fastapi", "starlette", "http"}),
        ("service", {"loadtest", "deploy", "tests"}),
        ("loadtest", {"deploy", "tests"}),
    ],
)
def test_imports_point_one_way(importer: str, forbidden: set[str]) -> None:
    modules = list((ROOT / importer).rglob("*.py"))
    for path in modules:
        assert not packages(path) & forbidden, path
    assert modules or importer == "loadtest"


def test_the_load_test_talks_http_only() -> None:
    for path in (ROOT / "loadtest").rglob("*.py"):
        if "bench" not in path.parts:
            assert not packages(path) & {"model", "service"}, path


def test_what_serves_imports_nothing_that_trains_or_judges() -> None:
    for path in [*(ROOT / "model").rglob("*.py"), *(ROOT / "service").rglob("*.py")]:
        assert "training" not in packages(path), path
    assert "training" not in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", PURE)
def test_policy_has_no_clock_no_io_and_no_tensor(name: str) -> None:
    allowed = set(sys.stdlib_module_names) | {"model", "numpy", name.split("/")[0]}
    banned = {"time", "asyncio", "threading", "os", "io", "socket", "logging", "random", "pathlib", "datetime"}
    used = packages(ROOT / name)
    assert used <= allowed
    assert not used & banned


@pytest.mark.parametrize("name", NO_TORCH)
def test_what_runs_beside_http_does_not_load_torch(name: str) -> None:
    module = name.removesuffix(".py").replace("/", ".")
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
