"""Every route, and that headers, body and record of an answer tell the same."""

import json
from typing import Any

import httpx
import pytest

from serve_app import __version__
from serve_app.domain import Mode, Reason, Tier, TierLoad
from serve_app.errors import EngineFailed
from tests.fakes import World, stream_script
from tests.gateway.conftest import Endpoint, make_app, make_client


def receipt_of(response: httpx.Response) -> dict[str, Any]:
    """The receipt in a body, or in the last chunk of a stream."""
    if "text/event-stream" not in response.headers["content-type"]:
        return response.json()["tierwise"]  # type: ignore[no-any-return]
    *_, last, done, _ = response.text.split("\n\n")
    assert done == "data: [DONE]"
    return json.loads(last.removeprefix("data: "))["tierwise"]  # type: ignore[no-any-return]


async def check_agreement(endpoint: Endpoint, response: httpx.Response) -> dict[str, Any]:
    """Headers, receipt and stored decision of one answer; returns the decision."""
    headers, receipt = response.headers, receipt_of(response)
    stored = (await endpoint.http.get(f"/v1/decisions/{receipt['decision_id']}")).json()
    decision = stored["decision"]
    assert headers["x-tierwise-decision-id"] == receipt["decision_id"] == stored["id"]
    assert headers["x-tierwise-tier"] == receipt["tier"] == decision["tier"]
    assert headers["x-tierwise-model"] == receipt["model"] == stored["attempts"][-1]["model"]
    assert headers["x-tierwise-reason"] == receipt["reason"] == decision["reason"]
    assert float(headers["x-tierwise-threshold"]) == receipt["threshold"] == decision["threshold"]
    assert headers["x-tierwise-mode"] == decision["mode"]
    assert receipt["score"] == decision["score"]["value"]
    assert headers.get("x-tierwise-score") == (None if receipt["score"] is None else str(receipt["score"]))
    assert receipt["attempts"] == len(stored["attempts"])
    assert receipt["usage"] == stored["usage"]
    assert (receipt["cost_usd"], receipt["saved_usd"]) == (stored["cost_usd"], stored["saved_usd"])
    assert float(headers["x-tierwise-overhead-ms"]) == pytest.approx(stored["overhead_seconds"] * 1000, abs=0.01)
    assert headers["x-tierwise-schema"] == "1"
    return stored  # type: ignore[no-any-return]


# Answers


async def test_a_plain_answer_agrees_with_its_headers_and_record(endpoint: Endpoint) -> None:
    response = await endpoint.chat()
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "Hi."
    assert response.json()["model"] == "small-model"
    stored = await check_agreement(endpoint, response)
    assert (stored["outcome"], stored["stream"], stored["kind"]) == ("ok", False, "chat")


