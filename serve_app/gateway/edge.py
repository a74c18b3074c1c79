"""Around every route: the request's log line, the headers of its key, the bound on what is answered at a time. Plain ASGI."""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.admission import Gate
from serve_app.gateway import errors
from serve_app.observe import logs
from serve_app.ports import Clock

PROBES = frozenset({"/health", "/ready"})  # asked every few seconds by machines: no lines
COSTLY = frozenset({"/v1/chat/completions", "/v1/completions", "/route"})


class RequestLine:
    """One line per answered request, however it ended."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        started = self._clock.monotonic()
        with logs.request_line() as line:
            line.method = scope["method"]

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    line.status = message["status"]
                await send(message)

            try:
                await self._app(scope, receive, sending)
            finally:
                line.route = errors.route_of(scope)
                logs.write(line, self._clock.monotonic() - started)


class Edge:
    """Adds the caller's headers to whatever is answered, and turns an error that no route caught into an answer.

    Starlette would send that answer too, but raise the error once more for its server to log.
    """

    def __init__(self, app: ASGIApp, headers: Callable[[Scope], Mapping[str, str]]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                added = [(name.encode(), value.encode()) for name, value in self._headers(scope).items()]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if started:
                raise
            response = await errors.answer(Request(scope), error)
            await response(scope, receive, sending)


class Bounded:
    """Refuses what would cost a model's time beyond `gate`; health, status and receipts always get through."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in COSTLY:
            await self._app(scope, receive, send)
            return
        with self._gate.enter():
            await self._app(scope, receive, send)
