"""The Serve application: `serve run deploy/ray/serve.yaml`, or `serve run deploy.ray.serve_app:app`."""

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig, RequestRouterConfig

from deploy.ray.replica import Replica

app = serve.deployment(
    name="Packlight",
    # Serve's default of 5 would keep packs small. What is too much, the replica's own admission refuses.
    max_ongoing_requests=1024,
    max_queued_requests=256,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
    request_router_config=RequestRouterConfig(
        request_router_class="deploy.ray.routing:OutstandingTokens", request_routing_stats_period_s=1
    ),
    autoscaling_config=AutoscalingConfig(
        min_replicas=1, max_replicas=4, policy=AutoscalingPolicy(policy_function="deploy.ray.scaling:QueuedTokens")
    ),
    health_check_period_s=5,
    # Longer than `default_timeout_ms`, by when every request has an answer.
    graceful_shutdown_timeout_s=40,
)(Replica).bind()
