"""The OpenAPI document: bodies that we read ourselves, every status that may come, and the shape of errors."""

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain import Json
from serve_app.gateway import openai

REQUEST_HEADERS = ["x-tierwise-tier", "x-tierwise-threshold", "x-tierwise-debug", "x-session-id"]
ANSWER_HEADERS = [
    *(f"x-tierwise-{name}" for name in ("schema", "decision-id", "tier", "model", "score", "threshold", "reason", "mode", "overhead-ms")),
    *(f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")),
    "retry-after",
]
SAYS = {
    400: "The request is at fault; the message names the field.",
    401: "No known API key.",
    403: "The API key may not do that; without keys: this host or web page may not ask.",
    404: "There is no such thing.",
    405: "The method is not allowed here.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    429: "Too much at once, or a limit of the key is reached; `Retry-After` says when to come again.",
    500: "A fault of ours.",
    502: "The model failed to answer.",
    503: "Not ready yet, or the ledger does not answer; `Retry-After` says when to come again.",
    504: "The model did not answer in time.",
}
OF_A_BODY = (400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504)
AGAIN = {"retry-after": {"description": "Seconds.", "required": False, "schema": {"type": "string", "pattern": "^[0-9]+$"}}}


class ErrorDetail(BaseModel):
    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None = Field()
    code: str | None = Field()


class ErrorBody(BaseModel):
    """OpenAI's shape, with every error status."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorDetail


def install(app: FastAPI, *, keys: bool) -> None:
    """Make the document once, without FastAPI's own 422, which never comes, and with the key where one is asked for."""
    made = app.openapi

    def openapi() -> Json:
        if app.openapi_schema is None:
            app.openapi_schema = _finished(made(), keys=keys)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _finished(document: Json, *, keys: bool) -> Json:
    components = document.setdefault("components", {})
    for name in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(name, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            if keys and "401" in operation["responses"]:
                operation["security"] = [{"key": []}]
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _failure(status) for status in statuses}


def _failure(status: int) -> dict[str, Any]:
    return {"model": ErrorBody, "description": SAYS[status], **({"headers": AGAIN} if status in (429, 503) else {})}


def plain(says: str, *statuses: int, loading: bool = False) -> dict[str, Any]:
    """For a route that answers with an object; `loading`: its 503 is such an object too."""
    answer = {"description": says, "content": {"application/json": {"schema": {"type": "object"}}}}
    responses: dict[int | str, dict[str, Any]] = {200: answer, **failures(*statuses, 500)}
    if loading:
        responses[503] = {**answer, "description": SAYS[503], "headers": AGAIN}
    return {"responses": responses}


def listing(query: type[BaseModel], answer: type[BaseModel]) -> dict[str, Any]:
    """For a route whose query we read ourselves, so that an error names the parameter at fault."""
    made = {200: {"model": answer, "description": "One page."}, **failures(400, 401, 403, 500, 503)}
    return {"responses": made, "openapi_extra": {"parameters": _queries(query)}}


def _queries(model: type[BaseModel]) -> list[Json]:
    schema = model.model_json_schema()
    fields = _inline(schema["properties"], schema.get("$defs", {}), "#/$defs/")
    return [{"name": name, "in": "query", "required": False, "schema": field} for name, field in fields.items()]


def generation(body: type[openai.SamplingFields]) -> dict[str, Any]:
    """For a route that answers with a body or, when asked for a stream, with events."""
    content = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "string"}}}
    responses = {200: {"description": "The answer.", "content": content}, **failures(*OF_A_BODY)}
    return {"responses": responses, "openapi_extra": {**_body(body), "parameters": _headers(REQUEST_HEADERS)}}


def route() -> dict[str, Any]:
    documented = plain("The decision.", *OF_A_BODY)
    return {**documented, "openapi_extra": {**_body(openai.RouteBody), "parameters": _headers(["x-tierwise-threshold"])}}


def written(body: type[BaseModel], answer: type[BaseModel], says: str) -> dict[str, Any]:
    """For a route that keeps what its body says in the ledger, and asks no model."""
    made = {200: {"model": answer, "description": says}, **failures(400, 401, 403, 404, 408, 413, 500, 503)}
    return {"responses": made, "openapi_extra": _body(body)}


def _headers(names: list[str]) -> list[Json]:
    schemas: Json = {
        "x-tierwise-tier": {"type": "string", "enum": ["small", "large"]},
        "x-tierwise-threshold": {"type": "string", "pattern": r"^(0(\.[0-9]{1,20})?|1(\.0{1,20})?)$"},
    }
    return [{"name": name, "in": "header", "required": False, "schema": schemas.get(name, {"type": "string"})} for name in names]


def _body(model: type[BaseModel]) -> Json:
    """The body's schema: we read it ourselves, so that FastAPI does not see it."""
    schema = model.model_json_schema(ref_template=f"#/components/schemas/{model.__name__}.{{model}}")
    schema = _inline(schema, schema.pop("$defs", {}), f"#/components/schemas/{model.__name__}.")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inline(node: Any, definitions: Json, prefix: str) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            return _inline(definitions[node["$ref"].removeprefix(prefix)], definitions, prefix)
        return {key: _inline(value, definitions, prefix) for key, value in node.items()}
    return [_inline(item, definitions, prefix) for item in node] if isinstance(node, list) else node
