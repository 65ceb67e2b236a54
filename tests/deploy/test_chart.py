"""What of the chart needs no Helm. `make deploy-check` renders it."""

import json
import re
from collections.abc import Iterator
from typing import Any

from deploy.version import version
from service.processes import supervisor
from service.processes.reloading import engines
from service.settings.settings import Settings
from tests.deploy.files import DEPLOY, load_yaml, read

CHART = DEPLOY / "helm" / "packlight"
VALUES = load_yaml("deploy/helm/packlight/values.yaml")
GPU = load_yaml("deploy/helm/packlight/values-gpu.yaml")
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
ENVOY = load_yaml("deploy/balancer/envoy.yaml")["static_resources"]


def of_schema(schema: dict[str, Any], place: str = "") -> Iterator[str]:
    """The places that closed objects of a schema have, with a dot before each name."""
    for name, inner in schema["properties"].items():
        yield f"{place}.{name}"
        if inner.get("additionalProperties") is False:
            yield from of_schema(inner, f"{place}.{name}")


def of_values(values: dict[str, Any], place: str = "") -> Iterator[str]:
    for name, inner in values.items():
        yield f"{place}.{name}"
        if isinstance(inner, dict):
            yield from of_values(inner, f"{place}.{name}")


def test_the_schema_and_the_values_have_the_same_places() -> None:
    # `global` is Helm's own, and claims are Kubernetes'.
    assert set(of_schema(SCHEMA)) - set(of_values(VALUES)) == {".global", ".resources.claims"}
    assert VALUES.keys() < SCHEMA["properties"].keys()


def test_values_for_a_gpu_change_values_that_are_there() -> None:
    new = set(of_values(GPU)) - set(of_values(VALUES))
    assert new == {".resources.limits.nvidia.com/gpu", ".settings.devices"}
    assert GPU["image"]["variant"] == GPU["settings"]["devices"] == "cuda"


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = load_yaml("deploy/helm/packlight/Chart.yaml")
    assert chart["version"] == chart["appVersion"] == version()


def test_the_rules_are_those_of_compose_and_their_cases_stay_out() -> None:
    rules = CHART / "rules"
    assert {path.name for path in rules.iterdir()} == {"recording.yml", "alerts.yml"}
    for path in rules.iterdir():
        assert path.resolve() == DEPLOY / "prometheus" / path.name


def test_the_grace_period_outlasts_what_a_server_takes_after_it_has_drained() -> None:
    grace = re.search(
        r"add \.Values\.preStopSeconds .* (\d+) \}\}", read("deploy/helm/packlight/templates/_helpers.tpl")
    )
    assert grace is not None
    assert int(grace[1]) > supervisor._LAST_WORDS_S + engines._CLOSE_S
    assert VALUES["settings"]["drain_s"] == Settings.model_fields["drain_s"].default


def test_the_chart_runs_as_the_user_of_the_image() -> None:
    assert f"\nUSER {VALUES['podSecurityContext']['runAsUser']}\n" in read("Dockerfile")


def test_the_balancer_is_more_patient_than_the_server_and_keeps_bodies_as_large() -> None:
    (filters,) = (chain["filters"] for chain in ENVOY["listeners"][0]["filter_chains"])
    manager = filters[0]["typed_config"]
    (host,) = manager["route_config"]["virtual_hosts"]
    route = host["routes"][-1]["route"]
    default = {name: field.default for name, field in Settings.model_fields.items()}
    assert host["request_body_buffer_limit"] == default["max_upload_bytes"]
    assert float(route["timeout"].rstrip("s")) > default["default_timeout_ms"] / 1000
    assert float(manager["request_timeout"].rstrip("s")) > default["upload_timeout_ms"] / 1000
