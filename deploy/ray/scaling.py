"""How many replicas the queued tokens ask for. Pure: Serve's controller calls it, and delays and bounds its answer."""

import math
from typing import Any

from ray.serve.config import AutoscalingContext


class QueuedTokens:
    """As many replicas as would work off all queued tokens in `target_queue_s`, at the rate that replicas measure."""

    def __init__(self, target_queue_s: float = 2.0) -> None:
        self._target_queue_s = target_queue_s

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Without figures from the replicas, as many as before."""
        metrics = context.aggregated_metrics or {}
        queued, rates = metrics.get("queued_tokens", {}), metrics.get("tokens_per_s", {})
        rate = sum(rates.values()) / len(rates) if rates else 0.0
        if not queued or not rate:
            return context.target_num_replicas, {}
        return math.ceil(sum(queued.values()) / (rate * self._target_queue_s)), {}
