"""What changes live restarts nothing, and a stream outlives whatever happens to its replica."""

from collections.abc import Iterator

import pytest

from tests.graph import Graph
from tests.ray.scaling import scaled_graph, scenario


@pytest.fixture
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    with scaled_graph(tmp_path_factory.mktemp("scaled")) as started:
        yield started


def test_thresholds_and_bounds_change_live_and_streams_survive_scale_in_and_update(scaled: Graph) -> None:
    scenario(scaled, 14, print)
