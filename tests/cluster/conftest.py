"""One fleet for the tests of a module; each test brings it to the shape that it needs. The long forms run with `-m chaos` only."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.report import Report
from tests.cluster.fleet import Fleet


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet() as fleet:
        yield fleet


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Where the chaos suite keeps its figures, too."""
    given = os.environ.get("TIERWISE_CHAOS_REPORT")
    return Report(Path(given) if given else tmp_path_factory.mktemp("report") / "cluster.jsonl")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.ray)
        item.add_marker(pytest.mark.filterwarnings("default"))  # Ray's own, in this process
    if "chaos" not in config.option.markexpr:
        long = [item for item in ours if item.get_closest_marker("chaos")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
