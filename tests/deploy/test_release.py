"""The checklist of a release stops at what is amiss and publishes nothing. Here the tests that it runs pass at once."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.version import CHANGES, ROOT, WRITTEN, set_version, version

FILES = [name for name, _ in WRITTEN] + ["deploy/__init__.py", "deploy/version.py", "deploy/release.sh"]
MAKEFILE = """
check test-clients test-browser docs deploy-check:
\t@echo ran $@
dist:
\t@mkdir dist && touch dist/a.whl dist/a.tar.gz
test-release:
\t@test -e $(DIST)/a.whl && echo ran $@
"""


class Checkout:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Nothing of the machine's own: no name of its user, no hook, no default branch.
        self.environ = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "ENGINE": "no-engine-here"}
        for role in ("AUTHOR", "COMMITTER"):
            self.environ |= {f"GIT_{role}_NAME": "A", f"GIT_{role}_EMAIL": "a@example.com"}

    def do(self, *command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), cwd=self.folder, env=self.environ, capture_output=True, text=True, check=True
        )
        return done.stdout

    def commit(self, *, push: bool = True) -> None:
        self.do("git", "add", "--all")
        self.do("git", "commit", "--quiet", "--message", "A change")
        if push:
            self.do("git", "push", "--quiet", "origin", "HEAD:main")

    def release(self, *options: str) -> tuple[int, str]:
        done = subprocess.run(
            ["deploy/release.sh", *options], cwd=self.folder, env=self.environ, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A clean, pushed main with a release in its change log."""
    made = Checkout(tmp_path / "checkout")
    for name in FILES:
        (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, made.folder / name)
    (made.folder / CHANGES).write_text("# Changelog\n\n## Unreleased\n\n- A thing.\n")
    (made.folder / "Makefile").write_text(MAKEFILE)
    (made.folder / ".gitignore").write_text("dist/\n.venv/\n__pycache__/\n")
    twine = made.folder / ".venv/bin/twine"
    twine.parent.mkdir(parents=True)
    twine.write_text('#!/bin/sh\n[ "$1" = check ] || echo "UPLOADED $*"\n')
    twine.chmod(0o755)
    set_version("7.0.0", today="2031-02-03", root=made.folder)
    made.do("git", "init", "--quiet", "--bare", "--initial-branch", "main", tmp_path / "origin")
    made.do("git", "init", "--quiet", "--initial-branch", "main")
    made.do("git", "remote", "add", "origin", tmp_path / "origin")
    made.commit()
    return made


def test_a_release_runs_everything_prints_what_is_left_and_does_none_of_it(checkout: Checkout) -> None:
    status, out = checkout.release()
    assert status == 0, out
    for target in ("check", "test-clients", "test-browser", "docs", "deploy-check", "test-release"):
        assert f"ran {target}\n" in out
    for command in ("git tag --annotate v7.0.0", "git push origin v7.0.0", "twine upload dist/*"):
        assert command in out.partition("Ready.")[2]
    assert "UPLOADED" not in out
    assert checkout.do("git", "tag") == checkout.do("git", "ls-remote", "--tags", "origin") == ""
    assert checkout.do("git", "status", "--porcelain") == ""


def other_branch(checkout: Checkout) -> None:
    checkout.do("git", "checkout", "--quiet", "-b", "topic")


def change(checkout: Checkout) -> None:
    (checkout.folder / "new").touch()


def unpushed(checkout: Checkout) -> None:
    change(checkout)
    checkout.commit(push=False)


def unreleased(checkout: Checkout) -> None:
    log = checkout.folder / CHANGES
    log.write_text(log.read_text().replace("## Unreleased\n", "## Unreleased\n\n- More.\n"))
    checkout.commit()


def released(checkout: Checkout) -> None:
    checkout.do("git", "tag", f"v{version(checkout.folder)}")


def failing_test(checkout: Checkout) -> None:
    makefile = checkout.folder / "Makefile"
    makefile.write_text(makefile.read_text().replace("@echo ran $@", "@exit 1"))
    checkout.commit()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (change, "changes that are not committed"),
        (other_branch, "this is topic"),
        (unpushed, "main and that of origin differ"),
        (unreleased, "CHANGELOG.md is not ready"),
        (released, "v7.0.0 exists"),
        (failing_test, "check] Error"),
    ],
)
def test_it_stops_at_what_is_amiss(checkout: Checkout, spoil: Callable[[Checkout], None], said: str) -> None:
    spoil(checkout)
    status, out = checkout.release()
    assert status != 0
    assert said in out
    assert "Ready." not in out
    assert not (checkout.folder / "dist").exists()


def test_a_try_goes_on_and_tells_what_a_release_would_stop_at(checkout: Checkout) -> None:
    other_branch(checkout)
    unpushed(checkout)
    status, out = checkout.release("--try")
    assert status == 0, out
    assert "left out: releases are made from main, and this is topic" in out
    assert "left out: the tests: make check" in out
    assert out.endswith("This was a try: nothing here is to be published.\n")
