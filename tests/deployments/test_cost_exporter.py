"""The cost exporter inside Serve: one replica that answers Prometheus and is replaced when it stops."""

import json
from pathlib import Path

import httpx
import pytest
from ray.serve import Deployment

from serve_app.deployments.cost_exporter import HEAD, CostExporter, build
from serve_app.settings import parse


@pytest.fixture
def discovery(tmp_path: Path) -> Path:
    path = tmp_path / "discovery.json"
    path.write_text(json.dumps([{"targets": ["127.0.0.1:1"]}]))
    return path


def test_it_answers_and_says_when_it_has_stopped(discovery: Path) -> None:
    exporter = {"port": 0, "discovery": str(discovery), "state": ""}
    replica = CostExporter(parse({"profile": "g6e", "exporter": exporter}))
    replica.check_health()
    page = httpx.get(f"http://127.0.0.1:{replica.port()}/metrics", trust_env=False).text
    assert 'tierwise_cost_prices_info{date="2026-02",region="us-east-1"} 1.0' in page
    replica._serving.close()
    with pytest.raises(RuntimeError, match="stopped"):
        replica.check_health()


def test_it_is_one_replica_on_the_head_node() -> None:
    bound = build({"profile": "g6e"})._bound_deployment
    assert isinstance(bound, Deployment)
    assert (bound.name, bound.num_replicas) == ("CostExporter", 1)
    assert bound.ray_actor_options == {"num_cpus": 0, "resources": {HEAD: 0.001}}
