import pytest

from tests.cluster_files import placement
from tests.cluster_files.placement import Part


@pytest.fixture(scope="session")
def parts() -> list[Part]:
    """The graph of the g6e profile, as it is built."""
    return placement.graph(placement.cluster_config())
