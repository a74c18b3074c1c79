"""Where a session lives, and when it may leave. Over real handles: `tests/ray/test_handles.py`."""

from collections import Counter

from serve_app.deployments.session_router import home

REPLICAS = ["a", "b", "c", "d"]
SESSIONS = [f"session-{number}" for number in range(2000)]


def test_a_session_has_one_home_whatever_the_order_of_the_replicas() -> None:
    assert {home("s-1", order) for order in (REPLICAS, REPLICAS[::-1], set(REPLICAS))} == {home("s-1", REPLICAS)}


def test_sessions_spread_evenly() -> None:
    counts = Counter(home(session, REPLICAS) for session in SESSIONS)
    assert set(counts) == set(REPLICAS)
    assert max(counts.values()) < 1.2 * len(SESSIONS) / len(REPLICAS)


def test_a_replica_that_goes_moves_only_its_own_sessions() -> None:
    left = [replica for replica in REPLICAS if replica != "c"]
    for session in SESSIONS:
        before = home(session, REPLICAS)
        assert before == "c" or home(session, left) == before


def test_any_text_may_name_a_session() -> None:
    assert home("\ud800\0é", REPLICAS) in REPLICAS
