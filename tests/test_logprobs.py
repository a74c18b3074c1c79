"""Log-probabilities in an engine's answer: read whatever they are, and cut out without a trace."""

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.logprobs import FLOOR, TokenLogprob, of_body, of_events, strip, without
from serve_app.stream import event
from tests.fakes import DONE, STREAM_HEAD, chunk, plain_answer, usage, usage_chunk

Candidates = list[tuple[str, float]]
TRICKY = [
    '"',
    "\\",
    '\\"',
    "{",
    "}",
    "]}",
    ',"logprobs":{',
    '{"logprobs":',
    "logprobs",
    "null",
    "\n",
    "\n\n",
    "data: ",
    "\u2028",
    "🙂",
    "\ud83d",
]
TEXTS = st.one_of(st.sampled_from(TRICKY), st.text(max_size=12), st.lists(st.sampled_from(TRICKY), max_size=4).map("".join))
NUMBERS = st.floats(-9999.0, 0.0)
STEPS = st.lists(st.tuples(TEXTS, NUMBERS, st.lists(st.tuples(TEXTS, NUMBERS), max_size=3)), max_size=4)
Steps = list[tuple[str, float, Candidates]]


def chat_logprobs(*steps: tuple[str, Any, list[tuple[str, Any]]]) -> dict[str, Any]:
    """As vLLM writes them: a token per step, the sampled one first among its candidates."""

    def entry(text: str, logprob: Any) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}

    return {"content": [{**entry(text, own), "top_logprobs": [entry(*other) for other in others]} for text, own, others in steps]}


def completion_logprobs(*steps: tuple[str, Any, list[tuple[str, Any]]]) -> dict[str, Any]:
    return {
        "text_offset": [0] * len(steps),
        "token_logprobs": [own for _, own, _ in steps],
        "tokens": [text for text, _, _ in steps],
        "top_logprobs": [dict(others) for _, _, others in steps],
    }


def chat_chunk(text: str, logprobs: Any, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": logprobs, "finish_reason": finish}
    return {**STREAM_HEAD, "choices": [choice], "usage": usage(10, 1)}


def completion_chunk(text: str, logprobs: Any, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish, "stop_reason": None}
    return {**STREAM_HEAD, "object": "text_completion", "choices": [choice], "usage": usage(10, 1)}


SHAPES = [(chat_chunk, chat_logprobs), (completion_chunk, completion_logprobs)]
ONE = ("a", -0.5, [("a", -0.5), ("b", -2.0)])


# reading


@pytest.mark.parametrize(("shape", "written"), SHAPES)
def test_every_token_of_every_event_is_read_in_order(shape: Callable[..., Any], written: Callable[..., Any]) -> None:
    two = event(shape("ab", written(ONE, ("b", -1.0, [("b", -1.0), ("c", -1.25)]))))
    one = event(shape("c", written(("c", -3.0, [("c", -3.0), ("d", -3.5)])), "stop"))
    expected = [TokenLogprob(-0.5, 1.5), TokenLogprob(-1.0, 0.25), TokenLogprob(-3.0, 0.5)]
    assert of_events(chunk("", 0) + two + one + usage_chunk(10, 3) + DONE) == expected


@pytest.mark.parametrize(("shape", "written"), SHAPES)
def test_a_sampled_token_that_was_not_the_likeliest_has_a_negative_lead(shape: Callable[..., Any], written: Callable[..., Any]) -> None:
    inside = ("a", -3.0, [("a", -3.0), ("b", -1.0)])
    outside = ("a", -3.0, [("b", -1.0), ("c", -1.5)])  # as other servers write it: the sampled one is not among the likeliest
    assert of_body(shape("a", written(inside))) == [TokenLogprob(-3.0, -2.0)]
    assert of_body(shape("a", written(outside))) == [TokenLogprob(-3.0, -2.0)]


@pytest.mark.parametrize(("shape", "written"), SHAPES)
def test_a_token_without_a_runner_up_has_no_lead(shape: Callable[..., Any], written: Callable[..., Any]) -> None:
    assert of_body(shape("a", written(("a", -3.0, [("a", -3.0)])))) == [TokenLogprob(-3.0, 0.0)]
    assert of_body(shape("a", written(("a", -3.0, [])))) == [TokenLogprob(-3.0, 0.0)]


def test_two_tokens_that_read_the_same_are_two() -> None:
    """Halves of one character are written with the same replacement character."""
    half = "\ufffd"
    assert of_body(chat_chunk(half, chat_logprobs((half, -1.0, [(half, -1.0), (half, -1.0)])))) == [TokenLogprob(-1.0, 0.0)]
    assert of_body(chat_chunk(half, chat_logprobs((half, -1.0, [(half, -1.0), (half, -3.0)])))) == [TokenLogprob(-1.0, 2.0)]
    assert of_body(completion_chunk(half, completion_logprobs((half, -1.0, [(half, -3.0)])))) == [TokenLogprob(-1.0, 2.0)]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (-math.inf, FLOOR),
        (math.nan, FLOOR),
        (-9999.0, FLOOR),
        (-(10**400), FLOOR),
        (1e-7, 0.0),
        (10**400, 0.0),
        (math.inf, 0.0),
        (-1, -1.0),
    ],
)
@pytest.mark.parametrize(("shape", "written"), SHAPES)
def test_an_absurd_number_is_clamped(shape: Callable[..., Any], written: Callable[..., Any], given: Any, read: float) -> None:
    text = event(shape("a", written(("a", given, [("a", given), ("b", -2.0)]))))
    assert of_events(text) == [TokenLogprob(read, read + 2.0)]


