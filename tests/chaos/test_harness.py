"""The suite's own judgement: a harness that lets a wrong answer pass would show nothing."""

import json
from typing import Any

import pytest

from tests.chaos.books import Balance
from tests.chaos.hostile import Hostile, changed, some
from tests.chaos.judge import Answer, Reply, judge
from tests.chaos.report import BEGIN, END, written
from tests.chaos.requests import chat
from tests.chaos.siege import Siege
from tests.chaos.traffic import figures, recovery

HEAD = {"content-type": "text/event-stream", "x-tierwise-tier": "small", "x-tierwise-decision-id": "tw-1"}
ASK = chat("small", "say it", model="small", stream=True)
RECEIPT: dict[str, Any] = {"tier": "small", "decision_id": "tw-1", "reason": "score_below", "score": 0.1, "threshold": 0.65, "attempts": 1}


def stream(*words: str, model: str = "tiny-llama-small", done: bool = True, **receipt: Any) -> str:
    chunks: list[Any] = [{"model": model, "choices": [{"delta": {"content": word}}]} for word in words]
    chunks[-1]["tierwise"] = {**RECEIPT, **receipt}
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*events, "data: [DONE]\n\n"] if done else events)


def seen(text: str, *, status: int = 200, head: dict[str, str] | None = None) -> Answer:
    return judge(ASK, Reply(status, head or HEAD, text), 0.0, 0.1)


def test_a_right_answer_is_right() -> None:
    answer = seen(stream("small: ", "say it"))
    assert (answer.ok, answer.wrong, answer.degraded) == (True, None, False)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (stream("small: ", "say that"), "expected"),
        (stream("small: ", "say it", model="tiny-llama-large"), "models"),
        (stream("small: ", "say it", tier="large"), "in the receipt"),
        (stream("small: ", "say it", decision_id="tw-2"), "in the receipt"),
        (stream("small: ", "say it", score=0.9), "score_below at 0.9"),
        (stream("small: ", "say it") + "Traceback", "internal text"),
        (stream("large: ", done=False), "expected"),
    ],
)
def test_a_wrong_answer_is_named(text: str, verdict: str) -> None:
    assert verdict in str(seen(text).wrong)


def test_a_stream_that_ends_early_is_a_failure_and_not_wrong() -> None:
    answer = seen(stream("small: ", "say", done=False))
    assert (answer.ok, answer.wrong, answer.kind_of_failure) == (False, None, "200 truncated")


def test_a_refusal_in_openais_shape_has_its_code() -> None:
    answer = seen('{"error": {"message": "m", "type": "rate_limit_error", "code": "overloaded"}}', status=429, head={"retry-after": "2"})
    assert (answer.ok, answer.kind_of_failure, answer.retry_after) == (False, "429 overloaded", "2")
    assert seen("Internal Server Error", status=500, head={}).kind_of_failure == "500 not OpenAI's: 'Internal Server Error'"


def test_recovery_is_the_first_of_five_normal_answers_in_a_row() -> None:
    states = [True, False, True, True, False, True, True, True, True, True, True]
    answers = [
        Answer("x", stream=False, sent=float(i), seconds=0.5, status=200 if good else 502, complete=good) for i, good in enumerate(states)
    ]
    back = recovery(answers, 0.75, lambda a: a.ok)
    assert (back.noticed, back.seconds) == (True, pytest.approx(5.5 - 0.75))
    assert recovery(answers[:9], 0.75, lambda a: a.ok).seconds == float("inf")
    unnoticed = recovery(answers[5:], 0.75, lambda a: a.ok)
    assert (unnoticed.noticed, unnoticed.seconds) == (False, 0.0)
    assert recovery(answers[5:8], 0.75, lambda a: a.ok).seconds == float("inf"), "nothing is known yet"


def test_hung_and_wrong_answers_are_counted() -> None:
    answers = [Answer("x", stream=False, sent=0.0, seconds=9.0, hung=True), Answer("x", stream=False, sent=0.0, seconds=1.0, wrong="w")]
    told = figures(answers)
    assert (told["hung"], told["wrong"], told["failed"]) == (1, 1, {"hung": 1, "none truncated": 1})


@pytest.mark.parametrize(
    ("balance", "even"),
    [
        (Balance({"small": (0, 0)}, {"small": 0}, [], 0.0), True),
        (Balance({"small": (0, 1)}, {"small": 0}, [], 0.0), False),
        (Balance({"small": (0, 1)}, {"small": 1}, [], 0.0), True),
        (Balance({}, {}, ["tw-1"], 0.0), False),
        (Balance({}, {}, ["tw-1"], 1.0), True),
    ],
)
def test_books_are_even_within_one_step_for_each_cancelled_attempt(balance: Balance, even: bool) -> None:
    assert balance.even is even


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (500, '{"error": {"message": "m", "type": "t"}}'),
        (400, "plain text"),
        (400, '{"error": {"message": "KeyError: x", "type": "t"}}'),
        (200, 'File "/app/x", line 1'),
    ],
)
def test_an_offence_is_seen(status: int, text: str) -> None:
    siege = Siege()
    siege.judge(Hostile("x", "POST", "/route", b"{}"), status, text)
    assert siege.offences == 1


def test_hostile_requests_are_the_same_each_time_and_of_every_kind() -> None:
    first, second = list(some(300, 7)), list(some(300, 7))
    assert first == second
    assert len({request.why for request in first}) == 7
    given = Hostile("x", "POST", "/route", b'{"prompt": "a", "context": "b"}')
    assert len({request.body for request in changed(given, 12, 1)}) > 6


def test_the_table_replaces_the_last_one_and_keeps_the_rest() -> None:
    line = {"fault": "f", "graph": "fake", "test": "t", "client": "old", "counted": "c", "recovery": "1.0 s"}
    lines = [json.dumps(line), json.dumps({**line, "client": "new | newer"})]
    document = written(f"before\n{BEGIN}\nold table\n{END}\nafter\n", lines)
    assert document.startswith("before\n")
    assert document.endswith("after\n")
    assert "| f | fake | new \\| newer | c | 1.0 s | `make chaos ONLY=t` |" in document
    assert "old" not in document
