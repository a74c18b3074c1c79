"""Traffic as people have it, read piece by piece: plain lines, JSON lines, OpenAI batch files, ShareGPT.

A piece that cannot be read is told and passed over. Memory is bounded by one piece, whatever the file's size.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from serve_app.domain import Json
from serve_app.errors import RequestError
from serve_app.gateway import openai
from serve_app.routing.features import content_text, scored_text

FORMATS = ("auto", "lines", "jsonl", "openai-batch", "sharegpt")
MAX_PIECE = 16 * 1024 * 1024  # bytes of a line, characters of an item of a list
CHUNK = 1 << 16
BYTES_PER_TOKEN = 4  # where the data does not tell tokens
TEXTS = ("prompt", "text", "input", "question", "instruction", "query", "content")
ANSWERS = ("response", "answer", "completion", "output")
KEPT = ("messages", "prompt", "tools", "response_format")
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant"}
ROLES |= {role: role for role in ("user", "assistant", "system", "tool")} | {"function": "tool", "observation": "tool"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request. `body` is what `/route` takes. Tokens are the data's own or, where it has the answer, counted from its text."""

    id: str
    body: Json
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Bad:
    """What could not be read: the line, or the item of a list, counted from 1."""

    number: int
    why: str


def read(stream: BinaryIO, form: str = "auto") -> Iterator[Prompt | Bad]:
    """Raises `RequestError` for a format that is none."""
    if form not in FORMATS:
        raise RequestError(f"--format {form}: one of {', '.join(FORMATS)}")
    start = _start(stream)
    form, as_list = _guess(start, form)
    if form == "lines":
        yield from (Prompt(str(number), {"prompt": line}) if not isinstance(line, Bad) else line for number, line in _lines(start, stream))
        return
    for number, item in _items(start, stream) if as_list else _rows(start, stream):
        yield from [item] if isinstance(item, Bad) else _prompts(number, item, form)


def text_tokens(text: str) -> int:
    return max(1, round(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN)) if text else 0


def body_tokens(body: Json) -> int:
    """About how long the prompt is, all of its messages together."""
    if isinstance(body.get("messages"), list):
        return sum(text_tokens(content_text(message.get("content"))) for message in body["messages"])
    return text_tokens(str(body.get("prompt", "")))


def _start(stream: BinaryIO) -> bytes:
    """The first lines, without a byte order mark."""
    start = stream.read(CHUNK).removeprefix(codecs.BOM_UTF8)
    return start if start.endswith(b"\n") else start + stream.readline(MAX_PIECE)


def _guess(start: bytes, form: str) -> tuple[str, bool]:
    """The format, and whether the file is one JSON list."""
    start = start.lstrip()
    as_list = start.startswith(b"[") and start[1:].lstrip()[:1] in (b"{", b"]")
    if form != "auto":
        return form, as_list and form != "lines"
    if as_list:
        return ("sharegpt" if b'"conversation' in start else "jsonl"), True
    try:
        row = json.loads(start.split(b"\n", 1)[0])
    except ValueError:
        row = None
    if not isinstance(row, dict):
        return ("jsonl" if start.startswith(b'{"') else "lines"), False
    if _turns(row) is not None:
        return "sharegpt", False
    return ("openai-batch" if "custom_id" in row or isinstance(row.get("body"), dict) else "jsonl"), False


def _lines(start: bytes, stream: BinaryIO) -> Iterator[tuple[int, str | Bad]]:
    """Lines that are not blank, with their numbers; `start` was read already."""
    number = 0
    for number, line in enumerate(start.removesuffix(b"\n").split(b"\n"), start=1):
        if line.strip():
            yield number, _decoded(number, line)
    while line := stream.readline(MAX_PIECE):
        number += 1
        if len(line) == MAX_PIECE and not line.endswith(b"\n"):
            yield number, Bad(number, f"longer than {MAX_PIECE >> 20} MiB")
            while (rest := stream.readline(MAX_PIECE)) and not rest.endswith(b"\n"):
                pass
        elif line.strip():
            yield number, _decoded(number, line)


def _decoded(number: int, line: bytes) -> str | Bad:
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError:
        return Bad(number, "not valid UTF-8")


def _rows(start: bytes, stream: BinaryIO) -> Iterator[tuple[int, Json | Bad]]:
    for number, line in _lines(start, stream):
        if isinstance(line, Bad):
            yield number, line
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            yield number, Bad(number, "not valid JSON")
        else:
            yield number, row if isinstance(row, dict) else Bad(number, "not an object")


