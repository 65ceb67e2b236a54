"""Renders the Helm chart for several sets of values, and checks what comes out without a cluster.

Every object is held against Kubernetes' own schemas, of the oldest release that the chart takes and of the newest
known. Custom resources are held against models made from their definitions. Runs in an environment of its own, which
`deploy/check.sh` makes: Helm's engine as a library (helm-python-sdk), kubernetes-validate and cloudcoil's models.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor
from helm_python import Chart, HelmError, lint

from deploy.chart_cases import ALWAYS, CASES, REFUSED, Case
from service.settings.loading import load_settings
from service.settings.names import PREFIX
from service.settings.settings import Settings

CHART = Path(__file__).parent / "helm" / "packlight"
BALANCER = Path(__file__).parent / "balancer" / "kubernetes.yaml"
NAMESPACE, RELEASE = "ml", "demo"
# The oldest that Chart.yaml takes, and the newest that kubernetes-validate has.
RELEASES = ("1.27", "1.37")
CUSTOM = {"ScaledObject": ScaledObject, "ServiceMonitor": ServiceMonitor, "PrometheusRule": PrometheusRule}
# Packlight's own: the HTTP processes, then the engines, have so long after `drain_s`.
LAST_WORDS_S = 5 + 12

Manifest = dict[str, Any]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm lays one file of values over another."""
    both = {key: merged(base[key], over[key]) for key in base.keys() & over.keys() if isinstance(over[key], dict)}
    return {**base, **over, **both}


def rendered(chart: Chart, case: Case) -> list[Manifest]:
    values: dict[str, Any] = {}
    for name in case.files:
        values = merged(values, yaml.safe_load((CHART / name).read_text(encoding="utf-8")))
    texts = chart.render(merged(values, case.values), name=RELEASE, namespace=NAMESPACE)
    documents = [text for path, text in texts.items() if not path.endswith("NOTES.txt")]
    return [manifest for text in documents for manifest in yaml.safe_load_all(text) if manifest]


