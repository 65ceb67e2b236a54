"""One version everywhere, from pyproject.toml."""

import re
import shutil
from pathlib import Path

import pytest

from deploy.version import (
    CHANGES,
    ROOT,
    WRITTEN,
    VersionError,
    newest_release,
    require_ready,
    set_version,
    unreleased,
    version,
    written,
)
from tests.deploy.files import read


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that name the version, and a change log with one change that is not released."""
    for name, _ in WRITTEN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / CHANGES).write_text("# Changelog\n\n## Unreleased\n\n### Added\n\n- A thing.\n")
    return tmp_path


def test_every_file_has_the_version_of_the_project() -> None:
    assert all(found == {version()} for found in written().values()), written()


def test_no_image_of_ours_is_named_with_a_version_that_a_release_would_forget() -> None:
    for name in ("Dockerfile", "docker-compose.yml", "README.md", "docs/operating.md", "deploy/verify.sh"):
        text = read(name)
        for _, before in (place for place in WRITTEN if place[0] == name):
            text = re.sub(before + r"[\d.]+", "", text, flags=re.MULTILINE)
        assert not re.search(r"packlight[:=@-]+v?\d+\.\d+\.\d+|VERSION=\d", text), name


def test_the_newest_release_of_the_change_log_is_the_version() -> None:
    changes = read(CHANGES)
    newest = newest_release(changes)
    assert newest is None or newest[0] == version()
    # A heading that is written in another way is not found, and would be passed over.
    assert re.findall(r"^## (?!Unreleased$)(\S+)", changes, re.MULTILINE)[:1] == ([newest[0]] if newest else [])


def test_a_new_version_is_written_everywhere_and_takes_the_changes(checkout: Path) -> None:
    set_version("3.1.0rc1", today="2031-02-03", root=checkout)
    assert version(checkout) == "3.1.0rc1"
    assert all(found == {"3.1.0rc1"} for found in written(checkout).values())
    changes = (checkout / CHANGES).read_text()
    assert newest_release(changes) == ("3.1.0rc1", "2031-02-03")
    assert unreleased(changes) == ""
    assert changes.endswith("## 3.1.0rc1 - 2031-02-03\n\n### Added\n\n- A thing.\n")
    require_ready(checkout)


def test_without_changes_nothing_is_written(checkout: Path) -> None:
    set_version("3.1.0", today="2031-02-03", root=checkout)
    with pytest.raises(VersionError, match="nothing under ## Unreleased"):
        set_version("3.2.0", today="2031-02-04", root=checkout)
    with pytest.raises(VersionError, match="v3.2 is no version"):
        set_version("v3.2", today="2031-02-04", root=checkout)
    assert version(checkout) == "3.1.0"


def test_a_release_needs_a_heading_of_its_version_and_no_change_beside_it(checkout: Path) -> None:
    with pytest.raises(VersionError, match="the newest release in CHANGELOG.md is None"):
        require_ready(checkout)
    set_version("3.1.0", today="2031-02-03", root=checkout)
    log = checkout / CHANGES
    log.write_text(log.read_text().replace("## Unreleased\n", "## Unreleased\n\n- More.\n"))
    with pytest.raises(VersionError, match="not released"):
        require_ready(checkout)


def test_a_release_needs_one_version_in_all_files(checkout: Path) -> None:
    set_version("3.1.0", today="2031-02-03", root=checkout)
    compose = checkout / "docker-compose.yml"
    compose.write_text(compose.read_text().replace("packlight:3.1.0", "packlight:3.0.0", 1))
    with pytest.raises(VersionError, match=r"docker-compose\.yml"):
        require_ready(checkout)
