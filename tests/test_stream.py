"""Events between an engine and a client: nothing lost, nothing of ours seen that was not asked for."""

import json
from typing import Any

import pytest

from serve_app.domain import Usage
from serve_app.errors import EngineFailed, EngineRejected
from serve_app.stream import BROKEN_STREAM, UNREADABLE, EventStream, engine_error, event, raise_if_error, usage_of
from tests.fakes import DONE, STREAM_HEAD, chunk, stream_script, usage_chunk

RECEIPT = {"decision_id": "tw-1"}


class Reader:
    """An `EventStream`, and what a client saw of it."""

    def __init__(self, *, include_usage: bool = False, choices: int = 1) -> None:
        self.skipped = 0
        self.stream = EventStream(include_usage=include_usage, choices=choices, skipped=self.skip)
        self.sent = ""

    def skip(self) -> None:
        self.skipped += 1

    def feed(self, *events: str) -> "Reader":
        self.sent += "".join(self.stream.feed(text) for text in events)
        return self

    def end(self, error: str | None = None) -> "Reader":
        self.sent += self.stream.end(RECEIPT, error)
        return self

    @property
    def payloads(self) -> list[str]:
        items = self.sent.split("\n\n")
        assert items[-1] == ""
        return [item.removeprefix("data: ") for item in items[:-1]]

    @property
    def objects(self) -> list[dict[str, Any]]:
        assert self.payloads[-1] == "[DONE]"
        return [json.loads(payload) for payload in self.payloads[:-1]]

    @property
    def text(self) -> str:
        return "".join(choice["delta"].get("content", "") for item in self.objects for choice in item.get("choices", ()))


def test_usage_that_was_not_asked_for_is_not_seen() -> None:
    reader = Reader().feed(*stream_script("Hel", "lo")).end()
    assert all("usage" not in item for item in reader.objects)
    assert reader.text == "Hello"
    assert all(item["choices"] for item in reader.objects)


def test_the_receipt_is_in_the_last_json_chunk() -> None:
    *others, last = Reader().feed(*stream_script("Hi")).end().objects
    assert last["tierwise"] == RECEIPT
    assert last["choices"][0]["finish_reason"] == "stop"
    assert all("tierwise" not in item for item in others)


def test_usage_that_was_asked_for_comes_once_at_the_end_with_the_receipt() -> None:
    *others, last = Reader(include_usage=True).feed(*stream_script("Hel", "lo")).end().objects
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 10, "total_tokens": 12, "completion_tokens": 2}
    assert last["tierwise"] == RECEIPT
    assert all("usage" not in item and "tierwise" not in item for item in others)
    assert others[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_engine_that_sends_no_usage_chunk_still_gets_a_receipt() -> None:
    reader = Reader(include_usage=True).feed(chunk("Hi", 1), chunk(None, 1, finish="stop"), DONE).end()
    assert reader.objects[-1]["tierwise"] == RECEIPT


def test_nothing_is_held_back_but_the_finishing_chunk() -> None:
    reader = Reader().feed(chunk("Hi", 1))
    assert json.loads(reader.payloads[0])["choices"][0]["delta"] == {"content": "Hi"}
    before = reader.sent
    assert reader.feed(chunk(None, 1, finish="length")).sent == before


def test_two_choices_finish_one_after_the_other() -> None:
    events = [
        chunk("a", 1, index=0),
        chunk("x", 1, index=1),
        chunk(None, 1, index=0, finish="stop"),
        chunk("y", 2, index=1),
        chunk(None, 2, index=1, finish="length"),
        usage_chunk(10, 3),
        DONE,
    ]
    reader = Reader(choices=2).feed(*events).end()
    choices = [item["choices"][0] for item in reader.objects]
    assert [(c["index"], c["finish_reason"]) for c in choices] == [(0, None), (1, None), (0, "stop"), (1, None), (1, "length")]
    assert [i for i, item in enumerate(reader.objects) if "tierwise" in item] == [4]
    assert reader.stream.usage() == Usage(10, 3)


TRICKY = [
    'the key ,"usage":null, and {"usage":{"prompt_tokens":9}}',
    "data: [DONE]\n\n",
    "[DONE]",
    '"choices":[]',
    '"finish_reason":"stop"',
    'a backslash \\ before "usage":null',
    '{"error": "not one"}',
    ",",
    "line\n\nline",
    "日本 \U0001f600 \u2028",
]


@pytest.mark.parametrize("text", TRICKY)
def test_the_answers_own_text_is_never_touched(text: str) -> None:
    reader = Reader().feed(*stream_script(text, text)).end()
    assert reader.text == text + text
    assert reader.stream.done
    assert reader.stream.usage() == Usage(10, 2)
    assert all("usage" not in item for item in reader.objects)


def test_several_events_may_come_in_one_string() -> None:
    together = Reader().feed("".join(stream_script("Hel", "lo"))).end()
    apart = Reader().feed(*stream_script("Hel", "lo")).end()
    assert together.sent == apart.sent
    assert together.stream.done


def test_garbage_is_skipped_and_counted() -> None:
    broken = ["data: {broken\n\n", "data: \n\n", 'data: {"choices":"none"}\n\n', 'data: {"odd":1}\n\n']
    reader = Reader().feed(chunk("Hel", 1), *broken, chunk("lo", 2), *stream_script()[-2:]).end()
    assert reader.text == "Hello"
    assert reader.skipped == 4


def test_what_is_no_event_is_ignored() -> None:
    reader = Reader().feed(": a comment\n\n", chunk("Hi", 1), "\n\n", DONE).end()
    assert (reader.text, reader.skipped) == ("Hi", 0)


def test_usage_so_far_is_known_when_a_stream_breaks_off() -> None:
    reader = Reader().feed(chunk("a", 1), chunk("b", 2), chunk("c", 3))
    assert reader.stream.usage() == Usage(10, 3)


def test_usage_so_far_counts_every_choice() -> None:
    """Until its sum comes at the end, the engine counts each choice on its own."""
    reader = Reader(choices=2).feed(chunk("a", 5, index=0), chunk("x", 7, index=1), chunk("b", 6, index=0))
    assert reader.stream.usage() == Usage(10, 13)


def test_usage_so_far_counts_every_prompt_once() -> None:
    """Four choices of two prompts."""
    events = [chunk("a", 1, index=i, prompt_tokens=10 if i < 2 else 20) for i in range(4)]
    assert Reader(choices=2).feed(*events).stream.usage() == Usage(30, 4)


def test_usage_is_nothing_before_the_first_chunk() -> None:
    assert Reader().stream.usage() == Usage()


def test_garbage_instead_of_counts_is_nothing() -> None:
    bad = event({**STREAM_HEAD, "choices": [{"index": 0, "delta": {}}]})[:-3] + ',"usage":{oops}}\n\n'
    assert Reader().feed(bad).stream.usage() == Usage()
    odd = event({**STREAM_HEAD, "choices": [{"index": 0, "delta": {}}], "usage": {"prompt_tokens": "many"}})
    assert Reader().feed(odd).stream.usage() == Usage()


def test_cached_tokens_are_read() -> None:
    body = {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}}
    assert usage_of(body) == Usage(5, 2, 4)
    assert usage_of({"usage": {"prompt_tokens": 5, "prompt_tokens_details": None}}) == Usage(5)
    assert usage_of({}) == Usage()
    reader = Reader().feed(event({**STREAM_HEAD, "choices": [], **body}))
    assert reader.stream.usage() == Usage(5, 2, 4)


