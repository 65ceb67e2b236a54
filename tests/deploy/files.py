"""The deployment's files, read."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "packlight.json"


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def load_yaml(path: str) -> Any:
    return yaml.safe_load(read(path))


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def rules(path: str) -> list[dict[str, Any]]:
    return [rule for group in load_yaml(f"deploy/prometheus/{path}")["groups"] for rule in group["rules"]]


def metric_names(expr: str) -> set[str]:
    """What an expression asks for, by names that only a server or a recording rule gives."""
    return set(re.findall(r"\b(?:packlight[_:]|process_)[\w:]+", expr))
