"""What is logged of a request, in which form, and what never is."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from serve_app.domain import Outcome
from serve_app.errors import EngineFailed, EngineRejected
from serve_app.observe import logs
from tests.fakes import FOREVER, Pause, World, stream_script, until
from tests.gateway.conftest import Endpoint, make_app, make_client

PROMPT = "my-private-prompt"
SECRET = "tw-my-private-key"
HEADERS = {"authorization": f"Bearer {SECRET}"}
log = logging.getLogger("serve_app.some.module")


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """What `configure` writes; logging is left as it was."""
    ours = logging.getLogger(logs.ROOT)
    before = (list(ours.handlers), ours.level, ours.propagate)
    stream = io.StringIO()
    logs.configure("DEBUG", stream)
    yield stream
    ours.handlers[:], ours.propagate = before[0], before[2]
    ours.setLevel(before[1])


def lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def request_lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [line for line in lines(output) if line["message"] == "request"]


@pytest.fixture
async def endpoint(world: World) -> Any:
    app = make_app(world, keys={SECRET: {"id": "team", "tiers": ["small", "large"]}})
    async with make_client(app) as http:
        http.headers.update(HEADERS)
        yield Endpoint(world, app, http)


@pytest.fixture
def world() -> World:
    return World()


# The form


def test_a_line_is_one_object_with_time_level_and_logger(output: io.StringIO) -> None:
    log.warning("three %s\nlines", "words")
    (line,) = lines(output)
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "serve_app.some.module", "three words\nlines")
    assert line["time"].endswith("Z")
    assert line["decision_id"] is None


def test_a_second_configuration_replaces_the_first(output: io.StringIO) -> None:
    second = io.StringIO()
    logs.configure("INFO", second)
    log.debug("no")
    log.info("yes")
    assert output.getvalue() == ""
    assert [line["message"] for line in lines(second)] == ["yes"]


def test_lines_are_handed_to_nobody_else(output: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[logging.LogRecord] = []
    listener = logging.Handler()
    listener.emit = heard.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(listener)
    try:
        log.error("once")
    finally:
        logging.getLogger().removeHandler(listener)
    assert heard == []
    assert len(lines(output)) == 1
    assert capsys.readouterr() == ("", "")


def test_standard_error_is_the_default(output: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    log.info("hello")
    assert json.loads(capsys.readouterr().err)["message"] == "hello"


def test_of_an_exception_its_classes_and_places_are_told_and_no_foreign_message(output: io.StringIO) -> None:
    try:
        try:
            raise ValueError(PROMPT)
        except ValueError as error:
            raise EngineFailed("The model failed to answer.") from error
    except EngineFailed as error:
        log.error("broken", exc_info=error)
    (line,) = lines(output)
    assert PROMPT not in output.getvalue()
    assert "builtins.ValueError" in line["exc_info"]
    assert "EngineFailed: The model failed to answer." in line["exc_info"]
    assert "test_logs.py:" in line["exc_info"]


def test_what_an_engine_says_of_a_request_may_quote_it_and_is_not_told(output: io.StringIO) -> None:
    log.error("refused", exc_info=EngineRejected(f"cannot read {PROMPT}"))
    assert "EngineRejected" in output.getvalue()
    assert PROMPT not in output.getvalue()


def test_another_handlers_text_of_the_exception_is_not_taken_over(output: io.StringIO) -> None:
    record = log.makeRecord(log.name, logging.ERROR, "f", 1, "broken", (), (ValueError, ValueError(PROMPT), None))
    logging.Formatter().format(record)
    record.exc_info = None  # as a queue's handler leaves it
    assert PROMPT in (record.exc_text or "")
    assert PROMPT not in logs.Formatter().format(record)


def test_a_long_chain_of_causes_ends(output: io.StringIO) -> None:
    error = ValueError("first")
    for _ in range(50):
        following = ValueError("next")
        following.__cause__ = error
        error = following
    assert logs.described(error).count("ValueError") == logs.MAX_CAUSES


# Requests


async def test_an_answer_has_one_line_with_its_decision_and_its_tokens(endpoint: Endpoint, output: io.StringIO) -> None:
    response = await endpoint.chat(PROMPT)
    (line,) = request_lines(output)
    assert line["decision_id"] == response.headers["x-tierwise-decision-id"]
    expected = {
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "key": "team",
        "tier": "small",
        "reason": "score_below",
        "mode": "normal",
        "outcome": "ok",
        "stream": False,
        "prompt_tokens": 10,
        "completion_tokens": 20,
    }
    assert {name: line[name] for name in expected} == expected
    assert line["seconds"] >= 0


async def test_a_stream_has_its_line_when_it_ends(endpoint: Endpoint, output: io.StringIO) -> None:
    endpoint.world.small.script = stream_script("Hel", "lo")
    await endpoint.chat(PROMPT, stream=True)
    (line,) = request_lines(output)
    assert (line["status"], line["stream"], line["completion_tokens"], line["outcome"]) == (200, True, 2, "ok")


@pytest.mark.parametrize(
    ("script", "status", "outcome"), [([EngineRejected("bad")], 400, "rejected"), ([RuntimeError(PROMPT)], 500, "failed")]
)
async def test_a_failed_request_has_one_line_too(
    endpoint: Endpoint, output: io.StringIO, script: list[Any], status: int, outcome: str
) -> None:
    endpoint.world.small.script = endpoint.world.large.script = script
    assert (await endpoint.chat()).status_code == status
    (line,) = request_lines(output)
    assert (line["status"], line["outcome"]) == (status, outcome)


async def test_what_is_refused_before_any_decision_has_a_line_without_one(endpoint: Endpoint, output: io.StringIO) -> None:
    await endpoint.raw(b"{")
    await endpoint.http.get(f"/{PROMPT}")
    await endpoint.http.get("/v1/models", headers={"authorization": "Bearer wrong"})
    bad, nowhere, unknown = request_lines(output)
    assert (bad["status"], bad["key"], "tier" in bad) == (400, "team", False)
    assert (nowhere["status"], nowhere["route"]) == (404, "unmatched")
    assert (unknown["status"], "key" in unknown) == (401, False)


async def test_a_client_that_leaves_has_a_line_without_a_status(world: World, output: io.StringIO) -> None:
    world.small.script = [Pause(FOREVER)]
    async with make_client(make_app(world)) as http:
        task = asyncio.create_task(http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": PROMPT}]}))
        await until(lambda: world.small.calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (line,) = request_lines(output)
    assert "status" not in line
    assert line["route"] == "/v1/chat/completions"


async def test_probes_have_no_lines(endpoint: Endpoint, output: io.StringIO) -> None:
    await endpoint.http.get("/health")
    await endpoint.http.get("/ready")
    assert request_lines(output) == []


async def test_every_line_inside_a_request_carries_its_own_id(endpoint: Endpoint, output: io.StringIO) -> None:
    endpoint.world.small.script = [lambda: log.info("inside"), *endpoint.world.small.script]
    answers: list[httpx.Response] = await asyncio.gather(*(endpoint.chat() for _ in range(4)))
    answers.append(await endpoint.chat())  # in the test's own task, whose context must be as it was
    log.info("outside")
    ids = {response.headers["x-tierwise-decision-id"] for response in answers}
    assert {line["decision_id"] for line in lines(output) if line["message"] == "inside"} == ids
    assert len(ids) == 5
    assert lines(output)[-1]["decision_id"] is None


async def test_a_record_of_another_request_is_not_told_as_ones_own(endpoint: Endpoint, output: io.StringIO) -> None:
    await endpoint.chat()
    (made,) = endpoint.world.ledger.records
    with logs.request_line() as line:
        logs.bind(decision_id="tw-other")
        logs.recorded(made)
        assert line.record is None
        logs.recorded(replace(made, id="tw-other", outcome=Outcome.CANCELLED))
        assert line.record is not None


def test_a_record_outside_of_any_request_is_ignored() -> None:
    logs.bind(decision_id="tw-1")
    with logs.request_line() as line:
        assert line.decision_id is None


async def test_neither_prompt_nor_key_nor_answer_is_ever_logged(endpoint: Endpoint, output: io.StringIO) -> None:
    scripts: list[list[Any]] = [
        endpoint.world.small.script,
        stream_script("private-answer"),
        [EngineRejected(f"cannot read {PROMPT}")],
        [EngineFailed("The model failed to answer.")],
        [RuntimeError(f"{PROMPT} {SECRET}")],
        ['data: {"error": {"code": 500, "message": "' + PROMPT + '"}}\n\n'],
    ]
    for script in scripts:
        endpoint.world.small.script = endpoint.world.large.script = script
        for streamed in (True, False):
            await endpoint.chat(PROMPT, stream=streamed, headers={"x-session-id": PROMPT})
    await endpoint.chat(PROMPT, model=PROMPT)
    await endpoint.chat(PROMPT, **{PROMPT: 1})
    await endpoint.http.post("/route", json={"prompt": PROMPT})
    await endpoint.http.get(f"/v1/models/{PROMPT}")
    await endpoint.http.get(f"/v1/decisions/{SECRET}")
    await endpoint.http.delete("/v1/decisions", params={"session": PROMPT})
    assert len(request_lines(output)) >= len(scripts) * 2 + 6
    assert [word for word in (PROMPT, SECRET, "private-answer") if word in output.getvalue()] == []
