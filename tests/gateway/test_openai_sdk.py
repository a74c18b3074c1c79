"""OpenAI's own client against the endpoint."""

from collections.abc import AsyncIterator

import httpx
import openai
import pytest

from serve_app.domain import Outcome
from serve_app.errors import EngineFailed
from tests.fakes import chunk, stream_script, usage_chunk
from tests.gateway.conftest import BASE, Endpoint


@pytest.fixture
async def client(endpoint: Endpoint) -> AsyncIterator[openai.AsyncOpenAI]:
    http = httpx.AsyncClient(transport=httpx.ASGITransport(endpoint.app))
    async with openai.AsyncOpenAI(base_url=f"{BASE}/v1", api_key="none", http_client=http, max_retries=0) as sdk:
        yield sdk


async def test_a_plain_answer(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content == "Hi."
    assert answer.model == "small-model"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 30
    assert answer.model_extra is not None
    assert answer.model_extra["tierwise"]["tier"] == "small"


async def test_a_stream(endpoint: Endpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.world.small.script = stream_script("Hel", "lo")
    chunks = [c async for c in await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x"}], stream=True)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Hello"
    assert all(c.usage is None for c in chunks)
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["tierwise"]["usage"]["total_tokens"] == 12


async def test_a_stream_with_usage(endpoint: Endpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.world.small.script = stream_script("Hi")
    stream = await client.chat.completions.create(
        model="auto", messages=[{"role": "user", "content": "x"}], stream=True, stream_options={"include_usage": True}
    )
    *others, last = [c async for c in stream]
    assert last.usage is not None
    assert (last.choices, last.usage.completion_tokens) == ([], 1)
    assert all(c.usage is None for c in others)


async def test_two_choices_in_one_stream(endpoint: Endpoint, client: openai.AsyncOpenAI) -> None:
    finish = [chunk(None, 1, index=i, finish="stop") for i in (1, 0)]
    endpoint.world.small.script = [chunk("a", 1, index=0), chunk("b", 1, index=1), *finish, usage_chunk(10, 2), "data: [DONE]\n\n"]
    stream = await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x"}], stream=True, n=2)
    choices = [c.choices[0] async for c in stream]
    assert {c.index: c.finish_reason for c in choices if c.finish_reason} == {0: "stop", 1: "stop"}
    assert [(c.index, c.delta.content) for c in choices[:2]] == [(0, "a"), (1, "b")]


async def test_a_stream_that_breaks_raises_in_the_client(endpoint: Endpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.world.small.script = [chunk("Hi", 1), EngineFailed("The model failed to answer.")]
    stream = await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x"}], stream=True)
    first = await anext(stream)
    assert first.choices[0].delta.content == "Hi"
    with pytest.raises(openai.APIError, match="The model failed to answer"):
        await anext(stream)
    assert endpoint.world.ledger.records[0].outcome is Outcome.FAILED


async def test_errors_are_the_clients_own_classes(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="at least 1 item"):
        await client.chat.completions.create(model="auto", messages=[])


async def test_completions_and_models(endpoint: Endpoint, client: openai.AsyncOpenAI) -> None:
    endpoint.world.small.script = [
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": "small-model",
            "choices": [{"index": 0, "text": " there", "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    ]
    answer = await client.completions.create(model="auto", prompt="hello")
    assert answer.choices[0].text == " there"
    assert [model.id async for model in client.models.list()] == ["auto", "small", "large", "small-model", "large-model"]
