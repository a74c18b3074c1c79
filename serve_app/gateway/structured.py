"""Tools, response formats and log-probabilities: combinations that OpenAI's API refuses, refused before an engine sees them."""

from typing import NoReturn

from serve_app.domain import Json
from serve_app.errors import RequestError

CHOICES = ("none", "auto", "required")
FORMATS = ("text", "json_object", "json_schema")
MAX_REFERENCES = 200


def check_structured(body: Json) -> None:
    """Raises `RequestError` naming the field at fault."""
    _check_tools(body)
    _check_format(body.get("response_format"))
    if (body.get("top_logprobs") or 0) > 0 and not body.get("logprobs"):
        _refuse("top_logprobs", "needs logprobs: true")


def _check_tools(body: Json) -> None:
    names = [_tool_name(tool) for tool in body.get("tools") or ()]
    choice = body.get("tool_choice")
    if choice is None or choice == "none":
        return
    if not names:
        _refuse("tool_choice", "needs tools")
    if isinstance(choice, str):
        if choice not in CHOICES:
            _refuse("tool_choice", f"must be one of {', '.join(CHOICES)} or name a function")
    elif _function_name(choice) not in names:
        _refuse("tool_choice", "must name one of the tools")


def _tool_name(tool: Json) -> str:
    name = _function_name(tool)
    if name is None:
        _refuse("tools", "each must be a function with a name")
    parameters = tool["function"].get("parameters")
    if parameters is not None:
        _check_schema("tools", parameters)
    return name


def _function_name(value: Json) -> str | None:
    """The name in `{"type": "function", "function": {"name": ...}}`."""
    function = value.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if value.get("type") == "function" and isinstance(name, str) and name else None


def _check_format(given: Json | None) -> None:
    if given is None:
        return
    if given.get("type") not in FORMATS:
        _refuse("response_format", f"its type must be one of {', '.join(FORMATS)}")
    if given["type"] == "json_schema":
        schema = given.get("json_schema")
        if not isinstance(schema, dict) or not isinstance(schema.get("name"), str) or not isinstance(schema.get("schema"), dict):
            _refuse("response_format", "json_schema needs a name and a schema")
        _check_schema("response_format", schema["schema"])


def _check_schema(param: str, schema: object) -> None:
    """A schema that refers to itself without anything between has no answer; an engine finds that out only while it generates."""
    if not isinstance(schema, dict):
        _refuse(param, "a schema must be an object")
    definitions = schema.get("$defs") or schema.get("definitions") or {}
    node: object = schema
    for _ in range(MAX_REFERENCES):
        reference = node.get("$ref") if isinstance(node, dict) else None
        if not isinstance(reference, str) or not isinstance(definitions, dict):
            return
        node = definitions.get(reference.rsplit("/", 1)[-1])
    _refuse(param, "the schema refers only to itself")


def _refuse(param: str, problem: str) -> NoReturn:
    raise RequestError(f"{param}: {problem}.", code="invalid_value", param=param)
