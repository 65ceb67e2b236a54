"""The bodies that the benchmark of dialects sends are what it compares: the same picture at the same budget."""

from loadtest.bench.clients.dialects import _CASES, _photo
from service.loading import load_runner
from service.settings.settings import Settings
from tests.service.running import serving


def test_every_case_embeds_the_same_picture_at_the_same_budget_in_its_dialect() -> None:
    uri = _photo()
    with serving(load_runner(Settings(devices="cpu")), default_max_tokens=16) as server:
        for case in _CASES:
            label = case.dialect.name if case.dialect else "packlight"
            charged, counted = server.counted("charged_tokens_total"), server.counted("requests_total", dialect=label)
            body, kind = case.encoded(uri)
            answer = server.http.post(case.path, content=body, headers={"Content-Type": kind})
            assert answer.status_code == 200, answer.text
            assert server.counted("charged_tokens_total") == charged + 16
            assert server.metric("requests_total", dialect=label, route=case.path) >= 1
            assert server.counted("requests_total", dialect=label) == counted + 1
