"""The headers that a client may not set, and those that Serve cannot read."""

from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.deployments.proxy import middlewares


class Echo:
    """An application that keeps the headers that reached it."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = scope["headers"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def wrapped(app: ASGIApp) -> ASGIApp:
    for middleware in middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


async def ask(*headers: tuple[bytes, bytes]) -> tuple[httpx.Response, dict[bytes, bytes] | None]:
    echo = Echo()
    transport = httpx.ASGITransport(app=wrapped(echo))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://tierwise") as client:
        response = await client.get("/", headers=list(headers))
    return response, None if echo.headers is None else dict(echo.headers)


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-timeout-seconds",
        b"X-Request-Disconnect-Disabled",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
    ],
)
async def test_headers_that_override_serves_settings_do_not_arrive(name: bytes) -> None:
    _, arrived = await ask((name, b"1"), (b"x-session-id", b"s-1"))
    assert arrived is not None
    assert name.lower() not in arrived
    assert arrived[b"x-session-id"] == b"s-1"


@pytest.mark.parametrize(
    ("value", "arrives"), [(b"req-1.a:B_2", True), (b"a b", False), (b"\x1b[31m", False), (b"x" * 65, False), (b"", False)]
)
async def test_only_a_plain_request_id_is_taken_over(value: bytes, arrives: bool) -> None:
    _, arrived = await ask((b"x-request-id", value))
    assert arrived is not None
    assert (b"x-request-id" in arrived) == arrives


@pytest.mark.parametrize("name", [b"x-session-id", b"authorization", b"x-anything"])
async def test_a_header_that_is_not_utf8_is_a_400_in_openais_shape(name: bytes) -> None:
    response, arrived = await ask((name, b"\xff\xfe"))
    assert (response.status_code, arrived) == (400, None)
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["code"] == "invalid_header"


async def test_a_dropped_header_may_hold_anything() -> None:
    response, _ = await ask((b"x-request-timeout-seconds", b"\xff"))
    assert response.status_code == 200


async def test_what_is_not_http_passes_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    scope = {"type": "lifespan"}
    await wrapped(app)(scope, None, None)  # type: ignore[arg-type]
    assert seen == [scope]
