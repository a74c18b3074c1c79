import pytest


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell that runs the tests may be set up for a cluster."""
    for name in ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED", "TIERWISE_API_KEYS", "TIERWISE_LEDGER_URL"):
        monkeypatch.delenv(name, raising=False)
