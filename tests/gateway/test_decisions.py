"""`GET /v1/decisions`: pages, filters, and whose decisions are listed; and the receipt that says why."""

from typing import Any

import pytest

from tests.fakes import World
from tests.gateway.conftest import Endpoint, make_app, make_client


async def pages(endpoint: Endpoint, limit: int) -> list[list[str]]:
    found, cursor = [], None
    while True:
        query = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        body = (await endpoint.http.get("/v1/decisions", params=query)).json()
        found.append([item["id"] for item in body["data"]])
        cursor = body["next_cursor"]
        assert body["has_more"] is (cursor is not None)
        if cursor is None:
            return found


async def test_pages_hold_every_decision_once_newest_first(endpoint: Endpoint) -> None:
    for number in range(5):
        endpoint.world.clock.advance(number % 2)  # some at the same moment
        await endpoint.chat()
    records = sorted(endpoint.world.ledger.records, key=lambda record: (record.created, record.id), reverse=True)
    found = await pages(endpoint, 2)
    assert [len(page) for page in found] == [2, 2, 1]
    assert [name for page in found for name in page] == [record.id for record in records]


async def test_a_page_that_is_just_full_is_the_last(endpoint: Endpoint) -> None:
    for _ in range(2):
        await endpoint.chat()
    assert [len(page) for page in await pages(endpoint, 2)] == [2]


async def test_an_entry_tells_what_was_saved_and_no_prompt(endpoint: Endpoint) -> None:
    await endpoint.chat("a very secret question")
    answer = await endpoint.http.get("/v1/decisions")
    (entry,) = answer.json()["data"]
    assert (entry["object"], entry["tier"], entry["reason"], entry["score"]) == ("decision", "small", "score_below", 0.1)
    assert entry["saved_usd"] == pytest.approx(entry["all_large_usd"] - entry["cost_usd"])
    assert "secret" not in answer.text
    assert answer.headers["x-tierwise-schema"] == "1"


async def test_filters_reach_the_ledger_as_they_were_given(endpoint: Endpoint) -> None:
    query: dict[str, Any] = {"tier": "small", "reason": "score_below", "outcome": "ok", "mode": "normal", "session": "é"}
    query |= {"key": "k", "since": 1.5, "until": 2.5, "min_score": 0.1, "max_score": 1}
    assert (await endpoint.http.get("/v1/decisions", params={**query, "limit": 7})).status_code == 200
    (asked,) = endpoint.world.ledger.queries
    assert {name: getattr(asked, name) for name in query} == query
    assert asked.limit == 8, "one more tells whether there is another page"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("tiers=small", "tiers"),
        ("tier=medium", "tier"),
        ("reason=because", "reason"),
        ("outcome=OK", "outcome"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("since=nan", "since"),
        ("until=-1", "until"),
        ("min_score=1.5", "min_score"),
        ("session=", "session"),
        ("session=%00", "session"),
        ("key=" + "k" * 257, "key"),
        ("cursor=1", "cursor"),
        ("cursor=1_%00", "cursor"),
        ("tier=small&tier=large", "tier"),
    ],
)
async def test_a_wrong_query_is_a_400_that_names_the_parameter(endpoint: Endpoint, query: str, param: str) -> None:
    answer = await endpoint.http.get(f"/v1/decisions?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert endpoint.world.ledger.queries == []


async def test_a_key_lists_its_own_decisions_and_an_admin_every_keys(world: World) -> None:
    keys: dict[str, dict[str, Any]] = {"one": {"id": "a"}, "two": {"id": "b"}, "boss": {"id": "c", "admin": True}}
    async with make_client(make_app(world, keys)) as http:

        async def listed(secret: str, **query: str) -> Any:
            answer = await http.get("/v1/decisions", params=query, headers={"authorization": f"Bearer {secret}"})
            return [item["key"] for item in answer.json()["data"]] if answer.status_code == 200 else answer.status_code

        for secret in ("one", "two"):
            body = {"messages": [{"role": "user", "content": "hello"}]}
            await http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"})
        assert [await listed("one"), await listed("one", key="a"), await listed("two")] == [["a"], ["a"], ["b"]]
        assert await listed("one", key="b") == 403
        assert sorted(await listed("boss")) == ["a", "b"]
        assert await listed("boss", key="b") == ["b"]
        assert (await http.get("/v1/decisions")).status_code == 401


async def test_the_query_is_in_the_document_with_its_bounds(endpoint: Endpoint) -> None:
    documented = (await endpoint.http.get("/openapi.json")).json()["paths"]["/v1/decisions"]["get"]
    parameters = {item["name"]: item["schema"] for item in documented["parameters"]}
    assert parameters["limit"]["maximum"] == 500
    assert {"cursor", "since", "until", "tier", "reason", "outcome", "mode", "session", "key", "min_score", "max_score"} < set(parameters)
    assert "guard_context" in parameters["reason"]["anyOf"][0]["enum"]


async def test_a_receipt_says_why_and_so_does_the_dry_run(endpoint: Endpoint) -> None:
    await endpoint.chat()
    (record,) = endpoint.world.ledger.records
    found = (await endpoint.http.get(f"/v1/decisions/{record.id}")).json()
    dry = (await endpoint.http.post("/route", json={"prompt": "hello"})).json()
    for told in (found["why"], dry["why"]):
        assert told["flip"] == {"to": "large", "threshold": {"at_most": 0.1}, "signals": {"embedding": 0.65}}
        assert told["guards"] == {"allowed": ["small", "large"], "reason": None}
    assert set(found["why"]["stages"]) == {"guards", "embedding", "assessment", "conversation", "decision", "attempts", "total"}
    assert dry["settings"] == found["decision"]["settings"]