def _items(start: bytes, stream: BinaryIO) -> Iterator[tuple[int, Json | Bad]]:
    """The items of one JSON list, each decoded as soon as it is whole. Behind a broken one nothing can be found."""
    decoder, json_decoder = codecs.getincrementaldecoder("utf-8")("replace"), json.JSONDecoder()
    text, number = decoder.decode(start).lstrip()[1:], 0
    while True:
        text = text.lstrip(" \t\r\n,")
        if text.startswith("]"):
            return
        found, wanted, why = None, CHUNK, "not valid JSON; nothing behind it can be read"
        while found is None:
            try:
                found = json_decoder.raw_decode(text) if text else None
            except (ValueError, RecursionError):
                found = None
            if found is None:
                more = decoder.decode(stream.read(wanted))
                if not more or len(text) > MAX_PIECE:
                    yield number + 1, Bad(number + 1, why if text else "the list does not end")
                    return
                text, wanted = (text + more).lstrip(" \t\r\n,"), 2 * wanted  # doubled: an item is not decoded from its start too often
                if text.startswith("]"):
                    return
        number += 1
        yield number, found[0] if isinstance(found[0], dict) else Bad(number, "not an object")
        text = text[found[1] :]


def _prompts(number: int, row: Json, form: str) -> Iterator[Prompt | Bad]:
    try:
        made = _of_turns(number, row) if form == "sharegpt" or _turns(row) is not None else [_of_row(number, row, form)]
        for one in made:
            yield _checked(one)
    except RequestError as error:
        yield Bad(number, error.message)


def _checked(prompt: Prompt) -> Prompt:
    """Raises `RequestError` for what serving would refuse, and for what has no text."""
    openai.check(openai.RouteBody, {name: prompt.body[name] for name in ("prompt", "messages") if name in prompt.body})
    text = scored_text(prompt.body)
    if not text.strip():
        raise RequestError("no text of a user")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RequestError("not valid Unicode") from None
    return prompt


def _of_row(number: int, row: Json, form: str) -> Prompt:
    name = str(row.get("id") or row.get("custom_id") or number)
    body = row.get("body") if form == "openai-batch" or isinstance(row.get("body"), dict) else row
    if not isinstance(body, dict):
        raise RequestError("holds no request body")
    prompt_tokens, answer_tokens = _usage(row)
    if isinstance(body.get("messages"), list):
        messages, answer = _until_answer(body["messages"])
        body = {**body, "messages": messages}
    else:
        body, answer = {**body, "prompt": _text(body)}, next((row[key] for key in ANSWERS if isinstance(row.get(key), str)), "")
    kept = {key: body[key] for key in KEPT if body.get(key) is not None}
    return Prompt(name, kept, prompt_tokens, answer_tokens if answer_tokens is not None else text_tokens(answer) or None)


def _text(body: Json) -> str:
    for key in TEXTS:
        if isinstance(value := body.get(key), str):
            return value
        if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
            return "\n".join(value)
    raise RequestError(f"needs messages, or a text as one of {', '.join(TEXTS)}")


def _usage(row: Json) -> tuple[int | None, int | None]:
    """(prompt, answer) tokens that the data tells."""
    response = row.get("response")
    inner = response.get("body", response) if isinstance(response, dict) else {}
    usage = row.get("usage") or (inner.get("usage") if isinstance(inner, dict) else None) or row
    told = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    prompt, answer = (value if isinstance(value, int) and value >= 0 else None for value in told)
    asked = row.get("answer_tokens")
    return prompt, asked if answer is None and isinstance(asked, int) and asked >= 0 else answer


def _until_answer(messages: list[Any]) -> tuple[list[Any], str]:
    """A recorded conversation ends with the answer, which was no part of the request."""
    if len(messages) > 1 and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
        content = messages[-1].get("content")
        return messages[:-1], content if isinstance(content, str) else ""
    return messages, ""


def _turns(row: Json) -> list[Any] | None:
    return next((row[key] for key in ("conversations", "conversation") if isinstance(row.get(key), list)), None)


def _of_turns(number: int, row: Json) -> Iterator[Prompt]:
    """Each turn of a user is a request, with all that came before it. Raises `RequestError`."""
    turns, messages, name = _turns(row), [], str(row.get("id") or number)
    if turns is None:
        raise RequestError("needs conversations")
    said = [_message(turn) for turn in turns]
    for place, message in enumerate(said):
        messages.append(message)
        if message["role"] == "user" and message["content"].strip():
            answer = said[place + 1]["content"] if place + 1 < len(said) and said[place + 1]["role"] == "assistant" else ""
            yield Prompt(f"{name}#{place + 1}", {"messages": list(messages)}, None, text_tokens(answer) or None)


def _message(turn: Any) -> Json:
    who = turn.get("from", turn.get("role")) if isinstance(turn, dict) else None
    said = turn.get("value", turn.get("content")) if isinstance(turn, dict) else None
    if not isinstance(said, str) or str(who).lower() not in ROLES:
        raise RequestError("a turn needs from (human, gpt, ...) and value")
    return {"role": ROLES[str(who).lower()], "content": said}
