"""A stream's response and its client's leaving."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from serve_app.gateway.sse import EventResponse


class Endless:
    """Events that take a while to stop, as an engine's do."""

    def __init__(self, stop_s: float = 0.05) -> None:
        self.stopped = 0
        self.begun = asyncio.Event()
        self._stop_s = stop_s

    async def events(self) -> AsyncGenerator[str]:
        try:
            while True:
                self.begun.set()
                yield "data: on\n\n"
                await asyncio.sleep(0.01)
        finally:
            await asyncio.sleep(self._stop_s)
            self.stopped += 1


class Client:
    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def slow_to_stop(self) -> dict[str, Any]:
        try:
            return await self.receive()
        finally:
            await asyncio.sleep(0.1)

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


async def test_a_client_that_leaves_stops_the_events_before_the_response_is_over() -> None:
    source, client = Endless(), Client()
    answering = asyncio.create_task(EventResponse(source.events(), {})({}, client.receive, client.send))
    await source.begun.wait()
    client.gone.set()
    await asyncio.wait_for(answering, 2)
    assert source.stopped == 1
    assert client.sent[0]["status"] == 200


async def test_a_request_that_is_cancelled_again_while_it_ends_leaves_no_stream_behind() -> None:
    source, client = Endless(), Client()
    answering = asyncio.create_task(EventResponse(source.events(), {})({}, client.slow_to_stop, client.send))
    await source.begun.wait()
    for _ in range(3):
        answering.cancel()
        await asyncio.sleep(0.01)
    await asyncio.wait({answering})
    assert answering.cancelled()
    assert source.stopped == 1
    sent = len(client.sent)
    await asyncio.sleep(0.1)
    assert len(client.sent) == sent
