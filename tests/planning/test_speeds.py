"""The model of one step, and what follows from it."""

import pytest

from serve_app.planning.replica import Job
from serve_app.planning.speeds import span_s, steps_in
from tests.planning.common import speeds, through


def test_a_step_costs_what_is_in_it() -> None:
    engine = speeds(base_s=0.01, per_sequence_s=0.001, per_prompt_token_s=0.0001, per_context_token_s=0.000001)
    assert engine.step_s(5, 2000.0, 100) == pytest.approx(0.01 + 0.005 + 0.01 + 0.002)


@pytest.mark.parametrize("growth", [0.0, 0.0003])
def test_whole_steps_are_found_from_a_time(growth: float) -> None:
    for steps in (1, 2, 7, 100):
        whole = span_s(0.01, growth, steps)
        assert steps_in(0.01, growth, whole) == steps
        assert steps_in(0.01, growth, whole + 0.001) == steps + 1
        assert steps_in(0.01, growth, whole - 0.001) == steps


def test_throughput_is_what_a_saturated_replica_reaches() -> None:
    engine = speeds(per_sequence_s=0.001, per_prompt_token_s=0.0002, per_context_token_s=0.000002)
    jobs = [Job(index, 0.0, 40, 100) for index in range(500)]
    through(engine, jobs)
    took = max(job.done or 0.0 for job in jobs)
    assert engine.throughput(40, 100) == pytest.approx(500 / took, rel=0.05)


def test_throughput_is_bounded_by_the_kv_cache() -> None:
    assert speeds(kv_tokens=280).throughput(40, 100) == pytest.approx(speeds(max_num_seqs=2).throughput(40, 100))


def test_running_follows_littles_law() -> None:
    """Ten milliseconds a step and 100 steps: a second each."""
    assert speeds().running(3.0, 40, 100) == pytest.approx(3.0)
    assert speeds().running(1e6, 40, 100) == 10
    assert speeds(per_sequence_s=0.001).running(3.0, 40, 100) == pytest.approx(3.0 / 0.7)  # b = 300 x (10 + b) ms


def test_a_request_waits_outside_longer_beside_others() -> None:
    assert speeds(request_s=0.02, request_per_sequence_s=0.01).outside_s(3) == pytest.approx(0.05)
