"""What a client gets for its own mistakes and for ours: OpenAI's shape, and no internal text."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from serve_app.domain import Outcome
from serve_app.errors import CalibrationError, EngineFailed, EngineRejected, Overloaded
from serve_app.settings import Timeouts
from tests.fakes import FOREVER, Pause, World
from tests.gateway.conftest import Endpoint, make_app, make_client

MESSAGE = {"role": "user", "content": "hello"}
INTERNAL = ("Traceback", "serve_app", "pydantic", ".py", "RuntimeError", "secret")


def check_error(response: httpx.Response, status: int, *, code: str | None = None, says: str = "", param: str | None = None) -> None:
    """The status, OpenAI's four fields, and nothing that tells of our insides."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    expected = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "api_error"
    )
    assert error["type"] == expected
    assert says in error["message"]
    assert code is None or error["code"] == code
    assert param is None or error["param"] == param
    assert not [word for word in INTERNAL if word in response.text]
    assert response.headers["x-tierwise-schema"] == "1"


# The body as such


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not valid JSON at line 1, column 1"),
        (b"{", "not valid JSON"),
        (b"{'a': 1}", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"temperature": NaN}', "not valid JSON"),
        (b'{"temperature": -Infinity}', "not valid JSON"),
        (b'{"a": "\xff"}', "not valid UTF-8"),
        (b'{"a": "\\ud800"}', "not valid UTF-8"),
        (b'{"\\udc00": 1}', "not valid UTF-8"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"a":' + b"[" * 500 + b"]" * 500 + b"}", "nested deeper than 100 levels"),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 100 levels"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/route"])
async def test_a_body_that_is_no_json_object_is_refused(endpoint: Endpoint, path: str, content: bytes, says: str) -> None:
    check_error(await endpoint.raw(content, path), 400, code="invalid_json", says=says)


async def test_ordinary_nesting_and_escapes_pass(endpoint: Endpoint) -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(20):
        schema = {"type": "object", "properties": {"inner": schema}}
    body = {"messages": [MESSAGE], "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
    assert (await endpoint.raw(json.dumps(body))).status_code == 200
    assert (await endpoint.raw(b'{"messages":[{"role":"user","content":"\\ud83d\\ude00 \\u00e9"}]}')).status_code == 200


async def test_a_body_over_the_limit_is_refused_by_its_header(world: World) -> None:
    async with make_client(make_app(world, limits={"max_body_bytes": 1000})) as http:
        response = await http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a" * 1000}]})
    check_error(response, 413, code="request_too_large", says="1000 bytes")


async def test_a_body_over_the_limit_is_refused_while_it_streams(world: World) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100
            yield b" " * 100

    async with make_client(make_app(world, limits={"max_body_bytes": 1000})) as http:
        response = await http.post("/v1/chat/completions", content=endless())
    check_error(response, 413, code="request_too_large")
    assert sent <= 1200


async def test_a_body_of_exactly_the_limit_passes(world: World) -> None:
    body = json.dumps({"messages": [MESSAGE]}).encode()
    async with make_client(make_app(world, limits={"max_body_bytes": len(body)})) as http:
        assert (await http.post("/v1/chat/completions", content=body)).status_code == 200
        check_error(await http.post("/v1/chat/completions", content=body + b" "), 413)


async def test_a_body_that_does_not_arrive_is_a_timeout(world: World) -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(FOREVER)
        yield b"}"

    async with make_client(make_app(world, limits={"body_timeout_s": 0.02})) as http:
        response = await http.post("/v1/chat/completions", content=stalling())
    check_error(response, 408, code="request_timeout")


# Where and how it is asked


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/chat/completions", "POST"), ("PUT", "/route", "POST"), ("DELETE", "/v1/models", "GET"), ("POST", "/health", "GET")],
)
async def test_a_wrong_method_is_told_the_right_one(endpoint: Endpoint, method: str, path: str, allowed: str) -> None:
    response = await endpoint.http.request(method, path)
    check_error(response, 405, code="method_not_allowed", says=method)
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/nowhere", "/v1/embeddings", "/docs", "/v1"])
async def test_an_unknown_path_is_not_found(endpoint: Endpoint, path: str) -> None:
    check_error(await endpoint.http.get(path), 404, code="not_found", says=path)


async def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(endpoint: Endpoint) -> None:
    check_error(await endpoint.chat(model="gpt-4"), 404, code="model_not_found", says="auto, small, large", param="model")
    check_error(await endpoint.http.get("/v1/models/gpt-4"), 404, code="model_not_found")


async def test_an_unknown_decision_is_not_found(endpoint: Endpoint) -> None:
    check_error(await endpoint.http.get(f"/v1/decisions/tw-{'0' * 32}"), 404, code="decision_not_found")


@pytest.mark.parametrize("text", ["tw-none", "%00", f"tw-{'0' * 31}%00", f"tw-{'0' * 32}%0a", f"TW-{'0' * 32}", f"tw-{'0' * 33}"])
async def test_what_is_no_decisions_id_is_not_looked_up(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    async def get(decision_id: str) -> None:
        raise AssertionError(f"asked for {decision_id!r}")

    monkeypatch.setattr(endpoint.world.ledger, "get", get)
    check_error(await endpoint.http.get(f"/v1/decisions/{text}"), 404, code="decision_not_found")


# Fields

SCHEMA = {"type": "json_schema", "json_schema": {"name": "a" * 70_000}}
PICTURE = "https://example.com/a.png"
CHAT_MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"messages": []}, "messages", "at least 1 item"),
    ({"messages": None}, "messages", "valid list"),
    ({"messages": "hello"}, "messages", "valid list"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages", "every message is empty"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role", "'system'"),
    ({"messages": [{"content": "x"}]}, "messages.0.role", "required"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "valid string"),
    ({"messages": [MESSAGE] * 2049}, "messages", "2049 are more than the 2048"),
    ({"model": 5}, "model", "valid string"),
    ({"model": None}, "model", "valid string"),
    ({"n": 9}, "n", "9 is more than the 8"),
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": "9"}, "n", "valid integer"),
    ({"n": 1.5}, "n", "valid integer"),
    ({"top_logprobs": 21}, "top_logprobs", "21 is more than the 20"),
    ({"top_logprobs": -1}, "top_logprobs", "greater than or equal to 0"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": "5"}, "max_tokens", "valid integer"),
    ({"stream": "false"}, "stream", "valid boolean"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed with stream"),
    ({"stream": True, "stream_options": {"every": 1}}, "stream_options.every", "Unrecognized field"),
    ({"temperature": "hot"}, "temperature", "valid number"),
    ({"stop": 5}, "stop", "valid string"),
    ({"tool_choice": 5}, "tool_choice", "valid string"),
    ({"logit_bias": {"5": "x"}}, "logit_bias.5", "valid number"),
    ({"tools": [1]}, "tools.0", "valid dictionary"),
    ({"response_format": SCHEMA}, "response_format", "larger than the 65536 bytes"),
    ({"tools": [{"type": "function", "function": {"name": "f", "description": "a" * 70_000}}]}, "tools", "larger than the 65536 bytes"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]}, "messages", "only data: URLs"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": PICTURE}]}]}, "messages", "only data: URLs"),
    ({"messages": [{"role": "user", "content": [{"image_url": {"url": "file:///etc/passwd"}}]}]}, "messages", "only data: URLs"),
    ({"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": PICTURE}}]}]}, "messages", "only data: URLs"),
    ({"messages": [{"role": "user", "content": [{"type": "audio_url", "audio_url": {"url": PICTURE}}]}]}, "messages", "only data: URLs"),
    ({"temprature": 1}, "temprature", "Unrecognized field: temprature, did you mean 'temperature'?"),
    ({"request_id": "mine"}, "request_id", "Unrecognized field: request_id"),
    ({"priority": -1}, "priority", "Unrecognized field: priority"),
    ({"chat_template": "{{ 1 }}"}, "chat_template", "Unrecognized field"),
    ({"kv_transfer_params": {}}, "kv_transfer_params", "Unrecognized field"),
]