# Errors


def test_an_error_in_the_stream_is_found_after_what_came_before_it() -> None:
    reader = Reader().feed(chunk("Hi", 1) + event({"error": {"message": "CUDA out of memory", "code": 500}}) + DONE)
    assert "Hi" in reader.sent
    assert "CUDA" not in reader.sent
    assert reader.stream.done
    with pytest.raises(EngineFailed, match=BROKEN_STREAM):
        reader.stream.check()


def test_a_whole_stream_passes_the_check() -> None:
    Reader().feed(*stream_script("Hi")).stream.check()


def test_a_failure_ends_in_an_error_event_of_openais_shape() -> None:
    reader = Reader().feed(chunk("Hi", 1), chunk(None, 1, finish="stop")).end("It broke.")
    *others, last = reader.objects
    assert last == {"error": {"message": "It broke.", "type": "api_error", "param": None, "code": "engine_error"}, "tierwise": RECEIPT}
    assert others[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_empty_stream_still_ends_with_the_receipt() -> None:
    reader = Reader().feed(DONE).end()
    assert reader.objects == [{"object": "chat.completion.chunk", "choices": [], "tierwise": RECEIPT}]


def test_an_error_as_the_first_event_is_raised_before_anything_went_out() -> None:
    with pytest.raises(EngineFailed) as caught:
        raise_if_error(event({"error": {"message": "CUDA out of memory", "code": 500}}) + DONE)
    assert "CUDA" not in caught.value.message
    with pytest.raises(EngineRejected, match="too long"):
        raise_if_error(event({"error": {"message": "too long", "code": 400}}))
    with pytest.raises(EngineFailed):
        raise_if_error('data: {"error": oops\n\n')
    with pytest.raises(EngineFailed):
        raise_if_error('data: {"error": "oops"}\n\n')


def test_an_answer_as_the_first_event_is_not_raised() -> None:
    raise_if_error(chunk('{"error"', 1))
    raise_if_error({"error": "a dict is the transport's business"})


def test_a_validators_report_is_not_shown_to_the_client() -> None:
    report = "7 validation errors for ValidatorIterator\n0.ChatCompletionContentPartTextParam.text\n  Input should be ..."
    told = engine_error({"code": 400, "message": report})
    assert isinstance(told, EngineRejected)
    assert told.message == UNREADABLE
    assert engine_error({"code": 400, "message": "top_p must be in (0, 1].\nmore"}).message == "top_p must be in (0, 1]."
