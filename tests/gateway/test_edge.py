"""Around the routes: the bound on what runs at a time, other origins, errors that no route caught."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest

from serve_app.errors import SettingsError
from tests.fakes import World, plain_answer, until
from tests.gateway.conftest import Held, make_app, make_client, make_settings
from tests.gateway.test_errors import check_error

BODY = {"messages": [{"role": "user", "content": "hello"}]}
ORIGIN = "https://app.example.com"


async def post(http: httpx.AsyncClient, **fields: Any) -> httpx.Response:
    return await http.post("/v1/chat/completions", json={**BODY, **fields})


# The bound


async def test_beyond_the_bound_generations_are_refused_and_all_else_gets_through(world: World) -> None:
    held = Held(world)
    async with make_client(make_app(world, ingress={"max_ongoing_requests": 2})) as http:
        running = [asyncio.create_task(post(http)) for _ in range(2)]
        await until(lambda: len(world.small.calls) == 2)
        response = await post(http)
        check_error(response, 429, code="overloaded")
        assert int(response.headers["retry-after"]) >= 1
        assert (await http.post("/route", json={"prompt": "x"})).status_code == 429
        assert world.observer.refusals == ["in_flight", "in_flight"]
        for path in ("/health", "/ready", "/status", "/v1/models"):
            assert (await http.get(path)).status_code == 200
        held.gate.set()
        assert [(await task).status_code for task in running] == [200, 200]
        assert (await post(http)).status_code == 200


async def test_a_place_is_free_again_however_the_request_ends(world: World) -> None:
    async with make_client(make_app(world, ingress={"max_ongoing_requests": 1}), raise_app_exceptions=False) as http:
        for script in ([KeyError("bug")], [plain_answer("small-model")]):
            world.small.script = script
            assert (await post(http)).status_code in (200, 500)
        assert (await http.post("/v1/chat/completions", content=b"{")).status_code == 400
        held = Held(world)
        task = asyncio.create_task(post(http))
        await until(lambda: len(world.small.calls) == 3)
        task.cancel()
        await asyncio.wait({task})
        held.gate.set()
        assert (await post(http)).status_code == 200


# Errors


async def test_a_bug_is_answered_logged_once_and_not_raised_at_the_server(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.small.script = [KeyError("secret")]
    async with make_client(make_app(world)) as http:  # which raises whatever the app raises
        check_error(await post(http), 500, code="internal_error")
    assert len([line for line in caplog.records if line.levelno >= logging.ERROR]) == 1


# Other origins


async def test_pages_of_other_origins_are_closed_by_default(world: World) -> None:
    async with make_client(make_app(world)) as http:
        response = await http.options("/v1/models", headers={"origin": ORIGIN, "access-control-request-method": "GET"})
        assert response.status_code == 403
        answers = [response, await http.get("/v1/models", headers={"origin": ORIGIN})]
    assert not [name for answer in answers for name in answer.headers if name.startswith("access-control")]


async def test_a_listed_origin_may_ask_with_our_headers_and_read_ours(world: World) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-tierwise-tier,content-type"}
    async with make_client(make_app(world, auth={"cors_origins": [ORIGIN]})) as http:
        preflight = await http.options("/v1/chat/completions", headers={"origin": ORIGIN, **asked})
        answer = await http.post("/v1/chat/completions", json=BODY, headers={"origin": ORIGIN})
        refused = await http.post("/v1/chat/completions", json={}, headers={"origin": ORIGIN})
        stranger = await http.get("/v1/models", headers={"origin": "https://evil.example.com"})
        foreign = await http.options("/v1/models", headers={"origin": "https://evil.example.com", **asked})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert answer.headers["access-control-allow-origin"] == refused.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"]
    assert all(name in exposed for name in ("x-tierwise-decision-id", "x-ratelimit-remaining-tokens", "retry-after"))
    assert "access-control-allow-credentials" not in answer.headers
    assert "access-control-allow-origin" not in stranger.headers
    assert foreign.status_code == 400


LOCAL = ["localhost", "localhost:8000", "127.0.0.1", "127.8.9.1:8000", "[::1]", "[::1]:8000"]
FOREIGN = ["evil.example.com", "evil.example.com:8000", "localhost.evil.example.com", "192.168.1.2", "[fe80::1]", "[::1", "a@b:c:d"]


@pytest.mark.parametrize("host", [*LOCAL, ""])
async def test_an_open_endpoint_answers_requests_for_this_machine(world: World, host: str) -> None:
    async with make_client(make_app(world)) as http:
        headers = {"host": host, "origin": f"http://{host or 'localhost'}"}
        assert (await http.post("/v1/chat/completions", json=BODY, headers=headers)).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
async def test_an_open_endpoint_refuses_a_name_that_is_not_this_machines(world: World, host: str) -> None:
    """A page whose owner lets its name point at 127.0.0.1 asks with that name."""
    async with make_client(make_app(world)) as http:
        check_error(await http.post("/v1/chat/completions", json=BODY, headers={"host": host}), 403, code="permission_denied")
    assert world.small.calls == []


@pytest.mark.parametrize("origin", [*(f"http://{host}" for host in FOREIGN), "null", "", "localhost", "file://"])
async def test_an_open_endpoint_generates_nothing_for_a_foreign_page(world: World, origin: str) -> None:
    """A simple request needs no preflight: the page cannot read the answer, but would have the model run."""
    app = make_app(world, auth={"cors_origins": [ORIGIN]})
    async with make_client(app) as http:
        headers = {"origin": origin, "content-type": "text/plain"}
        response = await http.post("/v1/chat/completions", content=json.dumps(BODY), headers=headers)
    check_error(response, 403, code="permission_denied")
    assert world.small.calls == []


async def test_an_endpoint_with_keys_is_asked_under_any_name(world: World) -> None:
    headers = {"host": "llm.example.com", "origin": "https://page.example.com", "authorization": "Bearer key"}
    async with make_client(make_app(world, keys={"key": {}})) as http:
        assert (await http.post("/v1/chat/completions", json=BODY, headers=headers)).status_code == 200


@pytest.mark.parametrize("origin", ["*", "app.example.com", "https://app.example.com/", "https://*.example.com", "null", ""])
def test_what_is_no_single_origin_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match=r"auth\.cors_origins\.0"):
        make_settings(auth={"cors_origins": [origin]})
