"""The difference between two scrapes, and its counts against the client's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.runs import server_view
from loadtest.runs.agreement import check
from loadtest.runs.server_view import ServerView, parse_metrics
from tests.loadtest.runs.test_summary import rows

BEFORE = """# HELP packlight_requests_total Requests.
packlight_requests_total{route="/embed",status="200"} 5
packlight_requests_total{route="/livez",status="200"} 50
packlight_images_total{outcome="embedded"} 5
packlight_charged_tokens_total 500
packlight_tokens_total{kind="image"} 500
packlight_tokens_total{kind="padding"} 0
packlight_pack_fill_ratio_bucket{le="0.5"} 1
packlight_pack_fill_ratio_bucket{le="+Inf"} 1
packlight_pack_fill_ratio_sum 0.4
"""
AFTER = """packlight_requests_total{route="/embed",status="200"} 9
packlight_requests_total{route="/livez",status="200"} 99
packlight_images_total{outcome="embedded"} 9
packlight_charged_tokens_total 9.0e+02
packlight_tokens_total{kind="image"} 900
packlight_tokens_total{kind="padding"} 100
packlight_padding_avoided_tokens_total{layout="pad_to_cap"} 1200
packlight_pack_fill_ratio_bucket{le="0.5"} 2
packlight_pack_fill_ratio_bucket{le="+Inf"} 4
packlight_pack_fill_ratio_sum 2.4
"""


def view(before: str = BEFORE, after: str = AFTER) -> ServerView:
    found = server_view.read(before, after, route="/embed")
    assert found
    return found


def test_only_the_difference_counts():
    found = view()
    assert found.requests == {"200": 4}
    assert (found.charged_tokens, found.computed_tokens, found.padding_tokens) == (400, 400, 100)
    assert found.padding_waste == pytest.approx(0.2)
    assert found.wastes == {"packed": pytest.approx(0.2), "pad_to_cap": pytest.approx(0.75)}
    assert found.pack_fill
    assert found.pack_fill.counts == (1, 2)
    assert found.pack_fill.mean == pytest.approx(2 / 3)


def test_a_server_that_is_not_packlight_has_no_view():
    assert server_view.read("process_cpu 1\n", "process_cpu 2\n", route="/embed") is None
    assert server_view.read(None, AFTER, route="/embed") is None


def test_labels_with_commas_quotes_and_braces_are_read():
    text = 'x_total{a="1,2",b="\\"q\\" }"} 3 1700000000\nnot a sample\ny 1e3\n'
    assert parse_metrics(text) == {("x_total", (("a", "1,2"), ("b", '"q" }'))): 3.0, ("y", ()): 1000.0}


@given(st.text(max_size=200))
def test_any_text_is_parsed_without_an_error(text):
    parse_metrics(text)


def test_counts_that_agree_say_so():
    checks = check(rows([0, 1, 2, 3], [0.1] * 4), view())
    assert [each.name for each in checks] == [
        "requests answered 200",
        "images answered",
        "tokens charged",
        "tokens computed",
    ]
    assert all(each.agrees for each in checks)


def test_texts_and_remembered_images_count_on_both_sides():
    """Four answers, of two images, one of which the server remembered, and of two texts."""
    after = """packlight_requests_total{route="/embed",status="200"} 4
packlight_images_total{outcome="embedded"} 2
packlight_texts_total{outcome="embedded"} 2
packlight_charged_tokens_total 400
packlight_tokens_total{kind="image"} 100
packlight_tokens_total{kind="text"} 200
packlight_tokens_total{kind="padding"} 100
packlight_padding_avoided_tokens_total{layout="pad_to_cap"} 100
packlight_cache_saved_tokens_total 100
"""
    found = view("", after)
    checks = check(rows([0, 1, 2, 3], [0.1] * 4), found)
    assert [each.name for each in checks[1:]] == [
        "images and texts answered",
        "tokens charged",
        "tokens computed or cached",
    ]
    assert all(each.agrees for each in checks)
    assert found.wastes == {"packed": pytest.approx(0.25), "pad_to_cap": pytest.approx(0.25)}


def test_counts_that_disagree_say_why_that_may_be():
    more = check(rows([0, 1, 2], [0.1] * 3), view())
    assert not any(each.agrees for each in more)
    assert "someone else" in more[0].remark
    less = check(rows(range(5), [0.1] * 5), view())
    assert "one replica" in less[0].remark
    lost = check(rows([0, 1, 2], [0.1] * 3, status=-2), view())
    assert lost[0].remark == "3 requests got no answer but may be in the server's counts"
    restarted = check(rows([0], [0.1]), view(AFTER, BEFORE))
    assert "restarted" in restarted[0].remark
