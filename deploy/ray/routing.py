"""Which replica gets the next request: the one with the fewest outstanding tokens."""

import random
from collections.abc import Sequence

from ray.serve.request_router import FIFOMixin, PendingRequest, RequestRouter, RunningReplica


class OutstandingTokens(FIFOMixin, RequestRouter):  # type: ignore[misc]
    """Ranks replicas by their requests, which the proxy counts as they come and go, times the tokens that a request of
    each had when it last reported (`Replica.record_routing_stats`).

    The reports are up to a second old. By themselves they would send all requests of that second to one replica.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        if pending_request is not None:
            # All replicas are tried in one round. Before another one, the router waits.
            pending_request.routing_context.should_backoff = True
        requests = [self.replica_queue_len_cache.get(replica.replica_id) or 0 for replica in candidate_replicas]
        stats = [replica.routing_stats for replica in candidate_replicas]
        loads = outstanding_tokens(requests, [report.get("tokens_per_request") for report in stats])
        # Equal ones in a new order each time.
        order = sorted(range(len(loads)), key=lambda index: (loads[index], random.random()))
        return [[candidate_replicas[index]] for index in order]


def outstanding_tokens(requests: Sequence[int], tokens_per_request: Sequence[float | None]) -> list[float]:
    """One number for each replica. A replica without a report is taken to have requests like those of the others."""
    known = [tokens for tokens in tokens_per_request if tokens]
    usual = sum(known) / len(known) if known else 1.0
    return [count * (tokens or usual) for count, tokens in zip(requests, tokens_per_request, strict=True)]
