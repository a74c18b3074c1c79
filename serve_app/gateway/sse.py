"""Server-sent events as an HTTP response."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)


class EventResponse(StreamingResponse):
    """A stream that is always closed: Starlette leaves its iterator to the garbage collector when the client goes,
    and until then the engine would go on generating for nobody.

    It also waits for the client to leave by itself. Ray Serve's `receive` tells that by raising what cancelled it
    (`TaskCancelledError`), which Starlette would pass on as the request's own failure, to be logged by whoever finds it.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str], headers: Mapping[str, str]) -> None:
        super().__init__(events, headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        async with aclosing(self._events):
            sending, leaving = asyncio.ensure_future(self._send(send)), asyncio.ensure_future(left(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _stopped(leaving, sending)
            if not sending.cancelled() and (error := sending.exception()) is not None:
                raise error

    async def _send(self, send: Send) -> None:
        with suppress(OSError):  # how a server tells that the connection is gone: no fault of ours
            await self.stream_response(send)


async def left(receive: Receive) -> None:
    """Returns when the client has left: what else its end of the connection does, it does not matter to a stream."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except Exception as error:  # noqa: BLE001 - a transport that fails to listen has lost its client, by whatever name it calls that
        log.debug("the client left: %s", type(error).__name__)


async def _stopped(*tasks: asyncio.Future[None]) -> None:
    """Cancel the tasks that still run and wait for their end, so that nothing of them outlives the request.

    Serve may cancel a request twice in a row. The second time must not end this wait: the stream would then go on for nobody.
    """
    for task in tasks:
        task.cancel()
    again: asyncio.CancelledError | None = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            again = error
    if again is not None:
        raise again
