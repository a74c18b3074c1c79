"""Tools, formats and log-probabilities that no engine should have to see."""

from typing import Any

import pytest

from serve_app.errors import RequestError
from serve_app.gateway.openai import check_chat, engine_body
from serve_app.settings import Limits

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
LOOP = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
TREE = {"$defs": {"t": {"type": "object", "properties": {"t": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"}


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"}], **fields}


def schema(of: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": of}}


REFUSED = [
    ("tool_choice", {"tool_choice": "auto"}),
    ("tool_choice", {"tools": [], "tool_choice": "required"}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": ""}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": "weather"}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": {}}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "function"}}),
    ("tool_choice", {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}),
    ("tools", {"tools": [{"type": "function"}]}),
    ("tools", {"tools": [{"type": "function", "function": {"name": "x", "parameters": 5}}]}),
    ("top_logprobs", {"top_logprobs": 3}),
    ("top_logprobs", {"top_logprobs": 3, "logprobs": False}),
    ("response_format", {"response_format": {}}),
    ("response_format", {"response_format": {"type": "structural_tag"}}),
    ("response_format", {"response_format": {"type": "json_schema"}}),
    ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
    ("response_format", {"response_format": schema(LOOP)}),
    ("top_k", {"top_k": 2**70}),
    ("seed", {"seed": 2**70}),
    ("messages.0.tool_calls", {"messages": [{"role": "assistant", "content": "x", "tool_calls": 5}]}),
]


@pytest.mark.parametrize(("param", "fields"), REFUSED)
def test_what_an_engine_would_choke_on_is_refused_by_name(param: str, fields: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as refused:
        check_chat(body(**fields), Limits())
    assert refused.value.param == param
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
        {"tool_choice": "none"},
        {"logprobs": True, "top_logprobs": 3},
        {"top_logprobs": 0},
        {"response_format": {"type": "text"}},
        {"response_format": schema(TREE)},
        {"reasoning_effort": "low", "prompt_cache_key": "k", "safety_identifier": "u", "verbosity": "low"},
    ],
)
def test_what_openais_clients_send_passes(fields: dict[str, Any]) -> None:
    check_chat(body(**fields), Limits())


def test_an_empty_tool_list_and_fields_that_nobody_reads_do_not_reach_the_engine() -> None:
    assert engine_body(body(tools=[], reasoning_effort="low", temperature=0.5), Limits()) == body(temperature=0.5)
