from typing import Any

import numpy as np

from service.engine.client import ImageJob, TextJob
from service.engine.pack_log import KEPT_PACKS, PackLog, PackReport
from service.metrics import PackItem


def image(*lengths: int, cap: int = 256) -> ImageJob:
    return ImageJob(np.zeros((sum(lengths), 3), np.uint8), tuple((n, 1) for n in lengths), cap, None, False)


def text(tokens: int, cap: int = 64) -> TextJob:
    return TextJob(np.zeros(tokens, np.int32), cap, None)


def report(*items: Any, ended_s: float = 1.0) -> PackReport:
    lengths = (item.lengths for item in items if item.kind == "image")
    sizes = [PackItem(item.kind, item.tokens, item.token_cap) for item in items]
    return PackReport.of(sizes, lengths, id="a", computed_tokens=500, pack_s=0.1, forward_s=0.2, ended_s=ended_s)


def test_a_report_has_the_sizes_of_each_kind_and_what_padding_would_have_computed() -> None:
    made = report(image(100), text(10), image(20, 30, 30), text(4))
    assert made.images == ((100,), (20, 30, 30))
    assert made.texts == (10, 4)
    assert (made.tokens, made.computed_tokens, made.left_out) == (194, 500, 0)
    assert made.longest_tokens == 2 * 100 + 2 * 10
    assert made.cap_tokens == 2 * 256 + 2 * 64


def test_of_a_pack_with_very_many_items_the_rest_is_a_number() -> None:
    made = report(*(text(3) for _ in range(1000)), image(7))
    assert made.images == ((7,),)
    assert len(made.texts) + made.left_out == 1000
    assert made.left_out > 0
    assert (made.tokens, made.longest_tokens) == (3007, 3007)


def test_a_log_keeps_the_last_packs() -> None:
    log = PackLog()
    assert (log.packs, log.last_s) == ((), 0.0)
    for number in range(KEPT_PACKS + 5):
        log.add(report(image(1), ended_s=float(number)))
    assert [pack.ended_s for pack in log.packs] == list(range(5, KEPT_PACKS + 5))
    assert log.last_s == KEPT_PACKS + 4
