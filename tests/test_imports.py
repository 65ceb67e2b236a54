"""Who may import whom, held by reading every import of every module."""

import ast
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("model", "service", "training", "loadtest")
# Rooms of each package, a module of its floor being a room too. Arrows run down: a room imports only what stands below.
ORDER = {
    "model": [
        "running", "checkpoint", "texts", "encoders", "images", "kernels", "sizing", "pack", "fingerprint",
        "child_process", "deferred", "memory", "threads", "errors",
    ],
    "service": [
        "__main__", "processes", "assembly", "http", "cli", "jobs", "planning", "canary", "tracing", "requests",
        "loading", "engine", "metrics", "process_usage", "gpus", "limits", "priority", "calibration", "int8_scale",
        "descriptors", "settings", "fetching", "watching", "logs", "names", "errors",
    ],
    "training": ["train", "evaluate", "learning", "judging", "samples", "draw", "drawing"],
    "loadtest": [
        "bench", "simulate", "__main__", "commands", "checks", "options", "reports", "runs", "sending", "traffic",
        "errors", "words", "__init__",
    ],
}  # fmt: skip
MOST_MODULES = 14
PURE = [
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "model/sizing").glob("[a-z]*.py")),
    "model/pack.py",
    "model/fingerprint.py",
    "model/running/shares.py",
    "loadtest/bench/forwards/buckets.py",
    "loadtest/bench/soak/growth.py",
    "loadtest/bench/soak/judgement.py",
    "loadtest/bench/soak/records.py",
    "loadtest/simulate/events.py",
    "loadtest/simulate/cores.py",
    "loadtest/simulate/bounds.py",
    "service/engine/scheduler.py",
    "service/engine/queue/line.py",
    "service/engine/queue/room.py",
    "service/engine/cost/fit.py",
    "service/engine/canary/rule.py",
    "service/canary/pictures.py",
    "service/requests/cache/unproven.py",
    "service/engine/pack_bound.py",
    "service/engine/pack_log.py",
    "service/fetching/addresses.py",
    "service/fetching/urls.py",
    "service/fetching/allowlist.py",
    "service/http/stats/figures.py",
    "service/http/stats/line.py",
    "service/planning/quality.py",
    "service/planning/geometries.py",
    "service/planning/options.py",
    "service/planning/reasons.py",
    "service/planning/choice.py",
    "service/planning/pack_cost.py",
    "service/planning/planner.py",
    "service/int8_scale.py",
    "service/priority.py",
    "service/jobs/window.py",
]
# What the simulator runs itself, and the values that those take. No process, no HTTP, no tensor.
SIMULATED = (
    "model.sizing.", "service.engine.client.", "service.engine.cost.", "service.engine.queue.",
    "service.engine.scheduler.", "service.errors.", "service.limits.", "service.metrics.", "service.priority.",
    "service.requests.admission.",
)  # fmt: skip
# What says the time of day, to show it. All else measures by clocks that nobody sets.
WALL_CLOCK = {"service/http/stats/reader.py", "service/logs.py", "service/tracing/request.py"}
NO_TORCH = [
    "model/errors.py",
    "model/kernels/hardware.py",
    "model/sizing/plan.py",
    "model/images/decode.py",
    "model/images/patches.py",
    "model/images/worker.py",
    "model/pack.py",
    "model/texts/read.py",
    "model/running/shares.py",
]


@dataclass(frozen=True, slots=True)
class Source:
    """What the tests ask of a file. Its tree is not kept, as all trees take hundreds of megabytes.

    imports: dotted names of modules, and of what is imported from them. of_time: what is read of `time`. called: the
    last names of what is called. says: the docstring.
    """

    imports: frozenset[str]
    of_time: frozenset[str]
    called: frozenset[str]
    says: str | None