async def test_a_stream_agrees_with_its_headers_and_record(endpoint: Endpoint) -> None:
    endpoint.world.small.script = stream_script("Hel", "lo")
    response = await endpoint.chat(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    stored = await check_agreement(endpoint, response)
    assert (stored["outcome"], stored["stream"]) == ("ok", True)


async def test_an_answer_after_a_fallback_agrees_too(endpoint: Endpoint) -> None:
    endpoint.world.small.script = [EngineFailed("broken")]
    stored = await check_agreement(endpoint, await endpoint.chat())
    assert (stored["decision"]["reason"], len(stored["attempts"])) == ("fallback_engine_error", 2)


async def test_an_answer_without_a_score_has_no_score_header(endpoint: Endpoint) -> None:
    await check_agreement(endpoint, await endpoint.chat("```code```"))


async def test_completions_are_routed_as_chats_are(endpoint: Endpoint) -> None:
    response = await endpoint.complete("hello")
    assert response.status_code == 200
    stored = await check_agreement(endpoint, response)
    assert stored["kind"] == "completion"
    (call,) = endpoint.world.small.calls
    assert (call.kind, call.body["prompt"]) == ("completion", "hello")


@pytest.mark.parametrize(
    ("model", "answered", "reason"),
    [
        ("auto", "small-model", Reason.SCORE_BELOW),
        ("small", "small-model", Reason.EXPLICIT_MODEL),
        ("large", "large-model", Reason.EXPLICIT_MODEL),
        ("small-model", "small-model", Reason.EXPLICIT_MODEL),
        ("large-model", "large-model", Reason.EXPLICIT_MODEL),
    ],
)
async def test_the_model_field_may_choose(endpoint: Endpoint, model: str, answered: str, reason: Reason) -> None:
    response = await endpoint.chat(model=model)
    assert response.json()["model"] == answered
    assert response.headers["x-tierwise-reason"] == reason


async def test_a_body_without_a_model_is_routed(endpoint: Endpoint) -> None:
    response = await endpoint.raw(b'{"messages":[{"role":"user","content":"hello"}]}')
    assert response.headers["x-tierwise-reason"] == "score_below"


async def test_the_engine_gets_the_clients_fields_and_none_of_ours(endpoint: Endpoint) -> None:
    sent = {
        "temperature": 0,
        "n": 2,
        "stop": ["."],
        "seed": 7,
        "top_k": 5,
        "user": "me",
        "metadata": {},
        "store": False,
        "max_tokens": None,
    }
    await endpoint.chat(**sent)
    body = endpoint.world.small.calls[0].body
    assert body == {
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0,
        "n": 2,
        "stop": ["."],
        "seed": 7,
        "top_k": 5,
        "model": "small-model",
        "stream": False,
    }


# What a client may say in headers


async def test_the_tier_header_chooses(endpoint: Endpoint) -> None:
    response = await endpoint.chat(headers={"x-tierwise-tier": "large"})
    assert (response.headers["x-tierwise-tier"], response.headers["x-tierwise-reason"]) == ("large", "explicit_tier")


async def test_the_threshold_header_moves_the_threshold(endpoint: Endpoint) -> None:
    response = await endpoint.chat(headers={"x-tierwise-threshold": "0.05"})
    assert (response.headers["x-tierwise-tier"], response.headers["x-tierwise-threshold"]) == ("large", "0.05")
    await check_agreement(endpoint, response)


async def test_a_threshold_with_many_digits_comes_back_as_it_was(endpoint: Endpoint) -> None:
    response = await endpoint.chat(headers={"x-tierwise-threshold": "0.123456789012"})
    await check_agreement(endpoint, response)


async def test_debug_puts_the_signals_into_the_body(endpoint: Endpoint) -> None:
    signals = receipt_of(await endpoint.chat(headers={"x-tierwise-debug": "true"}))["signals"]
    assert signals["embedding"]["state"] == "ok"
    assert signals["embedding"]["score"] == pytest.approx(0.1, abs=1e-5)
    assert signals["assessment"]["state"] == "skipped"
    assert signals["features"]["chars"] == 5
    assert signals["calibration"] == "fake-hash"


async def test_without_debug_there_are_no_signals(endpoint: Endpoint) -> None:
    assert "signals" not in receipt_of(await endpoint.chat(headers={"x-tierwise-debug": "no"}))


async def test_inbound_copies_of_our_headers_are_not_trusted(endpoint: Endpoint) -> None:
    forged = {"x-tierwise-decision-id": "mine", "x-tierwise-reason": "guard_policy", "x-tierwise-score": "0.9", "x-tierwise-model": "other"}
    response = await endpoint.chat(headers=forged)
    assert all(response.headers[name] != value for name, value in forged.items())
    await check_agreement(endpoint, response)


async def test_a_session_is_kept_and_bounded(endpoint: Endpoint) -> None:
    await endpoint.chat(headers={"x-session-id": "s" * 1000})
    assert endpoint.world.ledger.records[0].session == "s" * 256


async def test_every_request_gets_an_id_of_its_own(endpoint: Endpoint) -> None:
    ids = {(await endpoint.chat()).headers["x-tierwise-decision-id"] for _ in range(5)}
    assert len(ids) == 5


# The other routes


async def test_models_lists_every_name_that_may_be_asked_for(endpoint: Endpoint) -> None:
    body = (await endpoint.http.get("/v1/models")).json()
    assert [item["id"] for item in body["data"]] == ["auto", "small", "large", "small-model", "large-model"]
    assert body["object"] == "list"
    for item in body["data"]:
        assert (await endpoint.http.get(f"/v1/models/{item['id']}")).json() == item


async def test_model_names_may_hold_slashes() -> None:
    app = make_app(World(), small={"model": {"id": "meta-llama/Llama-3.1-8B"}})
    async with make_client(app) as http:
        assert (await http.get("/v1/models/meta-llama/Llama-3.1-8B")).json()["id"] == "meta-llama/Llama-3.1-8B"


@pytest.mark.parametrize(("score", "number", "name"), [(0.1, 1, "small"), (0.95, 2, "large")])
async def test_route_is_a_dry_run_in_the_articles_shape(score: float, number: int, name: str) -> None:
    world = World(score=score)
    async with make_client(make_app(world)) as http:
        response = await http.post("/route", json={"prompt": "hello", "context": "some context"})
    body = response.json()
    assert (body["tier"], body["tier_name"]) == (number, name)
    assert body["complexity_score"] == pytest.approx(score, abs=1e-5)
    assert body["margin"] == pytest.approx(score - 0.65, abs=1e-5)
    assert body["confidence"] == pytest.approx(min(1.0, abs(score - 0.65) + 0.5), abs=1e-5)
    assert body["router_latency_ms"] >= 0
    assert body["signals"]["features"]["turns"] == 1
    assert world.embedder.texts == ["hello\n\nsome context"]
    assert world.small.calls == world.large.calls == []
    assert world.ledger.records == []


async def test_route_takes_messages_and_the_threshold_header(endpoint: Endpoint) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}]}
    answer = (await endpoint.http.post("/route", json=body, headers={"x-tierwise-threshold": "0.01"})).json()
    assert (answer["tier"], answer["threshold"]) == (2, 0.01)


async def test_route_without_any_signal_says_large(endpoint: Endpoint) -> None:
    endpoint.world.embedder.answer = endpoint.world.assessor.answer = RuntimeError("gone")
    body = (await endpoint.http.post("/route", json={"prompt": "hello"})).json()
    assert (body["tier"], body["reason"], body["complexity_score"], body["margin"]) == (2, "fallback_router_error", None, None)


