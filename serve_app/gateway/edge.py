"""Around every route: the request's log line, the headers of its key, who may ask an open endpoint, the bound on what is
answered at a time. Plain ASGI."""

from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.addresses import is_loopback
from serve_app.admission import Gate, Place
from serve_app.errors import Forbidden, Overloaded
from serve_app.gateway import errors
from serve_app.observe import logs
from serve_app.ports import Clock, Observer

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


class Local:
    """Refuses what a foreign web page has a browser on this machine ask of an open endpoint, which only listens to this machine.

    A page's simple POST needs nobody's leave, so its `Origin` must be this machine or in `origins`. A name that a page's owner
    points at this machine makes the page the same origin, so `Host` must be a name of this machine. Without them no browser asks.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if not all(not host or _is_local(f"//{host}") for host in headers.getlist("host")):
                raise Forbidden("Without keys only localhost may be asked: the Host header names another.")
            if not all(origin in self._origins or _is_local(origin) for origin in headers.getlist("origin")):
                raise Forbidden("Without keys no web page of another origin may ask, unless auth.cors_origins names it.")
        await self._app(scope, receive, send)


def _is_local(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


class Bounded:
    """Refuses what would cost a model's time beyond `gate`; health, status and receipts always get through."""

    def __init__(self, app: ASGIApp, gate: Gate, observer: Observer) -> None:
        self._app = app
        self._gate = gate
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in COSTLY:
            await self._app(scope, receive, send)
            return
        with self._enter():
            await self._app(scope, receive, send)

    def _enter(self) -> Place:
        try:
            return self._gate.enter()
        except Overloaded:
            self._observer.refused("in_flight")
            raise
