"""Server-sent events as an HTTP response."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class EventResponse(StreamingResponse):
    """A stream that is always closed: Starlette leaves its iterator to the garbage collector when the client goes,
    and until then the engine would go on generating for nobody."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str], headers: Mapping[str, str]) -> None:
        super().__init__(events, headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Under ASGI 2.4 a client that has left shows as an error of `send`; that is no fault of ours.
        with suppress(ClientDisconnect):
            async with aclosing(self._events):
                await super().__call__(scope, receive, send)
