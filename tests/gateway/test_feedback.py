"""`POST /v1/feedback` over fakes: who may say what of which answer, and what is kept of it."""

from typing import Any

import pytest

from serve_app.domain import Feedback, Tier
from tests.fakes import World
from tests.gateway.conftest import Endpoint, make_app, make_client


async def answered(endpoint: Endpoint) -> str:
    return str((await endpoint.chat()).json()["tierwise"]["decision_id"])


@pytest.mark.parametrize(("said", "score"), [({"score": 0.25}, 0.25), ({"score": 1}, 1.0), ({"good": True}, 1.0), ({"good": False}, 0.0)])
async def test_what_is_said_is_kept_beside_the_decision_and_counted(endpoint: Endpoint, said: dict[str, Any], score: float) -> None:
    decision_id = await answered(endpoint)
    answer = await endpoint.http.post("/v1/feedback", json={"decision_id": decision_id, "comment": "né", **said})
    given = Feedback(decision_id, endpoint.world.clock.now(), Tier.SMALL, score, "né")
    assert endpoint.world.ledger.told == endpoint.world.observer.told_of == [given]
    body = answer.json()
    assert (answer.status_code, answer.headers["x-tierwise-schema"]) == (200, "1")
    assert {name: body[name] for name in ("object", "decision_id", "tier", "score", "good")} == {
        "object": "feedback",
        "decision_id": decision_id,
        "tier": "small",
        "score": score,
        "good": score >= 0.5,
    }
    assert "ledger.store_prompts" in body["note"]


async def test_where_prompts_are_stored_nothing_is_noted(world: World) -> None:
    async with make_client(make_app(world, ledger={"store_prompts": True})) as http:
        decision_id = await answered(Endpoint(world, None, http))  # type: ignore[arg-type]
        assert (await http.post("/v1/feedback", json={"decision_id": decision_id, "good": True})).json()["note"] is None


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({}, "score"),
        ({"score": 0.5, "good": True}, "score"),
        ({"score": 1.5}, "score"),
        ({"score": True}, "score"),
        ({"score": "1"}, "score"),
        ({"good": 1}, "good"),
        ({"good": True, "comment": "x" * 2001}, "comment"),
        ({"good": True, "decision_id": None}, "decision_id"),
        ({"good": True, "stars": 5}, "stars"),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_the_field(endpoint: Endpoint, said: dict[str, Any], param: str) -> None:
    answer = await endpoint.http.post("/v1/feedback", json={"decision_id": await answered(endpoint), **said})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert endpoint.world.ledger.told == endpoint.world.observer.told_of == []


@pytest.mark.parametrize("decision_id", ["tw-" + "0" * 32, "none", ""])
async def test_a_decision_that_never_was_is_a_404(endpoint: Endpoint, decision_id: str) -> None:
    answer = await endpoint.http.post("/v1/feedback", json={"decision_id": decision_id, "good": True})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "decision_not_found")


async def test_a_key_judges_its_own_decisions_and_an_admin_every_keys(world: World) -> None:
    keys: dict[str, dict[str, Any]] = {"one": {"id": "a"}, "two": {"id": "b"}, "boss": {"id": "c", "admin": True}}
    async with make_client(make_app(world, keys)) as http:
        headers = {name: {"authorization": f"Bearer {name}"} for name in keys}
        body = {"messages": [{"role": "user", "content": "hello"}]}
        chat = await http.post("/v1/chat/completions", json=body, headers={**headers["one"], "x-session-id": "s"})
        said = {"decision_id": chat.json()["tierwise"]["decision_id"], "good": False}
        statuses = {name: (await http.post("/v1/feedback", json=said, headers=headers[name])).status_code for name in keys}
        assert statuses == {"one": 200, "two": 404, "boss": 200}
        assert (await http.post("/v1/feedback", json=said)).status_code == 401
    assert [(told.by, told.key, told.session) for told in world.ledger.told] == [("a", "a", "s"), ("c", "a", "s")]


async def test_a_decision_that_is_not_written_yet_is_found(endpoint: Endpoint) -> None:
    decision_id = await answered(endpoint)
    (record,) = endpoint.world.ledger.records
    endpoint.world.ledger.records.clear()
    endpoint.world.recorder._open[decision_id] = record
    assert (await endpoint.http.post("/v1/feedback", json={"decision_id": decision_id, "good": True})).status_code == 200


async def test_the_document_tells_the_body_and_the_answer_keeps_to_it(endpoint: Endpoint) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = (await endpoint.http.get("/openapi.json")).json()
    operation = document["paths"]["/v1/feedback"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert (schema["required"], schema["properties"]["comment"]["anyOf"][0]["maxLength"]) == (["decision_id"], 2000)
    answer = await endpoint.http.post("/v1/feedback", json={"decision_id": await answered(endpoint), "good": True})
    kept = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**kept, "components": document["components"]})
    assert set(operation["responses"]) >= {"200", "400", "401", "404", "413", "503"}