@pytest.mark.parametrize(("fields", "param", "says"), CHAT_MISTAKES, ids=[json.dumps(item[0])[:60] for item in CHAT_MISTAKES])
async def test_a_mistake_in_a_chat_is_named(endpoint: Endpoint, fields: dict[str, Any], param: str, says: str) -> None:
    check_error(await endpoint.chat(**fields), 400, param=param, says=says)
    assert endpoint.world.small.calls == endpoint.world.large.calls == []


COMPLETION_MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": ""}, "prompt", "must not be empty"),
    ({"prompt": []}, "prompt", "must not be empty"),
    ({"prompt": ["a", ""]}, "prompt", "must not be empty"),
    ({"prompt": ["a"] * 9}, "prompt", "9 prompts are more than the 8"),
    ({"prompt": None}, "prompt", "valid string"),
    ({"prompt": [1, 2]}, "prompt", "valid string"),
    ({"logprobs": 21}, "logprobs", "21 is more than the 20"),
    ({"n": 9}, "n", "9 is more than the 8"),
    ({"messages": [MESSAGE]}, "messages", "Unrecognized field"),
    ({"best_of": 2}, "best_of", "Unrecognized field"),
]


@pytest.mark.parametrize(("fields", "param", "says"), COMPLETION_MISTAKES, ids=[json.dumps(item[0])[:60] for item in COMPLETION_MISTAKES])
async def test_a_mistake_in_a_completion_is_named(endpoint: Endpoint, fields: dict[str, Any], param: str, says: str) -> None:
    check_error(await endpoint.complete(**{"prompt": "hello", **fields}), 400, param=param, says=says)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prompt": ""},
        {"prompt": "  \n"},
        {"prompt": None},
        {"context": "only context"},
        {"messages": [{"role": "system", "content": "x"}]},
    ],
)
async def test_route_refuses_an_empty_prompt(endpoint: Endpoint, body: dict[str, Any]) -> None:
    check_error(await endpoint.http.post("/route", json=body), 400, code="empty_prompt", param="prompt")