def test_the_lead_over_what_cannot_be_is_bounded() -> None:
    assert of_body(chat_chunk("a", chat_logprobs(("a", 0.0, [("a", 0.0), ("b", -9999.0)])))) == [TokenLogprob(0.0, 100.0)]


@pytest.mark.parametrize("nothing", [None, True, "-1.0", [], {}])
@pytest.mark.parametrize(("shape", "written"), SHAPES)
def test_a_token_of_which_the_engine_says_nothing_is_left_out(shape: Callable[..., Any], written: Callable[..., Any], nothing: Any) -> None:
    assert of_body(shape("ab", written(("b", nothing, [("b", nothing)]), ONE))) == [TokenLogprob(-0.5, 1.5)]
    assert of_body(shape("a", written(("a", -0.5, [("a", -0.5), ("b", nothing)])))) == [TokenLogprob(-0.5, 0.0)]


def test_a_completion_without_candidates_still_has_tokens() -> None:
    assert of_body({"choices": [{"logprobs": {"token_logprobs": [-1.0, -2.0]}}]}) == [TokenLogprob(-1.0, 0.0), TokenLogprob(-2.0, 0.0)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": None},
        {"choices": []},
        {"choices": "text"},
        {"choices": {}},
        {"choices": [None]},
        {"choices": [{}]},
        {"choices": [{"logprobs": None}]},
        {"choices": [{"logprobs": []}]},
        {"choices": [{"logprobs": {}}]},
        {"choices": [{"logprobs": {"content": None}}]},
        {"choices": [{"logprobs": {"content": [5]}}]},
        {"choices": [{"logprobs": {"content": [{"logprob": -1.0, "top_logprobs": [5]}]}}]},
        {"choices": [{"logprobs": {"token_logprobs": [-1.0], "tokens": ["a", "b"]}}]},
        {"choices": [{"logprobs": {"token_logprobs": [-1.0], "top_logprobs": [[5]]}}]},
    ],
)
def test_another_form_has_no_tokens(body: Any) -> None:
    assert of_body(body) == []
    assert of_events(event(body)) == []


# cutting


