"""What a key may do: tiers, limits, rates, a budget, and reading and deleting decisions."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app import __version__
from serve_app.domain import Client, Tier
from serve_app.errors import EngineFailed, NotReady
from serve_app.gateway.auth import Access, Caller, duration, expected_tokens, make_access, narrowed
from serve_app.keys import Key, KeyRing, digest
from serve_app.settings import Auth, Limits
from tests.fakes import World, make_request, stream_script, until
from tests.gateway.conftest import Endpoint, Held, make_app, make_client, make_settings, write_keys
from tests.gateway.test_errors import check_error

KEYS: dict[str, dict[str, Any]] = {
    "plain": {"id": "plain"},
    "other": {"id": "other"},
    "boss": {"id": "boss", "admin": True},
    "small": {"id": "small-only", "tiers": ["small"]},
    "strict": {"id": "strict", "threshold": 0.05},
    "short": {"id": "short", "max_tokens": 50, "max_messages": 2, "max_body_bytes": 400},
    "slow": {"id": "slow", "requests_per_minute": 2, "tokens_per_minute": 2000},
    "poor": {"id": "poor", "monthly_budget_usd": 0.00001},
}
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}


class Keyed(Endpoint):
    """An endpoint for keys; `ask` is one chat with a key."""

    async def ask(self, key: str, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        return await self.chat(headers={"authorization": f"Bearer {key}", **(headers or {})}, **fields)

    async def get(self, path: str, key: str) -> httpx.Response:
        return await self.http.get(path, headers={"authorization": f"Bearer {key}"})

    async def delete(self, key: str, /, **query: str) -> httpx.Response:
        return await self.http.delete("/v1/decisions", params=query, headers={"authorization": f"Bearer {key}"})


@pytest.fixture
async def keyed(world: World) -> AsyncIterator[Keyed]:
    app = make_app(world, keys=KEYS)
    async with make_client(app, raise_app_exceptions=False) as http:
        yield Keyed(world, app, http)


# Tiers and threshold


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [({"model": "large"}, {}, "model"), ({"model": "large-model"}, {}, "model"), ({}, {"x-tierwise-tier": "large"}, "x-tierwise-tier")],
)
async def test_a_tier_that_is_not_the_keys_is_forbidden(keyed: Keyed, fields: Any, headers: dict[str, str], param: str) -> None:
    response = await keyed.ask("small", headers=headers, **fields)
    assert (response.status_code, response.json()["error"]["type"], response.json()["error"]["param"]) == (403, "permission_error", param)
    assert "large" in response.json()["error"]["message"]
    assert keyed.world.large.calls == keyed.world.small.calls == []


async def test_a_keys_own_tier_may_be_named(keyed: Keyed) -> None:
    assert (await keyed.ask("small", model="small")).status_code == 200


async def test_the_request_carries_its_client_into_the_decision(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = keyed.world.recorder.finish
    monkeypatch.setattr(keyed.world.recorder, "finish", lambda trip, outcome: (seen.append(trip.request), real(trip, outcome))[1])
    await keyed.ask("small")
    assert seen[0].client == Client("small-only", False, (Tier.SMALL,), None)


async def test_models_lists_what_the_key_may_use(keyed: Keyed) -> None:
    listed = (await keyed.get("/v1/models", "small")).json()["data"]
    assert [item["id"] for item in listed] == ["auto", "small", "small-model"]
    assert (await keyed.get("/v1/models/large", "small")).status_code == 404
    assert (await keyed.get("/v1/models/large", "plain")).status_code == 200


async def test_a_keys_threshold_holds_unless_the_request_gives_one(keyed: Keyed) -> None:
    assert (await keyed.ask("strict")).headers["x-tierwise-threshold"] == "0.05"
    assert (await keyed.ask("strict", headers={"x-tierwise-threshold": "0.9"})).headers["x-tierwise-threshold"] == "0.9"
    assert (await keyed.ask("plain")).headers["x-tierwise-threshold"] == "0.65"
    route = await keyed.http.post("/route", json={"prompt": "hello"}, headers={"authorization": "Bearer strict"})
    assert route.json()["threshold"] == 0.05


# Sizes


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_more_tokens_than_the_key_allows_are_refused_with_the_limit(keyed: Keyed, field: str) -> None:
    check_error(await keyed.ask("short", **{field: 51}), 400, says="51 is more than the 50 allowed", param=field)
    assert (await keyed.ask("short", **{field: 50})).status_code == 200
    assert keyed.world.small.calls[0].body[field] == 50


async def test_a_request_without_max_tokens_gets_the_limit(keyed: Keyed) -> None:
    await keyed.ask("short")
    await keyed.ask("plain")
    with_limit, without = (call.body for call in keyed.world.small.calls)
    assert with_limit["max_tokens"] == 50
    assert "max_tokens" not in without


async def test_the_endpoints_own_limit_of_tokens_holds_in_open_mode_too(world: World) -> None:
    async with make_client(make_app(world, limits={"max_tokens": 20})) as http:
        check_error(await http.post("/v1/completions", json={"prompt": "x", "max_tokens": 21}), 400, param="max_tokens")
        assert (await http.post("/v1/completions", json={"prompt": "x"})).status_code == 200
    assert world.small.calls[0].body["max_tokens"] == 20


async def test_messages_and_bytes_are_bounded_by_the_key(keyed: Keyed) -> None:
    messages = [{"role": "user", "content": "x"}]
    check_error(await keyed.ask("short", messages=messages * 3), 400, says="3 are more than the 2", param="messages")
    check_error(await keyed.ask("short", messages=[{"role": "user", "content": "x" * 500}]), 413, says="400 bytes")
    assert (await keyed.ask("plain", messages=messages * 3)).status_code == 200
    route = await keyed.http.post("/route", json={"messages": messages * 3}, headers={"authorization": "Bearer short"})
    check_error(route, 400, param="messages")


@pytest.mark.parametrize(("own", "held"), [(10, 10), (5000, 2048), (None, 2048)])
def test_the_smaller_of_both_limits_holds(own: int | None, held: int) -> None:
    key = Key(id="a", sha256="0" * 64, max_messages=own, max_tokens=own)
    limits = narrowed(Limits(), key)
    assert (limits.max_messages, limits.max_tokens) == (held, own)
    assert limits.max_body_bytes == Limits().max_body_bytes


# Rates and the budget


async def test_beyond_its_rate_a_key_is_told_when_to_come_again(keyed: Keyed) -> None:
    assert [(await keyed.ask("slow")).status_code for _ in range(3)] == [200, 200, 429]
    response = await keyed.ask("slow")
    check_error(response, 429, code="rate_limit_exceeded", says="2 requests per minute")
    wait = int(response.headers["retry-after"])
    assert 60 < wait <= 120
    assert len(keyed.world.small.calls) == 2
    keyed.world.clock.advance(wait)
    assert (await keyed.ask("slow")).status_code == 200


async def test_a_dry_run_is_a_request_that_takes_no_tokens(keyed: Keyed) -> None:
    async def route(key: str) -> httpx.Response:
        return await keyed.http.post("/route", json={"prompt": "hello " * 2000}, headers={"authorization": f"Bearer {key}"})

    answers = [await keyed.ask("slow"), await route("slow"), await route("slow"), await keyed.ask("slow")]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]  # too few tokens are left for so long a prompt
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0", "0"]
    await keyed.ask("poor")
    spent = await route("poor")
    assert (spent.status_code, spent.json()["error"]["code"]) == (429, "insufficient_quota")


async def test_what_a_limit_refuses_is_counted_by_the_limit(keyed: Keyed) -> None:
    held = Held(keyed.world)
    running = [asyncio.create_task(keyed.ask("slow", max_tokens=1500))]
    await until(lambda: keyed.world.small.calls)
    assert (await keyed.ask("slow", max_tokens=1500)).status_code == 429
    assert keyed.world.observer.refusals == ["tokens"]
    held.gate.set()
    await asyncio.gather(*running)
    assert [(await keyed.ask("slow")).status_code for _ in range(2)] == [200, 429]
    assert [(await keyed.ask("poor")).status_code for _ in range(2)] == [200, 429]
    assert keyed.world.observer.refusals == ["tokens", "requests", "budget"]


async def test_a_limited_keys_answers_all_carry_its_rates(keyed: Keyed) -> None:
    first = await keyed.ask("slow")
    assert (first.headers["x-ratelimit-limit-requests"], first.headers["x-ratelimit-remaining-requests"]) == ("2", "1")
    assert (first.headers["x-ratelimit-limit-tokens"], first.headers["x-ratelimit-remaining-tokens"]) == ("2000", "1970")  # 10 + 20 used
    assert first.headers["x-ratelimit-reset-requests"].startswith("1m")
    keyed.world.small.script = stream_script("a")
    answers = [
        await keyed.ask("slow", stream=True),
        await keyed.ask("slow"),
        await keyed.ask("slow", n=0),
        await keyed.get("/status", "slow"),
    ]
    assert [answer.status_code for answer in answers] == [200, 429, 400, 200]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["0"] * 4
    keyed.world.small.script = [KeyError("bug")]
    keyed.world.clock.advance(120)
    assert (await keyed.ask("slow")).status_code == 500
    assert (await keyed.ask("slow")).headers["x-ratelimit-remaining-requests"] == "0"


async def test_an_unlimited_key_has_no_such_headers(keyed: Keyed) -> None:
    assert not [name for name in (await keyed.ask("plain")).headers if name.startswith("x-ratelimit")]


async def test_what_was_refused_or_failed_gives_its_tokens_back(keyed: Keyed) -> None:
    keyed.world.small.script = keyed.world.large.script = [EngineFailed("broken")]
    response = await keyed.ask("slow", max_tokens=1500)
    assert response.status_code == 502
    assert response.headers["x-ratelimit-remaining-tokens"] == "2000"
    await keyed.ask("slow", n=0)
    assert response.headers["x-ratelimit-remaining-requests"] == "1"


async def test_a_bug_before_any_record_gives_the_tokens_back_too(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(request: Any) -> Any:
        raise RuntimeError("bug")

    monkeypatch.setattr("serve_app.pipeline.Pipeline.answer", lambda self, request: broken(request))
    assert (await keyed.ask("slow", max_tokens=1500)).headers["x-ratelimit-remaining-tokens"] == "2000"


async def test_a_request_that_runs_holds_its_tokens(keyed: Keyed) -> None:
    held = Held(keyed.world)
    task = asyncio.create_task(keyed.ask("slow", max_tokens=1500))
    await until(lambda: keyed.world.small.calls)
    response = await keyed.ask("slow", max_tokens=600)
    check_error(response, 429, code="rate_limit_exceeded", says="2000 tokens per minute")
    assert int(response.headers["x-ratelimit-remaining-tokens"]) < 500
    held.gate.set()
    assert (await task).headers["x-ratelimit-remaining-tokens"] == "1970"


async def test_a_spent_budget_is_told_in_openais_words(keyed: Keyed) -> None:
    assert (await keyed.ask("poor")).status_code == 200
    response = await keyed.ask("poor")
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
    assert 0 < int(response.headers["retry-after"]) <= 86_400
    assert len(keyed.world.small.calls) == 1


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 10}, 112),  # the role is text too
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 396}]}], "max_completion_tokens": 10}, 112),
        ({"messages": [{"role": "user", "content": [{"image_url": {"url": "data:" + "A" * 9000}}]}]}, 258),
        ({"prompt": ["x" * 40, "y" * 40], "max_tokens": 10, "n": 2}, 61),
        ({"prompt": ""}, 257),
        ({"prompt": "data:" + "x" * 395, "max_tokens": 10}, 111),  # what a text looks like does not make it a picture
        ({"messages": [{"content": "data:" + "x" * 395}], "max_tokens": 10}, 111),
        ({"messages": [{"input_audio": {"data": "A" * 9000}}, {"file": {"file_data": "A" * 9000}}], "max_tokens": 10}, 11),
        ({"prompt": "", "tools": [{"file": "x" * 386}], "max_tokens": 10}, 111),  # [{"file": ""}] are 14 more
        ({"prompt": "", "response_format": {"x" * 394: 1}, "max_tokens": 10}, 111),
    ],
)
def test_the_estimate_counts_text_answers_and_choices(body: Any, tokens: int) -> None:
    assert expected_tokens(make_request(body=body)) == tokens


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.25, "250ms"), (1, "1s"), (59.4, "59s"), (60, "1m0s"), (90, "1m30s"), (119.9, "2m0s")]
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# Replicas, reloads


async def test_a_replica_gives_its_counts_and_takes_over_the_others(world: World, tmp_path: Path) -> None:
    file = write_keys(tmp_path / "keys.yaml", {"slow": {"requests_per_minute": 10}, "poor": {"monthly_budget_usd": 1.0}})
    sent: list[Any] = []
    window, month = int(world.clock.now() // 60), 1698796800.0  # 1 November 2023, the month of the fakes' clock

    async def exchange(replica: str, rows: list[Any], budgeted: list[str]) -> Any:
        sent.append((replica, rows, budgeted))
        return {"others": [["k0", window, 10, 100]], "month": month, "spent": {"k1": 2.0}}

    settings = make_settings(auth={"mode": "keys", "keys_file": str(file)})
    access = make_access(settings.auth, settings.limits, {}, clock=world.clock, replica="one", exchange=exchange)
    async with make_client(make_app(world, access=access)) as http:
        statuses = []
        for _ in range(2):
            statuses += [
                (await http.post("/v1/chat/completions", json=BODY, headers={"authorization": f"Bearer {key}"})).status_code
                for key in ("slow", "poor")
            ]
            await access.refresh()
    assert statuses == [200, 200, 429, 429]
    assert sent[0] == ("one", [["k0", window, 1, 30], ["k1", window, 1, 30]], ["k1"])


async def test_without_a_ledger_the_replica_counts_alone(world: World) -> None:
    async def away(replica: str, rows: list[Any], budgeted: list[str]) -> None:
        return None

    settings = make_settings(auth={"mode": "keys"})
    access = make_access(settings.auth, settings.limits, {"TIERWISE_API_KEYS": "key"}, clock=world.clock, replica="one", exchange=away)
    await access.refresh()
    async with make_client(make_app(world, access=access)) as http:
        assert (await http.get("/v1/models", headers={"authorization": "Bearer key"})).status_code == 200


async def test_a_key_that_is_taken_out_of_the_file_is_out_at_once(world: World, tmp_path: Path) -> None:
    file = write_keys(tmp_path / "keys.yaml", {"old": {}})
    ring = KeyRing(Auth(mode="keys", keys_file=str(file)), {})
    access = Access(Limits(), ring, clock=world.clock)
    running = asyncio.create_task(access.run())
    async with make_client(make_app(world, access=access)) as http:
        write_keys(file, {"new": {}, "newer": {}})
        await until(lambda: ring.find("old") is None, timeout_s=10)
        assert (await http.get("/v1/models", headers={"authorization": "Bearer old"})).status_code == 401
        assert (await http.get("/v1/models", headers={"authorization": "Bearer new"})).status_code == 200
    running.cancel()


async def test_an_open_endpoint_has_nothing_to_refresh(world: World) -> None:
    async def exchange(replica: str, rows: list[Any], budgeted: list[str]) -> Any:
        raise AssertionError("nothing is counted")

    access = make_access(Auth(), Limits(), {}, clock=world.clock, replica="one", exchange=exchange)
    await access.refresh()
    assert access.headers(Caller(Client(), Limits())) == {}


@pytest.mark.parametrize("header", [f"Bearer {digest('plain')}", "Bearer  ", "Bearer", "plain", "Basic plain", "Bearer plain extra"])
async def test_only_the_key_itself_lets_in(keyed: Keyed, header: str) -> None:
    assert (await keyed.http.get("/v1/models", headers={"authorization": header})).status_code == 401


# Reading and deleting


async def test_a_key_reads_its_own_decisions_and_an_admin_all(keyed: Keyed) -> None:
    path = f"/v1/decisions/{(await keyed.ask('plain')).headers['x-tierwise-decision-id']}"
    assert [(await keyed.get(path, key)).status_code for key in ("plain", "boss", "other")] == [200, 200, 404]
    assert (await keyed.get(path, "other")).json() == (await keyed.get("/v1/decisions/tw-none", "other")).json()


async def test_in_open_mode_every_decision_is_read(endpoint: Endpoint) -> None:
    path = f"/v1/decisions/{(await endpoint.chat()).headers['x-tierwise-decision-id']}"
    assert (await endpoint.http.get(path)).status_code == 200


async def test_status_is_detailed_for_an_admin_only(keyed: Keyed) -> None:
    keyed.world.large.is_ready = False
    short = (await keyed.get("/status", "plain")).json()
    tiers = {"small": {"ready": True, "state": "up"}, "large": {"ready": False, "state": "down"}}
    assert short == {"version": __version__, "tiers": tiers}
    full = (await keyed.get("/status", "boss")).json()
    assert full["profile"] == "local"
    assert full["access"] == {"mode": "keys", "keys": len(KEYS), "file_problem": None, "files_refused": 0}


@pytest.mark.parametrize(
    ("key", "query", "asked"),
    [
        ("plain", {"session": "s"}, ("plain", "s")),
        ("plain", {"key": "plain"}, ("plain", None)),
        ("plain", {"key": "plain", "session": "s"}, ("plain", "s")),
        ("boss", {"session": "s"}, (None, "s")),
        ("boss", {"key": "plain"}, ("plain", None)),
        ("boss", {"key": "plain", "session": "s"}, ("plain", "s")),
    ],
)
async def test_a_key_deletes_its_own_and_an_admin_anyones(keyed: Keyed, key: str, query: dict[str, str], asked: Any) -> None:
    await keyed.ask("plain", headers={"x-session-id": "s"})
    await keyed.ask("other", headers={"x-session-id": "s"})
    response = await keyed.delete(key, **query)
    assert (response.status_code, response.json()) == (200, {"deleted": 2 if asked[0] is None else 1})
    assert keyed.world.ledger.forgotten == [asked]


@pytest.mark.parametrize("query", [{"key": "other"}, {"key": "other", "session": "s"}])
async def test_what_is_anothers_is_not_deleted(keyed: Keyed, query: dict[str, str]) -> None:
    assert (await keyed.delete("plain", **query)).status_code == 403
    assert keyed.world.ledger.forgotten == []


@pytest.mark.parametrize(
    "query", [{}, {"session": ""}, {"session": "s" * 257}, {"key": ""}, {"session": "a\0"}, {"key": "\0", "session": "s"}]
)
async def test_a_deletion_must_say_of_what(keyed: Keyed, query: dict[str, str]) -> None:
    check_error(await keyed.delete("boss", **query), 400)
    assert keyed.world.ledger.forgotten == []


async def test_in_open_mode_a_session_is_deleted(endpoint: Endpoint) -> None:
    await endpoint.chat(headers={"x-session-id": "s"})
    assert (await endpoint.http.delete("/v1/decisions", params={"session": "s"})).json() == {"deleted": 1}
    assert endpoint.world.ledger.forgotten == [(None, "s")]


async def test_a_session_is_deleted_under_the_name_that_the_client_wrote(endpoint: Endpoint) -> None:
    body = b'{"messages": [{"role": "user", "content": "hello"}]}'
    await endpoint.http.post("/v1/chat/completions", content=body, headers=[(b"x-session-id", "é".encode())])
    assert endpoint.world.ledger.records[0].session == "é"
    assert (await endpoint.http.delete("/v1/decisions", params={"session": "é"})).json() == {"deleted": 1}


async def test_a_session_that_no_database_keeps_is_refused(endpoint: Endpoint) -> None:
    check_error(await endpoint.chat(headers={"x-session-id": "a\0b"}), 400, param="x-session-id")


async def test_a_deletion_that_may_be_incomplete_is_not_told_as_done(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(key: str | None, session: str | None) -> int:
        raise NotReady("The ledger does not answer.", retry_after=5.0)

    monkeypatch.setattr(keyed.world.ledger, "forget", away)
    response = await keyed.delete("plain", session="s")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