def schema_faults(manifests: Sequence[Manifest]) -> Iterator[str]:
    for manifest in manifests:
        kind = manifest["kind"]
        if model := CUSTOM.get(kind):
            yield from _custom_faults(manifest, model)
            continue
        for release in RELEASES:
            try:
                kubernetes_validate.validate(manifest, release, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                yield f"{kind}, Kubernetes {release}: {error.message}"


def _custom_faults(manifest: Manifest, model: Any) -> Iterator[str]:
    """What the model refuses, or does not know: it drops that, and Kubernetes would too."""
    known = json.loads(json.dumps(manifest))
    # Of KEDA 2.17; the models are those of 2.16, the newest that Python 3.11 has.
    known.get("spec", {}).get("fallback", {}).pop("behavior", None)
    try:
        kept = model.model_validate(known).model_dump(by_alias=True, exclude_unset=True, mode="json")
    except ValueError as error:
        yield f"{manifest['kind']}: {error}"
        return
    if kept["spec"] != known["spec"]:
        yield f"{manifest['kind']}: unknown fields, or of another type: {known['spec']} became {kept['spec']}"


def of_kind(manifests: Sequence[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def pod_faults(manifests: Sequence[Manifest]) -> Iterator[str]:
    """What holds for every set of values, and no schema says."""
    (deployment,) = of_kind(manifests, "Deployment")
    pod, labels = deployment["spec"]["template"]["spec"], deployment["spec"]["template"]["metadata"]["labels"]
    (server,) = pod["containers"]
    environment = {entry["name"]: entry.get("value", "4") for entry in server["env"]}
    stop_s = float(server["lifecycle"]["preStop"]["exec"]["command"][1])
    if pod["terminationGracePeriodSeconds"] < stop_s + float(environment[f"{PREFIX}DRAIN_S"]) + LAST_WORDS_S:
        yield "the grace period is shorter than preStop, drain_s and the end of all processes"
    for container in (server, *pod.get("initContainers", [])):
        context = container["securityContext"]
        if not (context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}):
            yield f"{container['name']} is not hardened as in docker-compose.yml"
        if {"/tmp", "/models"} > {mount["mountPath"] for mount in container["volumeMounts"]}:
            yield f"{container['name']} has nowhere to write"
    if not pod["securityContext"]["runAsNonRoot"] or pod["automountServiceAccountToken"] or pod["enableServiceLinks"]:
        yield "the pod runs as root, holds a token, or is given variables of Services"
    for manifest in manifests:
        wanted = _selected(manifest)
        if manifest["kind"] != "ServiceMonitor" and not wanted.items() <= labels.items():
            yield f"{manifest['kind']} selects {wanted}, and pods have {labels}"
    mine = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    for name in ("API_KEYS_FILE", "BULK_KEYS_FILE"):
        path = mine.pop(f"{PREFIX}{name}", None)
        if path and not _mounted(pod, server, path):
            yield f"{name} is {path}, which no Secret brings"
    load_settings({name.removeprefix(PREFIX).lower(): value for name, value in mine.items()}, names=mine)


def _mounted(pod: Manifest, container: Manifest, path: str) -> bool:
    """Whether a Secret brings the file at `path`."""
    folder, _, file = path.rpartition("/")
    (volume,) = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == folder] or [None]
    secrets = {each["name"]: each["secret"] for each in pod["volumes"] if "secret" in each}
    return volume in secrets and file in {item["path"] for item in secrets[volume]["items"]}


def _selected(manifest: Manifest) -> dict[str, str]:
    spec = manifest.get("spec", {})
    selector = spec.get("selector") or spec.get("podSelector") or {}
    return dict(selector.get("matchLabels", selector))


def watching_faults(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Faults of what scrapes and scales."""
    for monitor in of_kind(manifests, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        services = [service["metadata"]["labels"] for service in of_kind(manifests, "Service")]
        if sum(wanted.items() <= labels.items() for labels in services) != 1:
            yield "the ServiceMonitor has to select one Service, or each pod is counted twice"
    for scaled in of_kind(manifests, "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            metadata = trigger["metadata"]
            if trigger["metricType"] != "AverageValue" or metadata["ignoreNullValues"] != "false":
                yield f"{trigger['name']}: no fallback, or no answer counts as 0"
            if not metadata["threshold"].isdigit():
                yield f"{trigger['name']}: KEDA cuts off the fraction of {metadata['threshold']} where it falls back"
    scaled_by = of_kind(manifests, "ScaledObject") + of_kind(manifests, "HorizontalPodAutoscaler")
    (deployment,) = of_kind(manifests, "Deployment")
    if bool(scaled_by) == ("replicas" in deployment["spec"]):
        yield "the Deployment has to leave the number of its replicas to what scales it, and to it alone"


def case_faults(chart: Chart, case: Case) -> Iterator[str]:
    manifests = rendered(chart, case)
    kinds = {manifest["kind"] for manifest in manifests}
    if kinds != ALWAYS | case.kinds:
        yield f"kinds: {sorted(kinds ^ (ALWAYS | case.kinds))}"
    for check in (schema_faults, pod_faults, watching_faults):
        yield from check(manifests)


def refusal_faults(chart: Chart) -> Iterator[str]:
    for word, values in REFUSED:
        try:
            chart.render(dict(values), name=RELEASE)
        except HelmError as error:
            if word not in str(error):
                yield f"{values} is refused without {word}: {error}"
        else:
            yield f"{values} is not refused"


def settings_faults(chart: Chart) -> Iterator[str]:
    """Every setting has to pass through the values as it is."""
    given = {"max_upload_bytes": 33554432, "deterministic": True, "drain_s": 2.5, "url_allowlist": ["a.com", "b.com"]}
    fixed = {"host", "port", "api_keys", "api_keys_file", "bulk_keys", "bulk_keys_file"}
    named = dict.fromkeys(Settings.model_fields.keys() - given.keys() - fixed - {"model"}, "x")
    (deployment,) = of_kind(rendered(chart, Case("settings", {"settings": {**named, **given}})), "Deployment")
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    passed = {entry["name"]: entry["value"] for entry in environment if entry["name"].startswith(PREFIX)}
    texts = {"max_upload_bytes": "33554432", "deterministic": "true", "drain_s": "2.5", "url_allowlist": "a.com,b.com"}
    wanted = {f"{PREFIX}{name.upper()}": value for name, value in {**named, **texts, "log_format": "x"}.items()}
    if passed != wanted:
        yield f"settings: {passed.items() ^ wanted.items()}"


def write(chart: Chart, folder: Path) -> None:
    """What other tools try: the queries by their names, the container that fetches, and the rules."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = {case.name: rendered(chart, case) for case in CASES}
    (scaled,) = of_kind(cases["cpu-keda"], "ScaledObject")
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]}
    (deployment,) = of_kind(cases["fetched"], "Deployment")
    (rule,) = of_kind(cases["watched"], "PrometheusRule")
    (folder / "queries.json").write_text(json.dumps(queries), encoding="utf-8")
    fetch = deployment["spec"]["template"]["spec"]["initContainers"][0]
    (folder / "fetch.json").write_text(json.dumps(fetch), encoding="utf-8")
    (folder / "rules.yml").write_text(yaml.safe_dump(rule["spec"]), encoding="utf-8")


def main() -> int:
    """0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description="Renders the Helm chart and checks it.", allow_abbrev=False)
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="where queries.json, fetch.json and rules.yml go")
    folder: Path | None = parser.parse_args().write
    with Chart.load(CHART) as chart:
        faults = [f"{case.name}: {fault}" for case in CASES for fault in case_faults(chart, case)]
        faults += [*refusal_faults(chart), *settings_faults(chart)]
        faults += lint(CHART, strict=True)["errors"]
        faults += schema_faults([*yaml.safe_load_all(BALANCER.read_text(encoding="utf-8"))])
        if folder:
            write(chart, folder)
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    sys.stdout.write(f"{len(CASES)} sets of values, {len(REFUSED)} to refuse: {len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