async def test_route_names_an_unknown_field(endpoint: Endpoint) -> None:
    check_error(await endpoint.http.post("/route", json={"promt": "x"}), 400, says="did you mean 'prompt'?", param="promt")


@pytest.mark.parametrize("value", [0, 20])
async def test_the_largest_values_pass(endpoint: Endpoint, value: int) -> None:
    assert (await endpoint.chat(n=8, logprobs=True, top_logprobs=value)).status_code == 200


async def test_inline_pictures_pass(endpoint: Endpoint) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert (await endpoint.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}])).status_code == 200


async def test_a_conversation_with_tool_calls_passes(endpoint: Endpoint) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        MESSAGE,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "1"},
    ]
    assert (await endpoint.chat(messages=messages)).status_code == 200
    assert endpoint.world.small.calls[0].body["messages"] == messages


async def test_a_very_long_name_is_not_sent_back_whole(endpoint: Endpoint) -> None:
    response = await endpoint.chat(**{"x" * 1_000_000: 1})
    check_error(response, 400, says="Unrecognized field")
    assert len(response.content) < 2000
    response = await endpoint.chat(model="x" * 1_000_000)
    check_error(response, 404)
    assert len(response.content) < 2000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-tierwise-threshold", "high"),
        ("x-tierwise-threshold", "1.01"),
        ("x-tierwise-threshold", "-0.1"),
        ("x-tierwise-threshold", "nan"),
        ("x-tierwise-threshold", "inf"),
        ("x-tierwise-threshold", ""),
        ("x-tierwise-tier", "medium"),
        ("x-tierwise-tier", "LARGE"),
        ("x-tierwise-tier", ""),
    ],
)
async def test_a_bad_header_of_ours_is_named(endpoint: Endpoint, name: str, value: str) -> None:
    check_error(await endpoint.chat(headers={name: value}), 400, param=name)
    assert endpoint.world.small.calls == []


# The engines' errors and our own


async def test_what_the_engine_refuses_is_the_clients_mistake(endpoint: Endpoint) -> None:
    both_numbers = "This model's maximum context length is 2048 tokens, but you asked for 5000."
    endpoint.world.small.script = [EngineRejected(both_numbers, param="messages")]
    response = await endpoint.chat()
    check_error(response, 400, says=both_numbers, param="messages")
    assert response.headers["x-tierwise-decision-id"] == endpoint.world.ledger.records[0].id


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_engine_that_fails_is_a_bad_gateway(endpoint: Endpoint, streamed: bool) -> None:
    endpoint.world.small.script = [EngineFailed("The model failed to answer.")]
    endpoint.world.large.script = [EngineFailed("The model failed to answer.")]
    response = await endpoint.chat(stream=streamed)
    check_error(response, 502, code="engine_error")
    assert response.headers["x-tierwise-decision-id"] == endpoint.world.ledger.records[0].id


async def test_an_engine_that_is_too_slow_is_a_gateway_timeout() -> None:
    world = World(score=0.95, timeouts=Timeouts(request_s=0.02))
    world.large.script = [Pause(FOREVER)]
    async with make_client(make_app(world)) as http:
        check_error(await http.post("/v1/chat/completions", json={"messages": [MESSAGE]}), 504, code="engine_timeout")


async def test_a_full_queue_says_when_to_come_again(endpoint: Endpoint) -> None:
    endpoint.world.small.script = [Overloaded("The model's queue is full.", retry_after=1.2)]
    response = await endpoint.chat()
    check_error(response, 429, code="overloaded")
    assert response.headers["retry-after"] == "2"


@pytest.mark.parametrize("bug", [KeyError("secret"), CalibrationError("secret shapes"), RuntimeError("secret")])
async def test_a_bug_of_ours_tells_nothing(world: World, bug: Exception) -> None:
    world.small.script = [bug]
    async with make_client(make_app(world), raise_app_exceptions=False) as http:
        response = await http.post("/v1/chat/completions", json={"messages": [MESSAGE]})
    check_error(response, 500, code="internal_error", says="Something went wrong on our side.")
    assert [record.outcome for record in world.ledger.records] == [Outcome.FAILED]


async def test_a_path_with_odd_characters_is_answered(endpoint: Endpoint) -> None:
    check_error(await endpoint.http.get("/%ff%00/%22"), 404)
    check_error(await endpoint.http.get("/v1/models/%ff%0a"), 404)
    check_error(await endpoint.http.get("/v1/decisions/%ff%0a"), 404)
