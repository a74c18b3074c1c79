"""Continuous batching: held against a simulation step by step, and against queueing theory."""

import heapq
import math
import random
from collections import deque
from typing import Any

import pytest

from serve_app.planning.replica import Job
from serve_app.planning.speeds import EngineSpeeds
from tests.planning.common import speeds, through


def step_by_step(engine: EngineSpeeds, jobs: list[Job]) -> list[tuple[float, float]]:
    """The same engine, every step by itself: first and last token of each job."""
    coming, now = deque(sorted(jobs, key=lambda job: job.came)), 0.0
    waiting: deque[Job] = deque()
    reading: list[list[Any]] = []
    decoding: list[list[Any]] = []
    context, firsts, ends = 0, dict[int, float](), dict[int, float]()
    while coming or waiting or reading or decoding:
        if not (waiting or reading or decoding):
            now = max(now, coming[0].came)
        while coming and coming[0].came <= now:
            waiting.append(coming.popleft())
        kept = sum(job.prompt + job.output for job, _ in reading + decoding)
        while (
            waiting
            and len(reading) + len(decoding) < engine.max_num_seqs
            and kept + waiting[0].prompt + waiting[0].output <= engine.kv_tokens
        ):
            kept += waiting[0].prompt + waiting[0].output
            reading.append([waiting[0], waiting.popleft().prompt])
        left = engine.max_num_batched_tokens - len(decoding) if reading else 0
        read = 0
        for entry in reading:
            taken = min(entry[1], left)
            entry[1], left, read = entry[1] - taken, left - taken, read + taken
        ready = [entry for entry in reading if entry[1] == 0]
        now += engine.step_s(len(decoding) + len(ready), context, read)
        context += read + len(decoding) + len(ready)
        for entry in decoding:
            entry[1] -= 1
        for job, _ in ready:
            firsts[job.key] = now
            decoding.append([job, job.output - 1])
        reading = [entry for entry in reading if entry[1] > 0]
        for job, rest in decoding:
            if rest == 0:
                ends[job.key] = now
                context -= job.prompt + job.output
        decoding = [entry for entry in decoding if entry[1] > 0]
    return [(firsts[job.key], ends[job.key]) for job in jobs]


@pytest.mark.parametrize("rate", [1.0, 5.0, 20.0])
def test_runs_of_steps_give_the_times_of_single_steps(rate: float) -> None:
    engine = speeds(per_sequence_s=0.001, per_prompt_token_s=0.0002, per_context_token_s=0.000003, max_num_batched_tokens=64, kv_tokens=900)
    rng, at = random.Random(1), 0.0
    jobs = []
    for index in range(300):
        at += rng.expovariate(rate)
        jobs.append(Job(index, at, rng.randint(1, 200), rng.randint(1, 120)))
    expected = step_by_step(engine, [Job(job.key, job.came, job.prompt, job.output) for job in jobs])
    replica = through(engine, jobs)
    for job, (first, done) in zip(jobs, expected, strict=True):
        assert (job.first, job.done) == (pytest.approx(first), pytest.approx(done)), job.key
    assert (replica.load, replica._kv, replica._context) == (0, 0, 0)


def erlang_wait_s(servers: int, rate: float, service_s: float) -> float:
    """The mean wait of M/M/c."""
    load = rate * service_s
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last) * service_s / (servers - load)


def waits(servers: int, rate: float, count: int = 12_000) -> tuple[float, float]:
    """The mean wait of requests of about a second each on `servers` places: of our replica, and of whoever is free first (G/G/c)."""
    rng, at, free, plain = random.Random(5), 0.0, [0.0] * servers, 0.0
    jobs = []
    for index in range(count):
        at += rng.expovariate(rate)
        jobs.append(Job(index, at, 1, math.ceil(rng.expovariate(1 / 1000))))
    through(speeds(base_s=0.001, max_num_seqs=servers), jobs)
    for job in jobs:
        begins = max(heapq.heappop(free), job.came)
        heapq.heappush(free, begins + job.output * 0.001)
        plain += begins - job.came
    return sum((job.first or 0.0) - job.came for job in jobs) / count, plain / count


@pytest.mark.parametrize(("servers", "use"), [(1, 0.5), (8, 0.7)])
def test_a_step_that_costs_the_same_whatever_is_in_it_is_a_queue_of_so_many_servers(servers: int, use: float) -> None:
    ours, plain = waits(servers, use * servers)
    assert plain <= ours <= plain + 0.003  # the step in which it comes, and its own first


@pytest.mark.parametrize(("servers", "use"), [(1, 0.4), (2, 0.5)])
def test_its_mean_wait_is_erlangs(servers: int, use: float) -> None:
    ours, _ = waits(servers, use * servers)
    assert ours == pytest.approx(erlang_wait_s(servers, use * servers, 1.0), rel=0.12)


def test_equal_answers_on_one_place_wait_as_md1() -> None:
    engine = speeds(base_s=0.001, max_num_seqs=1)
    rng, at = random.Random(3), 0.0
    jobs = []
    for index in range(12_000):
        at += rng.expovariate(0.6)
        jobs.append(Job(index, at, 1, 1000))
    through(engine, jobs)
    waited = sum((job.first or 0.0) - job.came for job in jobs) / len(jobs)
    assert waited == pytest.approx(0.6 / (2 * 0.4), rel=0.08)


def test_one_that_comes_later_is_taken_in_after_the_step_and_takes_no_longer() -> None:
    jobs = [Job(0, 0.0, 1, 100), Job(1, 0.503, 1, 100)]
    through(speeds(), jobs)
    assert jobs[0].done == pytest.approx(1.0)
    assert (jobs[1].first, jobs[1].done) == (pytest.approx(0.52), pytest.approx(1.51))


def test_the_eleventh_waits_for_a_place() -> None:
    jobs = [Job(index, 0.0, 1, 100) for index in range(11)]
    through(speeds(), jobs)
    assert jobs[10].first == pytest.approx(1.01)  # the first is done after 1 s


def test_a_full_kv_cache_holds_back_and_a_request_above_it_runs_alone() -> None:
    jobs = [Job(0, 0.0, 10, 90), Job(1, 0.0, 10, 90), Job(2, 0.0, 10, 500)]
    through(speeds(kv_tokens=150), jobs)
    assert jobs[1].first == pytest.approx(1.0 - 0.1 + 0.01)  # 90 steps, then its own first
    assert jobs[2].first == pytest.approx(0.9 + 0.9 + 0.01)


def test_a_long_prompt_is_read_in_pieces_while_others_go_on() -> None:
    engine = speeds(max_num_batched_tokens=101, per_prompt_token_s=0.001)
    jobs = [Job(0, 0.0, 1, 5), Job(1, 0.005, 200, 1)]
    through(engine, jobs)
    assert jobs[1].first == pytest.approx(0.011 + 2 * (0.01 + 0.1))
    assert jobs[0].done == pytest.approx(0.011 + 2 * (0.01 + 0.1) + 2 * 0.01)


def test_the_account_is_littles_law() -> None:
    jobs = [Job(index, index * 0.37, 5, 40 + index) for index in range(50)]
    busy, sequences = through(speeds(), jobs).account()
    assert sequences == pytest.approx(sum((job.done or 0) - (job.first or 0) + 0.01 for job in jobs), rel=0.02)
    assert 0 < busy <= max(job.done or 0 for job in jobs)
