"""The headers that a client may not set, and those that Serve cannot read."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.deployments.proxy import ServeAnswers, middlewares


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


def serve_says(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [(500, 502, "engine_error"), (503, 503, "not_ready"), (404, 503, "not_ready"), (429, 429, "overloaded"), (408, 408, "request_timeout")],
)
async def test_what_serve_answers_by_itself_gets_openais_shape(said: int, status: int, code: str) -> None:
    app = ServeAnswers(serve_says(said, [(b"content-type", b"text/plain")], b"Internal: ray::Actor at /secret/path"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as http:
        answer = await http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "secret" not in answer.text
    assert ("retry-after" in answer.headers) is (status in (429, 503))


@pytest.mark.parametrize(
    ("status", "headers", "path"),
    [(200, [], "/x"), (502, [(b"x-tierwise-schema", b"1")], "/x"), (503, [], "/-/healthz")],
)
async def test_the_ingress_and_the_load_balancers_own_answers_pass(status: int, headers: list[tuple[bytes, bytes]], path: str) -> None:
    app = ServeAnswers(serve_says(status, headers, b"as it is"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as http:
        answer = await http.get(path)
    assert (answer.status_code, answer.text) == (status, "as it is")


DEATH = RuntimeError("ray::Actor died at /secret/path")


def dying(*messages: Message, error: BaseException | None = DEATH) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if error is not None:
            raise error

    return app


@pytest.mark.parametrize(
    "error", [DEATH, asyncio.CancelledError(), None], ids=["an exception", "a cancellation of the far side", "nothing"]
)
async def test_a_request_that_dies_with_its_replica_gets_openais_shape(error: BaseException | None) -> None:
    app = ServeAnswers(dying(error=error))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as http:
        answer = await http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_error")


async def test_a_stream_that_dies_with_its_replica_breaks_off() -> None:
    app = ServeAnswers(dying({"type": "http.response.start", "status": 200, "headers": []}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as http:
        with pytest.raises(RuntimeError, match="died"):
            await http.get("/v1/models")
