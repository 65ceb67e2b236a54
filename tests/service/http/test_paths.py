from service.http.paths import PATHS
from tests.service.running import Running


def test_metrics_and_the_log_name_every_route(server: Running) -> None:
    """A route that is missing counts as `other`."""
    routes = {path.partition("/{")[0] for path in server.http.get("/openapi.json").json()["paths"]}
    assert routes
    assert routes <= set(PATHS)
