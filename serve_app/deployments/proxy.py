"""What every request passes before Serve itself reads it; `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH` names `middlewares`.

Serve lets a client's headers override its own settings, and reads some of them as UTF-8 whatever they are.
"""

import re

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.errors import RequestError
from serve_app.gateway.errors import response

# Compared with dashes for underscores, as Serve does. Timeouts and disconnects are the operator's, the model is chosen by us.
DROPPED = {b"x-request-timeout-seconds", b"x-request-disconnect-disabled", b"serve-multiplexed-model-id"}
REQUEST_ID = b"x-request-id"
PLAIN = re.compile(rb"[A-Za-z0-9._:-]{1,64}")


def middlewares() -> list[Middleware]:
    """Serve calls it once in each process that listens."""
    return [Middleware(HeaderFilter)]


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
