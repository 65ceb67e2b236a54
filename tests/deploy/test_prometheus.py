import re
from types import SimpleNamespace
from typing import Any

import pytest

from service.gpus import Gpus
from service.metrics import Metrics
from tests.deploy.files import dashboard, load_yaml, metric_names, read, rules

SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
ALERTS = rules("alerts.yml")
RECORDED = {rule["record"] for rule in rules("recording.yml")}


def served_metrics() -> set[str]:
    # A driver that shows no GPU: the families are there all the same, as on a machine with one.
    driver = SimpleNamespace(nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: 0, NVMLError=Exception)
    families = [*Metrics().registry.collect(), *Gpus(load=lambda: driver).collect()]
    return {family.name + suffix for family in families for suffix in SUFFIXES[family.type]}


def test_every_metric_of_rules_and_dashboard_is_one_that_the_server_has() -> None:
    exprs = [rule["expr"] for rule in rules("recording.yml") + ALERTS]
    exprs += [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    asked = set().union(*map(metric_names, exprs))
    assert asked - RECORDED <= served_metrics()
    assert asked >= RECORDED, "a rule that nobody reads"


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_every_alert_says_what_and_where_and_has_a_case_in_which_it_fires(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{name.lower()}"
    assert f"\n## {name}\n" in read("deploy/RUNBOOK.md")
    cases = [
        case["exp_alerts"]
        for test in load_yaml("deploy/prometheus/tests.yml")["tests"]
        for case in test.get("alert_rule_test", [])
        if case["alertname"] == name
    ]
    assert any(cases)


def test_the_runbook_has_no_section_or_row_of_an_alert_that_is_gone() -> None:
    runbook = read("deploy/RUNBOOK.md")
    names = {rule["alert"] for rule in ALERTS}
    assert set(re.findall(r"^## (Packlight\w+)$", runbook, flags=re.MULTILINE)) == names
    assert set(re.findall(r"^\| \[(\w+)\]", runbook, flags=re.MULTILINE)) == names


def test_prometheus_finds_what_compose_mounts() -> None:
    config, compose = load_yaml("deploy/prometheus/prometheus.yml"), load_yaml("docker-compose.yml")
    assert config["rule_files"] == ["recording.yml", "alerts.yml"]
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "packlight")
    assert job["static_configs"] == [{"targets": ["packlight:8000"]}]
    key = f"/etc/prometheus/{job['authorization']['credentials_file']}:ro"
    assert any(volume.endswith(key) for volume in compose["services"]["prometheus"]["volumes"])
    assert read("deploy/prometheus/scrape_key") == "", "a key has been committed"
