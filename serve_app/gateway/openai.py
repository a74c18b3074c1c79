"""OpenAI's request bodies: which fields pass, and their limits. What an engine must understand, the engine validates.

Field names: OpenAI's API reference for chat completions and completions; the sampling fields below `VLLM_FIELDS` are vLLM's.
Anything else is refused by name: vLLM would take `request_id`, `priority`, `chat_template` or `kv_transfer_params` from anyone.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.domain import Json
from serve_app.errors import RequestError
from serve_app.explain import nearest
from serve_app.gateway.structured import check_structured
from serve_app.settings import Limits

Number = Annotated[float, Field(allow_inf_nan=False)]
# Accepted because OpenAI's clients send them, and dropped: no engine here has a use for them.
IGNORED = frozenset({"metadata", "store", "service_tier", "user", "reasoning_effort", "prompt_cache_key", "safety_identifier", "verbosity"})
MAX_NAME = 64  # of an unknown field, in the answer and in the search for the nearest known one
MAX_INT = 2**31
ANSWER_LENGTHS = ("max_tokens", "max_completion_tokens")
ROUTED = frozenset({"model", "stream", "stream_options"})


class Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)  # strict: the body passes on as it came, so that "2" must not pass as 2


class StreamOptions(Fields):
    include_usage: bool = False


class SamplingFields(Fields):
    """Shared by both endpoints."""

    model: str = "auto"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Number | None = None
    logit_bias: dict[str, Number] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=MAX_INT)] | None = None
    n: Annotated[int, Field(ge=1, lt=MAX_INT)] | None = None
    presence_penalty: Number | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    temperature: Number | None = None
    top_p: Number | None = None
    user: str | None = None
    # vLLM's sampling fields.
    top_k: Annotated[int, Field(ge=-1, lt=MAX_INT)] | None = None
    min_p: Number | None = None
    repetition_penalty: Number | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=MAX_INT)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[Annotated[int, Field(ge=0, lt=MAX_INT)]] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    bad_words: list[str] | None = None


class Message(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)  # name, refusal, ...: the chat template reads them

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatBody(SamplingFields):
    messages: Annotated[list[Message], Field(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, lt=MAX_INT)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=MAX_INT)] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    reasoning_effort: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    verbosity: str | None = None


class CompletionBody(SamplingFields):
    prompt: str | list[str]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, lt=MAX_INT)] | None = None


class RouteBody(Fields):
    """`POST /route`: a prompt with optional context, or messages."""

    prompt: str | None = None
    context: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None


def check(model: type[BaseModel], body: Json) -> None:
    """Raise `RequestError` naming the first field at fault."""
    try:
        model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        names = [str(part)[:MAX_NAME] for index, part in enumerate(first["loc"]) if index == 0 or not _is_union_tag(part)]
        path = ".".join(names[:3])
        if first["type"] == "extra_forbidden":
            hint = nearest(names[-1], sorted(model.model_fields)) if len(names) == 1 else ""
            raise RequestError(f"Unrecognized field: {path}{hint}.", code="unknown_field", param=path) from None
        raise RequestError(f"{path}: {first['msg']}.", code="invalid_value", param=path) from None


def _is_union_tag(part: int | str) -> bool:
    """pydantic puts the branch of a union into the path; that is no field of the body."""
    return isinstance(part, str) and (part == "str" or "[" in part)


def check_chat(body: Json, limits: Limits) -> None:
    check(ChatBody, body)
    _check_messages(body, limits)
    if not any(_has_content(message) for message in body["messages"]):
        raise RequestError("messages: every message is empty.", code="empty_prompt", param="messages")
    for message in body["messages"]:
        _check_media(message)
    _check_at_most(body, "top_logprobs", limits.max_top_logprobs)
    _check_schemas(body, limits)
    check_structured(body)
    _check_common(body, limits)


def check_completion(body: Json, limits: Limits) -> None:
    check(CompletionBody, body)
    prompts = [body["prompt"]] if isinstance(body["prompt"], str) else body["prompt"]
    if not prompts or any(not prompt for prompt in prompts):
        raise RequestError("prompt: must not be empty.", code="empty_prompt", param="prompt")
    if len(prompts) > limits.max_n:
        raise RequestError(f"prompt: {len(prompts)} prompts are more than the {limits.max_n} allowed.", param="prompt")
    _check_at_most(body, "logprobs", limits.max_top_logprobs)
    _check_common(body, limits)


def check_route(body: Json, limits: Limits) -> None:
    check(RouteBody, body)
    _check_messages(body, limits)


def engine_body(body: Json, limits: Limits) -> Json:
    """What the engine gets: without the fields that are ours or that nobody reads, and never without the limit's `max_tokens`."""
    kept = {key: value for key, value in body.items() if key not in IGNORED | ROUTED and value is not None}
    if kept.get("tools") == []:  # none at all, in the words of some clients; an engine refuses an empty list
        del kept["tools"]
    if limits.max_tokens is not None and not any(name in kept for name in ANSWER_LENGTHS):
        kept["max_tokens"] = limits.max_tokens
    return kept


def _check_messages(body: Json, limits: Limits) -> None:
    if (count := len(body.get("messages") or ())) > limits.max_messages:
        raise RequestError(f"messages: {count} are more than the {limits.max_messages} allowed.", code="invalid_value", param="messages")


def _has_content(message: Json) -> bool:
    return bool(message.get("content") or message.get("tool_calls"))


def _check_common(body: Json, limits: Limits) -> None:
    _check_at_most(body, "n", limits.max_n)
    if limits.max_tokens is not None:
        for name in ANSWER_LENGTHS:
            _check_at_most(body, name, limits.max_tokens)
    if body.get("stream_options") is not None and not body.get("stream"):
        raise RequestError("stream_options: only allowed with stream.", code="invalid_value", param="stream_options")


def _check_at_most(body: Json, name: str, most: int) -> None:
    if (body.get(name) or 0) > most:
        raise RequestError(f"{name}: {body[name]} is more than the {most} allowed.", code="invalid_value", param=name)


def _check_schemas(body: Json, limits: Limits) -> None:
    for name in ("response_format", "tools"):
        if body.get(name) is not None and len(json.dumps(body[name])) > limits.max_schema_bytes:
            raise RequestError(f"{name}: larger than the {limits.max_schema_bytes} bytes allowed.", code="invalid_value", param=name)


def _check_media(message: Json) -> None:
    """Only inline media: an engine that fetches a client's URL is a hole into the network around it."""
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        for key in ("image_url", "input_audio", "audio_url", "video_url", "file"):
            value = part.get(key)
            url = value.get("url", "") if isinstance(value, dict) else value
            if isinstance(url, str) and url and not url.startswith("data:"):
                raise RequestError("messages: only data: URLs are allowed for media.", code="invalid_value", param="messages")
