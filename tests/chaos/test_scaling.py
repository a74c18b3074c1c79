"""The long form of `tests/ray/test_scaling.py`: streams of three minutes."""

import time
from collections.abc import Iterator

import pytest

from tests.graph import Graph
from tests.ray.scaling import scaled_graph, scenario


@pytest.fixture
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    with scaled_graph(tmp_path_factory.mktemp("scaled")) as started:
        yield started


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_streams_of_three_minutes_survive_a_scale_in_and_an_update_of_their_deployment(scaled: Graph) -> None:
    begun = time.monotonic()
    scenario(scaled, 180, lambda text: print(f"{time.monotonic() - begun:6.1f} s  {text}"))
