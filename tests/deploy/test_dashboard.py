import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from deploy.check_dashboard import Question, askable, fault, questions
from tests.deploy.files import dashboard, load_yaml

BOARD = dashboard()
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for position in (panel["gridPos"] for panel in BOARD["panels"])
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_there_is_one_data_source_and_it_is_the_one_provisioned() -> None:
    (provisioned,) = load_yaml("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    found = []

    def collect(node: object) -> None:
        if isinstance(node, dict):
            found.extend([node["datasource"]["uid"]] if "datasource" in node else [])
            node = list(node.values())
        for child in node if isinstance(node, list) else []:
            collect(child)

    collect(BOARD)
    assert set(found) == {provisioned["uid"]}


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_every_panel_explains_itself_and_asks_something(panel: dict[str, object]) -> None:
    description = panel["description"]
    assert isinstance(description, str)
    assert len(description) > 60
    assert panel["targets"]


def test_the_provider_reads_the_folder_that_compose_mounts() -> None:
    (provider,) = load_yaml("deploy/grafana/provisioning/dashboards/packlight.yml")["providers"]
    grafana = load_yaml("docker-compose.yml")["services"]["grafana"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]


def test_every_variable_of_an_expression_is_filled_in() -> None:
    asked = list(questions(BOARD))
    assert len(asked) >= len(PANELS)
    assert not [question for question in asked if "$" in question.expr]


def test_questions_of_collapsed_rows_are_asked_too() -> None:
    panel = {"title": "p", "targets": [{"expr": 'up{instance=~"$instance"}'}]}
    row = {"title": "r", "panels": [panel]}
    assert list(questions({"panels": [row]})) == [Question("p", 'up{instance=~".*"}')]


class Prometheus(BaseHTTPRequestHandler):
    """Answers as the expression says."""

    def do_GET(self) -> None:
        (expr,) = parse_qs(urlsplit(self.path).query)["query"]
        samples = [{"value": [0, value]} for value in expr.split(",") if value != "none"]
        self.send_response(400 if expr == "bad" else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"error": "parse error", "data": {"result": samples}}).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def prometheus() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Prometheus) as server:
        # It looks whether it is to end every 10 ms, and not every 500.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_questions_of_gpus_are_asked_where_the_server_has_one(prometheus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, of_gpu = Question("a", "1"), Question("b", "packlight_gpu_memory_used_bytes,1")
    # The stand-in answers what it can read as a number.
    monkeypatch.setattr("deploy.check_dashboard._ANY_GPU", "1")
    assert askable(prometheus, [usual, of_gpu]) == [usual, of_gpu]
    monkeypatch.setattr("deploy.check_dashboard._ANY_GPU", "none")
    assert askable(prometheus, [usual, of_gpu]) == [usual]


@pytest.mark.parametrize(
    ("answer", "why"),
    [("0", None), ("NaN,3.5", None), ("none", "no samples"), ("NaN,+Inf", "only NaN or Inf"), ("bad", "parse error")],
)
def test_an_answer_is_at_least_one_number(prometheus: str, answer: str, why: str | None) -> None:
    assert fault(prometheus, Question("p", answer)) == why
