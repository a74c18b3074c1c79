"""Which graph a test of the suite runs on, and where its figures go.

Tests marked `chaos` are the long forms: they run when the marker is asked for (`make chaos`), and never otherwise.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.chaos.report import Report
from tests.chaos.requests import CHAT
from tests.chaos.stage import Stage
from tests.graph import Graph, wait_for


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    given = os.environ.get("TIERWISE_CHAOS_REPORT")
    return Report(Path(given) if given else tmp_path_factory.mktemp("report") / "chaos.jsonl")


@pytest.fixture
def fake(stage: Stage) -> Graph:
    return whole(stage.graph("default"))


@pytest.fixture(params=["default", "throughput"])
def either(request: pytest.FixtureRequest, stage: Stage) -> tuple[str, Graph]:
    """The fake graph on each of Serve's transports."""
    return f"fake, {request.param}", whole(stage.graph(request.param))


@pytest.fixture
def real(stage: Stage) -> Graph:
    return whole(stage.graph("vllm"), 240)


def whole(graph: Graph, seconds: float = 60.0) -> Graph:
    """What the last test broke must be back, and trusted again, before the next one breaks something."""

    def ready() -> bool:
        try:
            with httpx.Client(base_url=graph.url, timeout=10, trust_env=False) as http:
                body = http.get("/ready").json()
                tiers = http.get("/status").json()["tiers"]
                for name in (name for name, tier in tiers.items() if tier["breaker"] != "closed"):
                    http.post(CHAT, json={"model": name, "messages": [{"role": "user", "content": "are you back?"}], "max_tokens": 2})
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return all({**body["tiers"], **body["signals"]}.values()) and all(tier["breaker"] == "closed" for tier in tiers.values())

    wait_for(ready, seconds, "every part of the graph to be ready")
    return graph


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Graph by graph, so that each starts once; the long forms only when they are asked for."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        if _graph(item) < 3:
            item.add_marker(pytest.mark.ray)
        if _graph(item) == 2:
            item.add_marker(pytest.mark.vllm)
    long = [item for item in ours if item.get_closest_marker("chaos")]
    if "chaos" not in config.option.markexpr:
        config.hook.pytest_deselected(items=long)
    kept = [item for item in ours if item not in long or "chaos" in config.option.markexpr]
    first = next((i for i, item in enumerate(items) if item in ours), len(items))
    others = [item for item in items if item not in ours]
    items[:] = [*others[:first], *sorted(kept, key=_graph), *others[first:]]


def _graph(item: pytest.Item) -> int:
    """0 and 1: the fake graph by transport; 2: the real one; 3: none."""
    names = getattr(item, "fixturenames", [])
    if "real" in names:
        return 2
    if "either" in names and "throughput" in item.name:
        return 1
    return 0 if {"fake", "either"} & set(names) else 3
