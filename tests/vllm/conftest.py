"""One running graph with real vLLM engines, shared by every test here: its start is the suite's largest cost.

While writing tests, `TIERWISE_TEST_URL=http://127.0.0.1:8000` uses a graph that runs already.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.graph import REPO, Graph, running


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    folder = tmp_path_factory.mktemp("graph")
    if url := os.environ.get("TIERWISE_TEST_URL"):
        yield Graph(url, folder / "serve.log", REPO / "deployments.yaml", None, dict(os.environ))
        return
    config = yaml.safe_load((REPO / "deployments.yaml").read_text())
    with running(folder, config, timeout=400) as started:
        yield started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.ray)
