"""The cost exporter as an application of its own beside the graph, on the head node, where Ray's list of nodes is.

It answers Prometheus on `exporter.host` and `exporter.port` of that node, as `tierwise cost-exporter` does.
"""

from typing import Any

from ray import serve
from ray.serve import Application

from serve_app.settings import Settings, parse

HEAD = "node:__internal_head__"  # Ray's own name of a resource that only the head has


class CostExporter:
    """One replica: two would each charge the whole fleet."""

    def __init__(self, settings: Settings) -> None:
        from serve_app.observe.exporter import Serving  # noqa: PLC0415 - opens a port: in the replica, not where the graph is built

        self._serving = Serving(settings)

    def port(self) -> int:
        return self._serving.port

    def check_health(self) -> None:
        """Serve replaces a replica one of whose threads has died."""
        if not self._serving.alive():
            raise RuntimeError("the cost exporter stopped")

    def __del__(self) -> None:
        """Free the port for the replica that comes next."""
        if hasattr(self, "_serving"):
            self._serving.close()


def build(args: dict[str, Any]) -> Application:
    """`args` are those of the graph's application."""
    deployment = serve.deployment(
        CostExporter,
        name="CostExporter",
        num_replicas=1,
        ray_actor_options={"num_cpus": 0, "resources": {HEAD: 0.001}},
        logging_config={"enable_access_log": False},
    )
    return deployment.bind(parse(args))
