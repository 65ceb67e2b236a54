"""Sets of values for the Helm chart: those that `check_chart` renders, and those that the chart has to refuse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HUB_ID = "google/siglip2-base-patch16-naflex"
# Kinds that every set of values gives.
ALWAYS = frozenset({"Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"})


@dataclass(frozen=True, slots=True)
class Case:
    """Values, and the kinds beside `ALWAYS` that they ask for."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] = ()
    kinds: frozenset[str] = frozenset()


def _scaled(*, keda: bool, **more: Any) -> dict[str, Any]:
    return {"autoscaling": {"enabled": True, "keda": {"enabled": keda}}, **more}


CASES = (
    Case("cpu"),
    Case("gpu", files=["values-gpu.yaml"]),
    Case("cpu-hpa", _scaled(keda=False), kinds=frozenset({"HorizontalPodAutoscaler"})),
    Case("gpu-hpa", _scaled(keda=False), ["values-gpu.yaml"], frozenset({"HorizontalPodAutoscaler"})),
    Case("cpu-keda", _scaled(keda=True), kinds=frozenset({"ScaledObject"})),
    Case(
        "gpu-keda",
        _scaled(keda=True, settings={"devices": "cuda:0,cuda:1"}, resources={"limits": {"nvidia.com/gpu": 2}}),
        ["values-gpu.yaml"],
        frozenset({"ScaledObject"}),
    ),
    Case("fetched", {"settings": {"model": HUB_ID, "revision": "main"}, "model": {"tokenSecret": "hub"}}),
    Case(
        "volume",
        {"settings": {"model": HUB_ID}, "model": {"cache": "pvc"}, "auth": {"keys": ["a", "b"]}},
        kinds=frozenset({"PersistentVolumeClaim", "Secret"}),
    ),
    Case("claim", {"settings": {"model": HUB_ID}, "model": {"cache": "pvc", "pvc": {"existingClaim": "models"}}}),
    Case("baked", {"model": {"cache": "baked"}, "auth": {"existingSecret": "keys"}}),
    Case("bulk", {"auth": {"keys": ["a"], "bulkKeys": ["b", "c"]}}, kinds=frozenset({"Secret"})),
    Case("bulk-secret", {"auth": {"existingSecret": "keys", "existingBulkSecret": "keys"}}),
    Case(
        "watched",
        {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "auth": {"existingSecret": "keys"}},
        kinds=frozenset({"ServiceMonitor", "PrometheusRule"}),
    ),
    Case(
        "ingress",
        {
            "ingress": {"enabled": True, "className": "nginx", "hosts": [{"host": "embed.example.com"}]},
            "service": {"headless": False},
            "networkPolicy": {"from": [{"podSelector": {}}]},
        },
        kinds=frozenset({"Ingress"}),
    ),
    Case("unlimited", {"resources": {"limits": {"cpu": None}}, "preStopSeconds": 0, "settings": {"drain_s": 2.5}}),
)
# What the chart has to refuse, and a word of why.
REFUSED: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("replicacount", {"replicacount": 1}),
    ("'port'", {"settings": {"port": 9000}}),
    ("'api_keys'", {"settings": {"api_keys": "secret"}}),
    ("'Model'", {"settings": {"Model": "x"}}),
    ("/settings/drain_s", {"settings": {"drain_s": "30s"}}),
    ("/env/0/name", {"env": [{"name": "PACKLIGHT_MODEL", "value": "x"}]}),
    ("/image/variant", {"image": {"variant": "rocm"}}),
    ("/autoscaling/keda/backlogMs", {"autoscaling": {"keda": {"backlogMs": 0.5}}}),
    ("/podDisruptionBudget/maxUnavailable", {"podDisruptionBudget": {"maxUnavailable": 0}}),
    ("model.cache is baked", {"model": {"cache": "baked"}, "settings": {"model": HUB_ID}}),
    ("not both", {"auth": {"keys": ["a"], "existingSecret": "b"}}),
    ("'bulk_keys_file'", {"settings": {"bulk_keys_file": "/keys"}}),
    ("all requests would be bulk", {"auth": {"existingBulkSecret": "b"}}),
    ("not both", {"auth": {"keys": ["a"], "bulkKeys": ["b"], "existingBulkSecret": "c"}}),
)
