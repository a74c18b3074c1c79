"""Driving an endpoint, and fitting the engine model to what its answers took."""

import asyncio
import dataclasses
import json
import random
from pathlib import Path

import httpx
import pytest

from serve_app.errors import TierwiseError
from serve_app.planning import fit, measure
from serve_app.planning.measure import Course, Driver, Timed
from serve_app.planning.speeds import EngineSpeeds
from tests.planning.common import speeds

QUICK = Course(loads=(0.5,), rounds=1, block_s=0.4, pilot_s=1.0, workers=2, prompt_words=(2, 3), output_tokens=(3, 5))


class Stream(httpx.AsyncByteStream):
    """An answer of so many tokens, 10 ms each, with its usage at the end."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        yield b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n'
        for _ in range(self._tokens):
            await asyncio.sleep(0.01)
            yield b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
        usage = {"prompt_tokens": 7, "completion_tokens": self._tokens}
        yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode()


class Endpoint:
    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.bodies: list[dict[str, object]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        return httpx.Response(self.status, stream=Stream(int(body["max_tokens"])))


def driver(endpoint: Endpoint) -> Driver:
    client = httpx.AsyncClient(transport=httpx.MockTransport(endpoint.answer), base_url="http://tierwise")
    return Driver(client, QUICK, random.Random(0))


async def test_the_pilot_finds_the_saturated_rate() -> None:
    """Two at a time of 30 ms each and more; how much more is the machine's."""
    assert 5 < await driver(Endpoint()).pilot() <= 2 / 0.03


async def test_a_block_keeps_times_and_tokens_of_each_answer() -> None:
    endpoint = Endpoint()
    rows = await driver(endpoint).block(3, 0.5, 20.0)
    assert len(rows) == len(endpoint.bodies) > 3
    assert {(row.block, row.load, row.prompt_tokens) for row in rows} == {(3, 0.5, 7)}
    for row in rows:
        assert row.ttft_s >= 0.01
        assert row.total_s >= row.ttft_s + 0.01 * (row.output_tokens - 1)
    assert [row.at for row in rows] == sorted(row.at for row in rows)


async def test_every_request_asks_for_its_own_prompt_and_an_exact_length() -> None:
    endpoint = Endpoint()
    await driver(endpoint).block(0, 0.5, 20.0)
    assert len({str(body["messages"]) for body in endpoint.bodies}) == len(endpoint.bodies)
    for body in endpoint.bodies:
        assert (body["model"], body["max_tokens"], body["ignore_eos"]) == ("small", body["min_tokens"], True)


async def test_refused_requests_are_left_out_and_a_pilot_without_answers_says_so() -> None:
    assert await driver(Endpoint(429)).block(0, 0.5, 20.0) == []
    with pytest.raises(TierwiseError, match=r"0 answers in 1 s, too few"):
        await driver(Endpoint(429)).pilot()


TRUTH = speeds(base_s=0.006, per_sequence_s=0.0015, per_prompt_token_s=0.0004, request_s=0.03)


def answers(load: float, block: int, truth: EngineSpeeds = TRUTH) -> list[Timed]:
    """What an engine of known speeds would have taken: 40 requests at a share of about ten a second."""
    rng, at, rows = random.Random(block), 0.0, list[Timed]()
    for _ in range(40):
        at += rng.expovariate(10 * load)
        rows.append(Timed(block, load, at, rng.randint(10, 100), rng.randint(16, 64), 0.0, 0.0))
    times = fit.replay(rows, truth)
    return [dataclasses.replace(row, ttft_s=ttft, total_s=total) for row, (ttft, total) in zip(rows, times, strict=True)]


def test_speeds_that_are_known_are_found_again_and_a_load_held_out_is_foretold() -> None:
    rows = [row for block, load in enumerate((0.3, 0.6, 0.9)) for row in answers(load, block)]
    found = fit.fit(rows, (0.6,), max_num_seqs=10, instance="local", source="made up")
    compared = {one.load: one for one in fit.compare(rows, found, (0.6,))}
    assert (found.measured, found.max_num_seqs) == (True, 10)
    assert compared[0.6].held_out
    assert max(abs(compared[0.6].error(figure)) for figure in fit.FIGURES) < 0.06
    assert found.step_s(5, 0, 50) == pytest.approx(TRUTH.step_s(5, 0, 50), rel=0.1)


def test_errors_are_of_what_was_measured() -> None:
    rows = answers(0.5, 0)
    slow = TRUTH.model_copy(update={"base_s": 0.012, "per_sequence_s": 0.003, "per_prompt_token_s": 0.0008, "request_s": 0.06})
    found = fit.compare(rows, slow, ())[0]
    assert found.error("ttft_p50") > 0.9
    assert found.error("total_p50") > 0.9
    assert found.error("throughput") < 0
    assert fit.compare(rows, TRUTH, ())[0].error("total_p99") == pytest.approx(0.0, abs=1e-9)


def test_throughput_is_tokens_until_the_last_answer() -> None:
    rows = [Timed(0, 0.5, 0.0, 10, 100, 0.1, 1.0), Timed(0, 0.5, 3.0, 10, 100, 0.1, 1.0)]
    assert fit.compare(rows, TRUTH, ())[0].measured["throughput"] == pytest.approx(200 / 4)


def test_too_few_answers_are_not_fitted_on() -> None:
    with pytest.raises(TierwiseError, match="fewer than 20 answers"):
        fit.fit(answers(0.65, 0), (0.65,), max_num_seqs=10, instance="local", source="")


def test_answers_are_kept_and_read_again(tmp_path: Path) -> None:
    rows = answers(0.5, 0)
    measure.write(rows, tmp_path / "rows.jsonl")
    assert measure.read(tmp_path / "rows.jsonl") == rows
    (tmp_path / "rows.jsonl").write_text('{"block": 1}\n')
    with pytest.raises(TierwiseError, match=r"rows\.jsonl:1: not a measured answer"):
        measure.read(tmp_path / "rows.jsonl")
