"""What a run's report says, from a result that is written by hand."""

from loadtest.reports.text import run_text
from loadtest.runs import agreement, server_view
from loadtest.runs.run import RunResult, Timing
from loadtest.runs.summary import summarise
from loadtest.sending.records import TIMEOUT, Records, Row, from_rows
from loadtest.traffic.corpus import Corpus, Picture, Request

AFTER = """packlight_requests_total{route="/embed",status="200"} 2
packlight_images_total{outcome="embedded"} 2
packlight_charged_tokens_total 200
packlight_tokens_total{kind="image"} 200
packlight_padding_avoided_tokens_total{layout="pad_to_cap"} 1
packlight_pack_fill_ratio_bucket{le="+Inf"} 1
packlight_pack_fill_ratio_sum 0.4
"""


def result_of(records: Records) -> RunResult:
    timing = Timing(rate=1, concurrency=None, duration_s=2)
    corpus = Corpus("tiny", ("a",), (Request(0, (Picture(b"", 1, 1, "image/png"),), {}),), skipped=1)
    frame = timing.frame(corpus.classes, None)
    server = server_view.read("", AFTER, route="/embed")
    assert server
    return RunResult(
        url="http://x",
        form="multipart",
        started_at="",
        timing=timing,
        corpus=corpus,
        info={},
        frame=frame,
        records=records,
        summary=summarise(records, frame, body_bytes=[1]),
        server=server,
        checks=agreement.check(records, server),
        interrupted_at_s=None,
    )


def test_one_of_a_thing_is_written_in_the_singular():
    answered = Row(0, 0, 0, 0.0, 0.0, 0.1, 200, 1, 1, 100, 9)
    lost = Row(1, 0, 0, 1.0, 1.0, 1.1, TIMEOUT, 1, -1, -1, 0)
    lines = " ".join(run_text(result_of(from_rows([answered, lost], [{}, {}]))).split())
    for said in (
        "of 1 pack ",
        "(padded to the cap): 1 token ",
        "1 answer is too few for p99.9",
        "1 of 2 requests failed; percentiles cover the other 1.",
        "1 request got no answer",
        "Left out of the folder: 1 file without",
        "✗ images answered: client 1, server 2",
    ):
        assert said in lines