@settings(deadline=None)
@given(st.sampled_from(SHAPES), TEXTS, STEPS, st.booleans(), st.sampled_from([None, "stop"]))
def test_log_probabilities_are_cut_and_nothing_else_changes(
    shape: tuple[Callable[..., Any], Callable[..., Any]], text: str, steps: Steps, ascii_only: bool, finish: str | None
) -> None:
    make, written = shape

    def write(data: Any) -> str:
        return f"data: {json.dumps(data, separators=(',', ':'), ensure_ascii=ascii_only)}\n\n"

    asked, unasked = write(make(text, written(*steps), finish)), write(make(text, None, finish))
    assert without(asked) == unasked
    assert without(asked + unasked + asked + DONE) == unasked * 3 + DONE
    assert len(of_events(asked)) == len(steps)


@settings(deadline=None)
@given(st.sampled_from(SHAPES), TEXTS, STEPS)
def test_white_space_between_the_parts_hides_nothing(shape: tuple[Callable[..., Any], Callable[..., Any]], text: str, steps: Steps) -> None:
    make, written = shape
    cut = without(f"data: {json.dumps(make(text, written(*steps)))}\n\n")
    assert json.loads(cut.removeprefix("data: ")) == make(text, None)


def test_each_choice_of_a_chunk_is_cut() -> None:
    whole = chat_chunk("a", chat_logprobs(ONE))
    whole["choices"] = [{"logprobs": chat_logprobs(ONE), "index": 0}, {"index": 1, "logprobs": chat_logprobs(ONE)}]
    cut = json.loads(without(event(whole)).removeprefix("data: "))
    assert cut["choices"] == [{"logprobs": None, "index": 0}, {"index": 1, "logprobs": None}]


OTHER_KEY = event({"choices": [], 'x"logprobs': {"a": 1}})


@pytest.mark.parametrize("events", ["", OTHER_KEY, DONE, chunk("logprobs", 1), chunk("a", 1) + usage_chunk(1, 1) + DONE, ": logprobs\n\n"])
def test_what_has_none_passes_as_it_is(events: str) -> None:
    assert without(events) == events


BROKEN = event(chat_chunk("a", chat_logprobs(ONE)))[:-2]


@pytest.mark.parametrize(
    "broken",
    [
        BROKEN[:-1],
        BROKEN[: BROKEN.index('"top_logprobs"')],
        BROKEN[: BROKEN.index(',"finish_reason"')],  # ends with a brace: of the log-probabilities
        BROKEN + "}",
        BROKEN.replace('"index":0', '"index":'),
        BROKEN.removeprefix("data: "),
        "data: [" + BROKEN.removeprefix("data: ") + "]",
        'data: {"logprobs":' + '{"a":' * 100_000,
        'data: {"a":' + "[" * 100_000 + ',"logprobs":{}}',
    ],
)
def test_a_broken_event_passes_untouched_and_gives_no_tokens(broken: str) -> None:
    """`EventStream` skips it and counts it; its neighbours are read and cut all the same."""
    good, cut = event(chat_chunk("b", chat_logprobs(ONE))), event(chat_chunk("b", None))
    assert without(f"{good}{broken}\n\n{good}") == f"{cut}{broken}\n\n{cut}"
    assert of_events(f"{good}{broken}\n\n{good}") == [TokenLogprob(-0.5, 1.5)] * 2


# a plain answer


def test_a_plain_answer_loses_its_log_probabilities_and_stays_itself() -> None:
    unasked = plain_answer("m")
    asked = copy.deepcopy(unasked)
    asked["choices"][0]["logprobs"] = chat_logprobs(ONE)
    kept = copy.deepcopy(asked)
    assert of_body(asked) == [TokenLogprob(-0.5, 1.5)]
    assert strip(asked) == unasked
    assert asked == kept


@pytest.mark.parametrize("body", [{}, {"choices": None}, {"choices": []}, {"choices": [5, None]}, {"error": {"code": 400}}])
def test_a_body_of_another_form_is_left_alone(body: dict[str, Any]) -> None:
    assert strip(body) == body
