"""The fake graph on each of Serve's transports: handles behave differently on them, the endpoint must not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.graph import REPO, Graph, running, wait_for

TRANSPORTS = {"default": {}, "throughput": {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}}


def fake_config() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((REPO / "deployments.yaml").read_text())
    application = config["applications"][0]
    application["import_path"] = "tests.ray.fake_graph:build"
    application["args"] = {"profile": "local", "router": {"assess_deadline_s": 0.25, "embed_deadline_s": 5.0}}
    config["applications"].append({"name": "probe", "import_path": "tests.ray.probe:build", "route_prefix": "/probe", "args": {}})
    return config


@pytest.fixture(scope="session", params=list(TRANSPORTS))
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    folder = tmp_path_factory.mktemp(request.param)
    with running(folder, fake_config(), env=TRANSPORTS[request.param], timeout=200) as started:
        wait_for(lambda: httpx.get(f"{started.url}/probe/pids?count=0", timeout=10).status_code == 200, 60, "the probe")
        yield started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ray)
