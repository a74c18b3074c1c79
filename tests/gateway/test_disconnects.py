"""A connection that breaks while a stream is sent."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serve_app.domain import Outcome
from tests.fakes import FOREVER, Pause, chunk, stream_script, until
from tests.gateway.conftest import Endpoint


async def silence() -> dict[str, Any]:
    """A client that stays and says nothing more."""
    await asyncio.sleep(FOREVER)
    raise AssertionError("nobody waits so long")


async def call_app(app: Any, send: Any, body: bytes | None, listening: Callable[[], Awaitable[dict[str, Any]]] = silence) -> None:
    """One request over the bare ASGI interface; `listening` is what the server tells after the body."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
    }

    messages = [{"type": "http.request", "body": body, "more_body": False}] if body is not None else []

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await listening()

    await app(scope, receive, send)


@pytest.mark.parametrize("survives", [0, 1, 2])
async def test_a_connection_that_breaks_stops_the_engine_and_is_recorded(endpoint: Endpoint, survives: int) -> None:
    """`survives` messages get through: none, the status line, the first chunk."""
    endpoint.world.small.script = stream_script("Hel", "lo")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        if len(sent) == survives:
            raise OSError("the connection is gone")
        sent.append(message)

    await call_app(endpoint.app, send, b'{"messages":[{"role":"user","content":"hello"}],"stream":true}')
    (call,) = endpoint.world.small.calls
    assert call.closed
    await until(lambda: endpoint.world.ledger.records)  # once the engine has said what it had used
    assert [record.outcome for record in endpoint.world.ledger.records] == [Outcome.CANCELLED]


class TaskCancelledError(Exception):
    """Ray's, which its transport raises where it listens once the request was cancelled."""


@pytest.mark.parametrize("said", [{"type": "http.disconnect"}, TaskCancelledError("cancelled"), KeyError("no such request")])
async def test_a_client_that_leaves_ends_its_stream_without_an_error(endpoint: Endpoint, said: Any) -> None:
    """Also when the transport tells it by an error: nothing may be raised at the server, or left for the loop to find."""
    endpoint.world.small.script = [chunk("Hel", 1), Pause(FOREVER)]
    sent: list[Any] = []
    left = asyncio.Event()
    loop, unretrieved = asyncio.get_running_loop(), list[Any]()
    loop.set_exception_handler(lambda loop, context: unretrieved.append(context))

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 2:
            left.set()

    async def listening() -> dict[str, Any]:
        await left.wait()
        if isinstance(said, Exception):
            raise said
        return said  # type: ignore[no-any-return]

    before = asyncio.all_tasks()
    async with asyncio.timeout(5):
        await call_app(endpoint.app, send, b'{"messages":[{"role":"user","content":"hello"}],"stream":true}', listening)
    (call,) = endpoint.world.small.calls
    assert call.closed
    await until(lambda: endpoint.world.ledger.records)
    assert [record.outcome for record in endpoint.world.ledger.records] == [Outcome.CANCELLED]
    await until(lambda: asyncio.all_tasks() == before)
    gc.collect()
    assert unretrieved == []


async def test_a_request_that_is_cancelled_from_outside_closes_its_stream(endpoint: Endpoint) -> None:
    endpoint.world.small.script = [chunk("Hel", 1), Pause(FOREVER)]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    body = b'{"messages":[{"role":"user","content":"hello"}],"stream":true}'
    before = asyncio.all_tasks()
    task = asyncio.create_task(call_app(endpoint.app, send, body))
    await until(lambda: len(sent) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert endpoint.world.small.calls[0].closed
    await until(lambda: asyncio.all_tasks() == before)


async def test_a_transport_that_breaks_while_the_body_arrives_is_no_fault_of_ours(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def listening() -> dict[str, Any]:
        raise TaskCancelledError("cancelled")

    await call_app(endpoint.app, send, None, listening)
    assert sent[0]["status"] == 400
    assert not [line for line in caplog.records if line.levelname == "ERROR"]