async def test_health_asks_nothing_of_any_model(endpoint: Endpoint) -> None:
    endpoint.world.small.is_ready = endpoint.world.large.is_ready = False
    response = await endpoint.http.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_ready_when_both_tiers_can_answer(endpoint: Endpoint) -> None:
    response = await endpoint.http.get("/ready")
    assert response.status_code == 200
    assert response.json() == {"ready": True, "tiers": {"small": True, "large": True}, "signals": {"embedder": True, "router_llm": False}}
    assert "retry-after" not in response.headers


@pytest.mark.parametrize("tier", list(Tier))
async def test_not_ready_while_a_tier_loads(endpoint: Endpoint, tier: Tier) -> None:
    endpoint.world.engines[tier].is_ready = False
    response = await endpoint.http.get("/ready")
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["tiers"][tier.value] is False


async def test_status_tells_what_is_in_force(endpoint: Endpoint) -> None:
    endpoint.world.small.known_load = TierLoad(2, 3, 4, 32, 0.0, counters={"prompt_tokens": 5, "generation_tokens": 6})
    body = (await endpoint.http.get("/status")).json()
    assert (body["version"], body["profile"], body["threshold"], body["calibration"]) == (__version__, "local", 0.65, "fake-hash")
    assert (body["live"]["threshold"], body["live"]["calibration"]) == ("auto", "profile")
    assert body["artefact"] == {"wanted": "profile", "in_force": "fake-hash", "problem": None}
    expected = {"replicas": 2, "waiting": 3, "running": 4, "capacity": 32, "prompt_tokens": 5, "generation_tokens": 6}
    known = {"ready": True, "state": "up", "breaker": "closed", "held": 0}
    assert body["tiers"]["small"] == {"model": "small-model", **known, **expected}
    assert body["tiers"]["large"] == {"model": "large-model", **known}


@pytest.mark.parametrize("path", ["/health", "/ready", "/status", "/v1/models", "/v1/models/auto", "/v1/models/none", "/nowhere"])
async def test_every_answer_names_the_schema(endpoint: Endpoint, path: str) -> None:
    assert (await endpoint.http.get(path)).headers["x-tierwise-schema"] == "1"


async def test_a_tier_that_loads_is_replaced_by_the_other(endpoint: Endpoint) -> None:
    endpoint.world.small.is_ready = False
    response = await endpoint.chat()
    assert (response.status_code, response.headers["x-tierwise-reason"]) == (200, "tier_unavailable")


async def test_while_everything_loads_a_request_is_told_to_come_again(endpoint: Endpoint) -> None:
    endpoint.world.small.is_ready = endpoint.world.large.is_ready = False
    response = await endpoint.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
    assert response.headers["retry-after"] == "5"
    assert endpoint.world.small.calls == []


async def test_a_chosen_tier_that_loads_is_not_replaced(endpoint: Endpoint) -> None:
    endpoint.world.large.is_ready = False
    assert (await endpoint.chat(model="large")).status_code == 503
    assert (await endpoint.chat(model="small")).status_code == 200


async def test_the_large_tier_answers_for_a_small_one_that_was_named_and_is_gone(endpoint: Endpoint) -> None:
    endpoint.world.small.is_ready = False
    response = await endpoint.chat(model="small")
    assert (response.status_code, response.headers["x-tierwise-tier"]) == (200, "large")
    assert response.headers["x-tierwise-reason"] == "tier_unavailable"


# Keys


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({"authorization": "Bearer key-1"}, 200),
        ({"authorization": "bearer key-2"}, 200),
        ({"authorization": "Bearer key-3"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Basic key-1"}, 401),
        ({"authorization": "key-1"}, 401),
        ({}, 401),
    ],
)
async def test_with_keys_only_a_known_bearer_is_let_in(header: dict[str, str], status: int) -> None:
    app = make_app(World(), keys={"key-1": {}, "key-2": {}})
    async with make_client(app) as http:
        response = await http.get("/v1/models", headers=header)
    assert response.status_code == status
    if status == 401:
        assert response.json()["error"]["type"] == "authentication_error"
        assert response.headers["www-authenticate"] == "Bearer"


async def test_with_keys_everything_but_the_probes_is_closed() -> None:
    world = World()
    closed = [("POST", "/v1/chat/completions"), ("POST", "/v1/completions"), ("POST", "/route"), ("GET", "/v1/models")]
    closed += [("GET", "/v1/models/auto"), ("GET", "/v1/decisions/tw-1"), ("GET", "/status"), ("DELETE", "/v1/decisions")]
    async with make_client(make_app(world, keys={"key": {}})) as http:
        for method, path in closed:
            assert (await http.request(method, path)).status_code == 401, path
        assert (await http.get("/health")).status_code == (await http.get("/ready")).status_code == 200
    assert world.small.calls == []


async def test_the_default_mode_is_normal(endpoint: Endpoint) -> None:
    assert (await endpoint.chat()).headers["x-tierwise-mode"] == Mode.NORMAL
