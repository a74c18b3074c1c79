"""The OpenAPI document tells what really comes: every route, status and body."""

import json
from typing import Any

import pytest

from serve_app.errors import EngineFailed
from tests.fakes import World
from tests.gateway.conftest import Endpoint, make_app, make_client


async def test_the_openapi_document_lists_every_route_and_body(endpoint: Endpoint) -> None:
    document = (await endpoint.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    routes = {(method, path) for path, item in document["paths"].items() for method in item}
    assert routes >= {
        ("post", "/v1/chat/completions"),
        ("post", "/v1/completions"),
        ("post", "/route"),
        ("get", "/v1/models"),
        ("get", "/v1/decisions/{decision_id}"),
        ("get", "/status"),
        ("get", "/health"),
        ("get", "/ready"),
    }
    chat = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"messages", "model", "tools", "response_format", "top_k"} <= set(chat["properties"])
    assert chat["properties"]["messages"]["items"]["required"] == ["role"]
    assert chat["additionalProperties"] is False


async def test_every_schema_of_the_openapi_document_is_valid(endpoint: Endpoint) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = (await endpoint.http.get("/openapi.json")).json()
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["responses"]
            for media in operation.get("requestBody", {}).get("content", {}).values():
                jsonschema.Draft202012Validator.check_schema(media["schema"])
    references = [found for found in json.dumps(document).split('"$ref": "')[1:] if not found.startswith("#/components/schemas/")]
    assert references == []
    named = {found.split('"')[0].rpartition("/")[2] for found in json.dumps(document).split('"$ref": "')[1:]}
    assert named <= set(document.get("components", {}).get("schemas", {}))


async def test_a_body_of_the_documents_own_schema_is_accepted(endpoint: Endpoint) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = (await endpoint.http.get("/openapi.json")).json()
    schema = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    body = {"model": "auto", "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}], "stop": ["."], "n": 2}
    jsonschema.validate(body, schema)
    assert (await endpoint.raw(json.dumps(body))).status_code == 200


async def document_of(world: World, **options: Any) -> Any:
    async with make_client(make_app(world, **options)) as http:
        return (await http.get("/openapi.json")).json()


async def test_every_error_that_may_come_is_documented_in_openais_shape(world: World) -> None:
    paths = (await document_of(world))["paths"]
    expected = {"400", "401", "403", "404", "408", "413", "429", "500", "502", "503", "504"}
    for path in ("/v1/chat/completions", "/v1/completions", "/route"):
        responses = paths[path]["post"]["responses"]
        assert expected <= set(responses)
        for status in expected:
            assert responses[status]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}
        assert {"retry-after"} == set(responses["429"]["headers"]) == set(responses["503"]["headers"])
    assert {"text/event-stream", "application/json"} == set(paths["/v1/chat/completions"]["post"]["responses"]["200"]["content"])


async def test_the_validation_error_that_never_comes_is_not_documented(world: World) -> None:
    text = json.dumps(await document_of(world))
    assert "HTTPValidationError" not in text
    assert '"422"' not in text


async def test_queries_and_headers_are_documented(world: World) -> None:
    paths = (await document_of(world))["paths"]
    assert {item["name"] for item in paths["/v1/decisions"]["delete"]["parameters"]} == {"session", "key"}
    names = {item["name"] for item in paths["/v1/chat/completions"]["post"]["parameters"]}
    assert names == {"x-tierwise-tier", "x-tierwise-threshold", "x-tierwise-debug", "x-session-id"}


@pytest.mark.parametrize("keys", [True, False])
async def test_the_key_is_documented_where_one_is_asked_for(world: World, keys: bool) -> None:
    document = await document_of(world, keys={"key": {}} if keys else None)
    assert ("securitySchemes" in document["components"]) is keys
    guarded = {path for path, item in document["paths"].items() for operation in item.values() if "security" in operation}
    assert guarded == (set(document["paths"]) - {"/health", "/ready"} if keys else set())


async def test_real_answers_keep_to_the_document(endpoint: Endpoint) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = (await endpoint.http.get("/openapi.json")).json()
    answers = [
        ("/v1/chat/completions", "post", await endpoint.chat()),
        ("/v1/chat/completions", "post", await endpoint.chat(n=0)),
        ("/v1/chat/completions", "post", await endpoint.chat(model="none")),
        ("/route", "post", await endpoint.http.post("/route", json={})),
        ("/v1/models/{name}", "get", await endpoint.http.get("/v1/models/none")),
        ("/v1/decisions/{decision_id}", "get", await endpoint.http.get("/v1/decisions/none")),
        ("/v1/decisions", "delete", await endpoint.http.delete("/v1/decisions")),
        ("/v1/decisions", "delete", await endpoint.http.delete("/v1/decisions", params={"session": "s"})),
        ("/status", "get", await endpoint.http.get("/status")),
    ]
    endpoint.world.small.script = endpoint.world.large.script = [EngineFailed("broken")]
    answers.append(("/v1/completions", "post", await endpoint.complete()))
    endpoint.world.small.is_ready = endpoint.world.large.is_ready = False
    answers += [("/v1/completions", "post", await endpoint.complete()), ("/ready", "get", await endpoint.http.get("/ready"))]
    seen = set()
    for path, method, answer in answers:
        documented = document["paths"][path][method]["responses"][str(answer.status_code)]
        media = documented["content"][answer.headers["content-type"].split(";")[0]]
        jsonschema.validate(answer.json(), {**media["schema"], "components": document["components"]})
        seen.add(answer.status_code)
    assert seen == {200, 400, 404, 502, 503}
