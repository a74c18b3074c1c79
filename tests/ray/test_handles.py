"""The handle side on both transports: settlement, sessions, and the connect phase. `probe.py` plays the ingress."""

from typing import Any

import httpx
import pytest

from tests.graph import Graph


def probe(graph: Graph, scenario: str, **query: Any) -> dict[str, Any]:
    answer = httpx.get(f"{graph.url}/probe/{scenario}", params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("what", "query"),
    [
        ("a stream that is left after a few items", {"text": "small:endless", "stream": "yes", "items": 5}),
        ("a stream whose reader is cancelled", {"text": "small:endless", "stream": "yes", "seconds": 0.5}),
        ("a plain answer that nobody waits for", {"text": "small:endless", "stream": "no", "seconds": 0.5}),
        ("a stream that was read to its end", {"text": "one two three", "stream": "yes"}),
        ("a plain answer that arrived", {"text": "one two three", "stream": "no"}),
    ],
)
def test_what_a_generation_used_is_what_the_engine_counted(graph: Graph, what: str, query: dict[str, Any]) -> None:
    told = probe(graph, "cut", **query)
    assert told["used"] == told["moved"], what
    assert told["used"][0] == 5
    assert told["used"][1] >= 3


def test_a_generation_that_is_left_before_its_first_token_used_nothing(graph: Graph) -> None:
    told = probe(graph, "cut", text="small:prefill", stream="yes", seconds=0.5)
    assert told == {"used": [0, 0], "moved": [0, 0]}


def test_what_no_replica_knows_is_none_after_a_few_seconds(graph: Graph) -> None:
    assert probe(graph, "unknown") == {"used": None}


def test_a_session_stays_with_one_replica(graph: Graph) -> None:
    homes = {session: set(probe(graph, "pids", count=20, session=session)["pids"]) for session in ("a", "b", "c", "d", "e", "f")}
    assert {len(pids) for pids in homes.values()} == {1}, homes


def test_requests_without_a_session_spread(graph: Graph) -> None:
    assert len(set(probe(graph, "pids", count=20)["pids"])) == 2


def test_a_session_goes_elsewhere_while_its_replica_is_full(graph: Graph) -> None:
    pids = probe(graph, "spill", session="a")
    assert pids["while_full"] != pids["before"]
    assert pids["after"] == pids["before"]


def test_a_busy_tier_is_backpressure_and_still_reports(graph: Graph) -> None:
    told = probe(graph, "busy", tier="narrow")
    assert told["taken"] in {1, 2}
    assert (told["told"], told["reports"], told["after"]) == ("Overloaded: The model is busy.", True, "answered")


def test_a_tier_whose_replicas_do_not_run_is_a_timeout(graph: Graph) -> None:
    assert probe(graph, "stopped", tier="narrow") == {"told": "EngineTimeout: No replica took the request in time."}
