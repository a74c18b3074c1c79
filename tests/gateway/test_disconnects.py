"""A connection that breaks while a stream is sent."""

from typing import Any

import pytest

from serve_app.domain import Outcome
from tests.fakes import stream_script
from tests.gateway.conftest import Endpoint


async def call_app(app: Any, send: Any, body: bytes) -> None:
    """One request over the bare ASGI interface, whose client never leaves by itself."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
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

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

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
    assert [record.outcome for record in endpoint.world.ledger.records] == [Outcome.CANCELLED]