@cache
def source(path: Path) -> Source:
    """Each file is read once, whatever is asked of it."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    of_time: set[str] = set()
    called: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
            of_time.add(node.attr)
        elif isinstance(node, ast.Call):
            called.add(node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
    return Source(frozenset(names), frozenset(of_time), frozenset(called), ast.get_docstring(tree))


def imports(path: Path) -> frozenset[str]:
    return source(path).imports


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def room_of(package: str, name: str) -> str:
    """The room of a dotted name; `__init__` for what the package itself holds."""
    first, _, _ = name.removeprefix(f"{package}.").partition(".")
    return first if (ROOT / package / first).is_dir() or (ROOT / package / f"{first}.py").exists() else "__init__"


@pytest.mark.parametrize(
    ("importer", "forbidden"),
    [
        ("model", {"service", "training", "loadtest", "deploy", "tests", "asyncio", "fastapi", "starlette", "http"}),
        ("service", {"training", "loadtest", "deploy", "tests"}),
        ("training", {"service", "loadtest", "deploy", "tests"}),
        ("loadtest", {"training", "deploy", "tests"}),
        ("deploy", {"training", "loadtest", "tests"}),
    ],
)
def test_packages_import_one_way(importer: str, forbidden: set[str]) -> None:
    modules = list((ROOT / importer).rglob("*.py"))
    assert modules
    for path in modules:
        assert not packages(path) & forbidden, path


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms_import_one_way(package: str) -> None:
    order = ORDER[package]
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for name in imports(path):
            if name.split(".")[0] == package and (room := room_of(package, name)) != parts[0]:
                assert order.index(parts[0]) < order.index(room), f"{path} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_room_has_a_place_in_the_order(package: str) -> None:
    folder = ROOT / package
    rooms = {path.stem for path in folder.glob("[a-z]*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    assert rooms | {"__main__", "__init__"} == set(ORDER[package]) | {"__main__", "__init__"}


@pytest.mark.parametrize("package", [*PACKAGES, "deploy"])
def test_every_folder_says_what_it_is_and_is_small_enough_to_see(package: str) -> None:
    for init in (ROOT / package).rglob("__init__.py"):
        modules = [path.name for path in init.parent.glob("*.py") if path != init]
        assert len(modules) <= MOST_MODULES, init.parent
        assert source(init).says, f"{init} says nothing of its folder"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_folders_of_the_tests_are_those_of_what_they_test(package: str) -> None:
    for init in (ROOT / "tests" / package).rglob("__init__.py"):
        if init.parent.name == "matrix":  # the tests of `model/images` that would not fit into one file
            continue
        assert (ROOT / init.parent.relative_to(ROOT / "tests")).is_dir(), init.parent


def test_the_load_test_talks_http_only() -> None:
    for path in (ROOT / "loadtest").rglob("*.py"):
        if not {"bench", "simulate"} & set(path.parts):
            assert not packages(path) & {"model", "service"}, path


def test_the_simulator_takes_only_policy_from_the_service() -> None:
    for path in (ROOT / "loadtest/simulate").glob("*.py"):
        for name in imports(path):
            if name.startswith(("model.", "service.")):
                assert name.startswith(SIMULATED), f"{path} imports {name}"


def test_no_image_carries_what_trains() -> None:
    assert "training" not in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", PURE)
def test_policy_has_no_clock_no_io_and_no_tensor(name: str) -> None:
    allowed = set(sys.stdlib_module_names) | {"model", "numpy", name.split("/")[0]}
    banned = {"time", "asyncio", "threading", "os", "io", "socket", "logging", "random", "pathlib", "datetime"}
    used = packages(ROOT / name)
    assert used <= allowed
    assert not used & banned


def test_no_wait_and_no_deadline_is_by_a_clock_that_may_be_set() -> None:
    wall = {"time", "time_ns", "localtime", "gmtime", "ctime"}
    for package in ("model", "service"):
        for path in (ROOT / package).rglob("*.py"):
            imported = {f"time.{name}" for name in wall} | {"datetime", "datetime.datetime", "datetime.date"}
            if path.relative_to(ROOT).as_posix() not in WALL_CLOCK:
                assert not source(path).of_time & wall, path
                assert not imported & imports(path), path


def test_what_runs_beside_http_does_not_load_torch() -> None:
    """One process loads them all, and names the first that brings torch."""
    modules = [name.removesuffix(".py").replace("/", ".") for name in NO_TORCH]
    program = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
    if "torch" in sys.modules: sys.exit(name + " loads torch")
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        # What decodes images and speaks HTTP computes nothing, and a model without text needs no tokenizer.
        (
            "import service.processes.http_process, service.http.app",
            {
                "torch",
                "transformers",
                "tokenizers",
                "safetensors.torch",
                "imagecodecs",
                "opentelemetry.sdk",
                "grpc",
                "httpcore2",
            },
        ),
        ("import service.processes.supervisor", {"torch", "fastapi", "uvicorn", "PIL"}),
        ("import service.processes.engine_process", {"fastapi", "uvicorn", "PIL"}),
        ("import service.processes.server", {"torch", "fastapi", "uvicorn"}),
        ("from service.__main__ import main; main(['--help'])", {"torch", "numpy", "pydantic"}),
        ("from service.__main__ import main; main(['nothing'])", {"torch", "numpy", "pydantic"}),
        (
            "from service.__main__ import main; main(['serve', '--help'])",
            {"torch", "numpy", "fastapi", "prometheus_client"},
        ),
    ],
)
def test_a_process_loads_no_more_than_it_uses(program: str, unwanted: set[str]) -> None:
    shown = f"import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {program}"
    ended = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, check=False, capture_output=True, text=True)
    assert not unwanted & set(ended.stderr.splitlines()[-1].split())


def test_a_dialect_knows_requests_and_no_way_behind_them() -> None:
    allowed = ("errors", "limits", "priority", "requests", "http.dialects")
    for path in (ROOT / "service/http/dialects").glob("*.py"):
        for name in imports(path):
            if name.startswith("service."):
                assert name.removeprefix("service.").startswith(allowed), f"{path} imports {name}"


# What starts a thread or a task by itself, and why that needs no watch.
STARTS = {
    "model/threads.py": "where threads start",
    "service/watching/tasks.py": "where tasks start",
    "service/processes/supervisor.py": "its tasks are kept by `_kept`, and the start of engines is waited for",
    "service/processes/reloading/engines.py": "kept by `on_failure` of the supervisor",
    "service/processes/child.py": "waited for where it starts",
    "service/processes/http_keeper.py": "waited for where they start",
    "service/http/stats/feed.py": "at its end listeners are let go, and the next one starts another",
    "service/requests/cache/store.py": "the next request starts another",
    "service/http/routes/stats.py": "of one request",
    "service/http/routes/embedding.py": "of one request",
    "service/requests/steps.py": "of one request, in a group",
}


def test_no_thread_and_no_task_of_a_server_starts_where_nobody_watches_it() -> None:
    starts = {"Thread", "Timer", "ThreadPoolExecutor", "create_task", "ensure_future", "start_new_thread"}
    found = set()
    for path in [*(ROOT / "model").rglob("*.py"), *(ROOT / "service").rglob("*.py")]:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(("service/jobs/", "service/cli/")):  # no part of a server
            continue
        if source(path).called & starts:
            found.add(name)
    # One that starts none any more has no place here.
    assert found == set(STARTS)
