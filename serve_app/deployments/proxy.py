"""What every request passes before Serve itself reads it; `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names `middlewares`.

Serve lets a client's headers override its own settings, and reads some of them as UTF-8 whatever they are. And where no ingress
replica can answer, because it died or is not there yet, Serve answers itself, in plain text: clients get OpenAI's shape instead.
"""

import asyncio
import logging
import re

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import EngineFailed, NotReady, Overloaded, RequestError, RequestTimeout, TierwiseError
from serve_app.gateway.errors import response
from serve_app.ports import asked_to_stop

log = logging.getLogger(__name__)
SERVES_OWN = "/-/"  # for load balancers, who read the status
OURS = b"x-tierwise-schema"  # every answer of the ingress carries it

# Compared with dashes for underscores, as Serve does. Timeouts and disconnects are the operator's, the model is chosen by us.
DROPPED = {b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve-multiplexed-model-id"}
REQUEST_ID = b"x-request-id"
PLAIN = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def middlewares() -> list[Middleware]:
    """Serve calls it once in each process that listens."""
    return [Middleware(HeaderFilter), Middleware(ServeAnswers)]


class HeaderFilter:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if _passes(name, value)]
        if all(_readable(name) and _readable(value) for name, value in headers):
            await self._app({**scope, "headers": headers}, receive, send)
        else:
            refusal = response(RequestError("A header of the request is not UTF-8.", code="invalid_header"))
            await refusal(scope, receive, send)


def _passes(name: bytes, value: bytes) -> bool:
    """A request id is written to logs: only a plain one is taken over, for any other Serve makes its own."""
    name = name.lower().replace(b"_", b"-")
    return name not in DROPPED and (name != REQUEST_ID or PLAIN.fullmatch(value) is not None)


def _readable(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


class ServeAnswers:
    """Puts Serve's own refusals and failures into OpenAI's shape. What the ingress answers passes untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = replaced = False

        async def translated(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start" and _is_serves(message) and not scope["path"].startswith(SERVES_OWN):
                started = replaced = True
                await response(_in_our_words(message["status"]))(scope, receive, send)
            elif not replaced:
                started = True
                await send(message)

        lost = await self._lost(scope, receive, translated)
        if lost is not None and started:
            raise lost
        if not started:
            log.warning("a request was lost with its replica: %s", type(lost).__name__)
            await response(_in_our_words(500))(scope, receive, send)

    async def _lost(self, scope: Scope, receive: Receive, send: Send) -> BaseException | None:
        """What came instead of an answer. A replica that dies shows as its exception, as a cancellation that nobody here
        asked for, or as an end without a beginning."""
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError as error:
            if asked_to_stop():
                raise
            return error
        except Exception as error:  # noqa: BLE001 - the boundary to Serve's listener: told to the client, and logged
            return error
        return None


def _is_serves(message: Message) -> bool:
    names = {name.lower() for name, _ in message.get("headers", ())}
    return message["status"] >= 400 and OURS not in names


def _in_our_words(status: int) -> TierwiseError:
    if status == 429:
        return Overloaded("The endpoint is at its limit.", retry_after=2.0)
    if status == 408:
        return RequestTimeout("The request took too long.")
    if status in (404, 503):
        return NotReady("The endpoint is starting.", retry_after=5.0)
    if status >= 500:
        return EngineFailed("The part of the endpoint that had the request failed.")
    return RequestError("The request cannot be served.")
