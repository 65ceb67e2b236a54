"""Numbers with their nouns."""

import pytest

from loadtest.words import counted


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 packs"), (1, "1 pack"), (1.0, "1 pack"), (2, "2 packs"), (1200, "1,200 packs")]
)
def test_a_noun_follows_its_number(count, said):
    assert counted(count, "pack") == said
