"""`python -m tests.browser.pictures`, which takes the pictures of README and docs."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.pictures import MOST_BYTES, PICTURES, Studio, small
from tests.service.running import Running


@pytest.mark.parametrize("name", ["compare", "packs", "folder"])
def test_a_picture_shows_something_and_is_small(browser: Browser, server: Running, tmp_path: Path, name: str) -> None:
    picture = PICTURES[name].taken(Studio(browser, server, tmp_path))
    assert picture.width == 1216
    assert 200 < picture.height <= 1400
    assert len(picture.getcolors(picture.width * picture.height) or ()) > 100
    assert len(small(picture)) <= MOST_BYTES
