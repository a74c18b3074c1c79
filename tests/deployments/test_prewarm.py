"""The first answer of a start, and probes in quiet hours: when they run, and what becomes of their tokens."""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from serve_app.deployments.prewarm import REUSED_S, Prewarm, process_began
from serve_app.deployments.settlement import Settlements
from serve_app.domain import Usage
from serve_app.settings import PrewarmSettings
from tests.fakes import FOREVER, FakeClock, soon, until

ALL_DAY = PrewarmSettings(off_peak=["00:00-24:00"], every_s=0.001, timeout_s=0.05, start_timeout_s=0.05)
QUEUES = {"waiting": 0, "running": 1, "capacity": 8, "prompt_tokens": 100, "generation_tokens": 50}


class Replica:
    """An engine that answers a probe with what `answer` does, and has counted 12 and 4 tokens for it by then."""

    def __init__(self, settings: PrewarmSettings, answer: Callable[[], Any] = lambda: None) -> None:
        self.clock = FakeClock()
        self.asked: list[str] = []
        self.left = 0
        self.busy = False
        self.answer = answer
        self.settlements = Settlements()
        self.prewarm = Prewarm("m", settings, self.clock.now, probe=self._probe, used=self.settlements.of, idle=lambda: not self.busy)

    async def _probe(self, request_id: str) -> None:
        self.asked.append(request_id)
        try:
            waits = self.answer()
            if waits is not None:
                await asyncio.sleep(waits)
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.settlements.keep(request_id, Usage(12, 4, 2))

    def report(self) -> dict[str, Any]:
        return self.prewarm.report(QUEUES)


def broken() -> None:
    raise RuntimeError("the engine gave no answer: []")


async def test_a_replica_is_ready_with_its_first_answer_and_tells_how_long_that_took() -> None:
    replica = Replica(PrewarmSettings())
    assert "cold_start_s" not in replica.report()
    began = replica.clock.now()
    replica.clock.advance(42.0)
    await replica.prewarm.start(began)
    assert replica.report()["cold_start_s"] == 42.0
    assert len(replica.asked) == 1


@pytest.mark.parametrize(("answer", "why"), [(broken, "gave no answer"), (lambda: FOREVER, "none in time")])
async def test_a_start_fails_when_the_first_answer_fails_or_does_not_come(
    answer: Callable[[], Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    replica = Replica(ALL_DAY, answer)
    with pytest.raises(RuntimeError, match=why):
        await soon(replica.prewarm.start(replica.clock.now()))
    assert any(record.levelno == logging.ERROR and why in record.message for record in caplog.records)
    assert "cold_start_s" not in replica.report()


async def test_what_probes_use_is_no_clients() -> None:
    replica = Replica(ALL_DAY)
    await replica.prewarm.turn()
    await replica.prewarm.turn()
    told = replica.report()
    assert (told["prompt_tokens"], told["generation_tokens"]) == (100 - 24, 50 - 8)
    assert (told["probes"], told["probe_tokens"], told["probe_failures"]) == (2, 32, 0)
    assert (told["waiting"], told["running"], told["capacity"]) == (0, 1, 8)
    assert len(set(replica.asked)) == 2


async def test_a_probe_that_fails_or_hangs_is_counted_with_its_tokens_and_nothing_worse(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica(ALL_DAY, broken)
    await replica.prewarm.turn()
    replica.answer = lambda: FOREVER
    await soon(replica.prewarm.turn())
    told = replica.report()
    assert (told["probes"], told["probe_failures"], told["probe_tokens"], replica.left) == (2, 2, 32, 1)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


async def test_nobody_is_probed_beside_work_or_in_busy_hours() -> None:
    replica = Replica(PrewarmSettings(off_peak=["22:00-06:00"]))
    replica.clock.time = 12 * 3600.0
    await replica.prewarm.turn()
    assert not replica.asked, "it is noon"
    replica.clock.time = 23 * 3600.0
    replica.busy = True
    await replica.prewarm.turn()
    assert not replica.asked, "it has work to do"
    replica.busy = False
    await replica.prewarm.turn()
    assert len(replica.asked) == 1


async def test_probes_go_on_after_the_start_until_the_replica_leaves() -> None:
    replica = Replica(ALL_DAY)
    await replica.prewarm.start(replica.clock.now())
    await until(lambda: len(replica.asked) >= 3)
    replica.answer = lambda: FOREVER
    await until(lambda: replica.prewarm.probing)
    await soon(replica.prewarm.close())
    asked = len(replica.asked)
    await asyncio.sleep(0.01)
    assert (replica.left, replica.prewarm.probing, len(replica.asked)) == (1, 0, asked)


async def test_without_quiet_hours_only_the_start_is_probed() -> None:
    replica = Replica(PrewarmSettings(every_s=0.001))
    await replica.prewarm.start(replica.clock.now())
    await asyncio.sleep(0.02)
    await replica.prewarm.close()
    assert len(replica.asked) == 1


def test_a_start_begins_with_its_process_unless_that_was_idle_before() -> None:
    created = psutil.Process(os.getpid()).create_time()
    assert process_began(created + 5.0) == created
    assert process_began(created + REUSED_S + 1.0) == created + REUSED_S + 1.0
