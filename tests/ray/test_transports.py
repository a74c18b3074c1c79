"""The whole path through real Serve handles, on both transports, with scripted engines."""

import json
import time
from typing import Any

import httpx
import pytest
import yaml

from tests.graph import Graph, wait_for

EASY = "hello there, thanks a lot"
LEAK = ("secret", "Traceback", "RayTaskError", "ValueError")


def chat(graph: Graph, text: str, **options: Any) -> httpx.Response:
    body = {"model": options.pop("model", "auto"), "messages": [{"role": "user", "content": text}], **options}
    return httpx.post(f"{graph.url}/v1/chat/completions", json=body, timeout=60)


def events(text: str) -> list[Any]:
    payloads = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


def receipt(graph: Graph, decision_id: str) -> dict[str, Any]:
    return httpx.get(f"{graph.url}/v1/decisions/{decision_id}", timeout=30).json()


def tier(graph: Graph, name: str) -> dict[str, Any]:
    return httpx.get(f"{graph.url}/status", timeout=30).json()["tiers"][name]


def test_a_plain_answer_is_in_the_ledger_at_once(graph: Graph) -> None:
    answer = chat(graph, EASY)
    told = answer.json()["tierwise"]
    assert (answer.status_code, told["tier"], told["reason"]) == (200, "small", "score_below")
    assert receipt(graph, told["decision_id"])["usage"]["completion_tokens"] == 5


def test_a_stream_arrives_piece_by_piece_and_ends_with_the_receipt(graph: Graph) -> None:
    body = {"model": "small", "messages": [{"role": "user", "content": "w " * 50}], "stream": True}
    with httpx.stream("POST", f"{graph.url}/v1/chat/completions", json=body, timeout=60) as answer:
        arrivals = [(time.monotonic(), piece) for piece in answer.iter_text()]
    parsed = events("".join(piece for _, piece in arrivals))
    assert len(arrivals) > 5, "one message would mean that something buffers the stream"
    assert arrivals[-1][0] - arrivals[0][0] > 0.5
    assert parsed[-1] == "[DONE]"
    assert parsed[-2]["tierwise"]["usage"]["completion_tokens"] == 50
    assert [chunk for chunk in parsed[:-2] if "usage" in chunk or "tierwise" in chunk] == []


def test_a_refusal_of_the_engine_is_the_clients_400(graph: Graph) -> None:
    answer = chat(graph, "small:refuse", model="small")
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "temperature: the engine does not like it",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": None,
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_small_tier_that_breaks_before_its_first_byte_is_replaced_by_the_large_one(graph: Graph, stream: bool) -> None:
    answer = chat(graph, "small:raise please", model="small", stream=stream)
    told = events(answer.text)[-2]["tierwise"] if stream else answer.json()["tierwise"]
    assert (told["tier"], told["reason"], told["attempts"]) == ("large", "fallback_engine_error", 2)
    stored = receipt(graph, told["decision_id"])
    assert [(a["tier"], a["outcome"]) for a in stored["attempts"]] == [("small", "failed"), ("large", "ok")]


def test_a_large_tier_that_breaks_is_a_502_without_internal_text(graph: Graph) -> None:
    answer = chat(graph, "large:raise", model="large")
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "api_error"
    assert not any(word in answer.text for word in LEAK)
    assert receipt(graph, answer.headers["x-tierwise-decision-id"])["outcome"] == "failed"


def test_a_stream_that_breaks_ends_with_an_error_event(graph: Graph) -> None:
    answer = chat(graph, "large:break after three words or so", model="large", stream=True)
    parsed = events(answer.text)
    assert answer.status_code == 200
    assert parsed[-1] == "[DONE]"
    assert parsed[-2]["error"]["type"] == "api_error"
    assert not any(word in answer.text for word in LEAK)
    assert receipt(graph, parsed[-2]["tierwise"]["decision_id"])["attempts"][0]["outcome"] == "failed"


def test_a_client_that_leaves_stops_the_engine_and_is_recorded(graph: Graph) -> None:
    body = {"model": "large", "messages": [{"role": "user", "content": "large:endless"}], "stream": True}
    with httpx.stream("POST", f"{graph.url}/v1/chat/completions", json=body, timeout=60) as answer:
        decision_id = answer.headers["x-tierwise-decision-id"]
        pieces = answer.iter_text()  # kept: httpx closes the response with its iterator
        next(pieces)
        wait_for(lambda: tier(graph, "large")["running"] == 1, 10, "the generation to be seen running")
    wait_for(lambda: tier(graph, "large")["running"] == 0, 10, "the engine to stop")
    wait_for(lambda: receipt(graph, decision_id).get("outcome") == "cancelled", 10, "the record of the cancelled request")
    assert receipt(graph, decision_id)["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(("order", "state"), [("late", "late"), ("raise", "failed")])
def test_without_a_rating_the_embedding_alone_decides_and_says_so(graph: Graph, order: str, state: str) -> None:
    answer = httpx.post(
        f"{graph.url}/v1/chat/completions",
        json={"messages": [{"role": "user", "content": f"could you router:{order} descale a kettle without vinegar for me"}]},
        headers={"x-tierwise-debug": "true", "x-tierwise-threshold": "0.2"},
        timeout=60,
    )
    told = answer.json()["tierwise"]
    if told["signals"]["assessment"]["state"] == "skipped":
        pytest.fail(f"the embedding score {told['score']} is decisive: choose another prompt")
    assert told["signals"]["assessment"]["state"] == state
    assert told["score"] == pytest.approx(told["signals"]["embedding"]["score"], abs=1e-6)
    assert told["reason"] in ("score_above", "score_below")


def test_the_threshold_changes_live_without_a_new_process(graph: Graph) -> None:
    before = graph.replicas()
    assert chat(graph, EASY).json()["tierwise"]["tier"] == "small"
    deploy(graph, {"threshold": 0.0})
    wait_for(lambda: chat(graph, EASY).json()["tierwise"]["tier"] == "large", 30, "the new threshold")
    deploy(graph, {"threshold": 7})
    time.sleep(2)
    assert chat(graph, EASY).json()["tierwise"]["threshold"] == 0.0, "a bad value must leave the old one in force"
    deploy(graph, {"threshold": "auto"})
    wait_for(lambda: chat(graph, EASY).json()["tierwise"]["threshold"] == 0.65, 30, "the old threshold")
    assert graph.replicas() == before


def deploy(graph: Graph, user_config: dict[str, Any]) -> None:
    config = yaml.safe_load(graph.config.read_text())
    config["applications"][0]["deployments"][0]["user_config"] = user_config
    changed = graph.config.with_name("changed.yaml")
    changed.write_text(yaml.safe_dump(config))
    graph.run("serve", "deploy", str(changed))


def test_a_replica_that_dies_is_covered_and_replaced(graph: Graph) -> None:
    answer = chat(graph, "small:die", model="small")
    told = answer.json()["tierwise"]
    assert (told["tier"], told["reason"]) == ("large", "fallback_engine_error")
    wait_for(lambda: chat(graph, EASY, model="small").json().get("tierwise", {}).get("attempts") == 1, 60, "the small tier to come back")
