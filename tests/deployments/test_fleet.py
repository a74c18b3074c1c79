"""Serve's word on the tiers' replicas, and what an engine over a handle makes of it."""

import asyncio
from typing import Any

import pytest
from ray.serve.schema import DeploymentStatus, ReplicaState

from serve_app.deployments.clients import HandleEngine, ReplicaWatch
from serve_app.deployments.fleet import FleetWatch, fleets
from serve_app.domain import Json
from serve_app.errors import EngineFailed, EngineTimeout, NotReady
from serve_app.waking import Fleet, Starts
from tests.deployments.test_clients import FakeHandle, FakeStream
from tests.fakes import FakeClock, soon, until


def deployment(*states: str, target: int, scaling: Json | None = None, status: str = "HEALTHY") -> Json:
    """As the controller tells it, with what is read of it."""
    config = {"autoscaling_config": scaling} if scaling is not None else {"num_replicas": 1}
    replicas = [{"replica_id": f"r{number}", "state": ReplicaState(state)} for number, state in enumerate(states)]
    return {"status": DeploymentStatus(status), "target_num_replicas": target, "replicas": replicas, "deployment_config": config}


def details(**deployments: Json) -> Json:
    return {"applications": {"tierwise": {"deployments": deployments}, "other": {"deployments": {"LargeTier": deployment(target=7)}}}}


def test_the_replicas_of_each_deployment_are_counted_by_what_they_do() -> None:
    scaling = {"min_replicas": 0, "max_replicas": 2}
    told = details(
        LargeTier=deployment("RUNNING", "RUNNING", "STARTING", "UPDATING", "RECOVERING", "STOPPING", target=5, scaling=scaling),
        SmallTier=deployment("RUNNING", target=1, scaling={"min_replicas": 1}),
        Ledger=deployment(target=1, status="UNHEALTHY"),
    )
    assert fleets(told, "tierwise", 3.0) == {
        "LargeTier": Fleet(target=5, running=2, starting=3, may_sleep=True, broken=False, as_of=3.0),
        "SmallTier": Fleet(target=1, running=1, starting=0, may_sleep=False, broken=False, as_of=3.0),
        "Ledger": Fleet(target=1, running=0, starting=0, may_sleep=False, broken=True, as_of=3.0),
    }


async def test_a_controller_that_is_away_leaves_the_old_word_to_grow_old() -> None:
    clock, answers = FakeClock(), [details(LargeTier=deployment(target=0)), RuntimeError("gone"), {"applications": {}}]

    def ask() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = FleetWatch("tierwise", clock, ask)
    assert watch.of("LargeTier") is None
    for _ in range(3):
        await watch.refresh()
        fleet = watch.of("LargeTier")
        assert fleet is not None
        assert fleet.as_of == 100.0
        clock.advance(1.0)


async def test_serve_is_asked_again_soon_while_somebody_wants_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.deployments.fleet.SOON_S", 0.001)
    asked: list[int] = []

    def ask() -> Json:
        asked.append(1)
        return details()

    running = asyncio.create_task(FleetWatch("tierwise", FakeClock(), ask).run(lambda: len(asked) < 3))
    await until(lambda: len(asked) == 3)
    await asyncio.sleep(0.02)
    running.cancel()
    assert len(asked) == 3


REPORT = {"waiting": 0, "running": 0, "capacity": 16, "prompt_tokens": 1, "generation_tokens": 2, "cold_start_s": 12.0}


class Sleeping:
    """A tier that sleeps, as Serve says, over a handle whose call for a report gives one."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stream = FakeStream([{"answer": 1}])
        self.handle = FakeHandle(generate=lambda *_: self.stream, load_report=self._report, count=self._count)
        self.watch = ReplicaWatch(self.handle, self.clock)  # type: ignore[arg-type]
        self.fleet = Fleet(0, 0, 0, may_sleep=True, broken=False, as_of=self.clock.monotonic())
        self.starts = Starts(lambda: self.fleet, heard=self.watch.heard, told=self.watch.cold_start, guess_s=30.0, clock=self.clock)
        self.engine = HandleEngine("m", self.handle, self.watch, connect_s=0.02, starts=self.starts)  # type: ignore[arg-type]

    async def _report(self) -> Json:
        self.clock.advance(20.0)
        return REPORT

    async def _count(self, *_: Any) -> Json:
        return {"tokens": 1}


async def test_a_call_for_a_replica_ends_the_sleep_with_its_answer() -> None:
    tier = Sleeping()
    load = tier.engine.load()
    assert load is not None
    assert (tier.engine.dormant(), tier.engine.ready(), load.replicas, load.cold_eta) == (True, False, 0, 30.0)
    tier.clock.advance(5.0)
    await soon(tier.engine.wake())
    load = tier.engine.load()
    assert load is not None
    assert (tier.engine.dormant(), tier.engine.ready(), load.replicas, load.capacity) == (False, True, 1, 16)
    assert load.cold_start == 12.0
    tier.watch.hear([{name: 0 for name in REPORT if name != "cold_start_s"}])
    assert tier.watch.cold_start() == 12.0, "what was told is remembered"


async def test_a_start_is_counted_from_the_call_for_it() -> None:
    tier = Sleeping()
    await soon(tier.engine.wake())
    tier.starts.observe()
    tier.fleet = Fleet(0, 0, 0, may_sleep=True, broken=False, as_of=tier.clock.monotonic() + 1.0)
    load = tier.engine.load()
    assert load is not None
    assert load.cold_eta == 20.0


async def test_a_tier_that_is_heard_of_is_not_ready_once_serve_says_that_it_sleeps() -> None:
    tier = Sleeping()
    tier.watch.hear([REPORT])
    assert tier.engine.ready()
    tier.clock.advance(1.0)
    tier.fleet = Fleet(0, 0, 0, may_sleep=True, broken=False, as_of=tier.clock.monotonic())
    assert (tier.watch.ready(), tier.engine.ready()) == (True, False)


async def test_a_prompt_is_not_counted_by_waking_a_tier() -> None:
    tier = Sleeping()
    with pytest.raises(EngineFailed, match="sleeps"):
        await tier.engine.count("chat", {})
    assert tier.handle.calls == []


async def test_a_request_that_meets_a_tier_falling_asleep_is_not_blamed_on_it() -> None:
    tier = Sleeping()
    tier.stream.taken.clear()
    with pytest.raises(NotReady):
        await soon(anext(tier.engine.generate("chat", {}, request_id="r")))
    assert tier.stream.cancelled == 1


async def test_a_tier_that_has_lost_its_replicas_is_blamed_as_before() -> None:
    tier = Sleeping()
    tier.fleet = Fleet(1, 0, 1, may_sleep=False, broken=False, as_of=tier.clock.monotonic())
    tier.stream.taken.clear()
    with pytest.raises(EngineTimeout):
        await soon(anext(tier.engine.generate("chat", {}, request_id="r")))


async def test_probes_are_told_beside_the_counters() -> None:
    tier = Sleeping()
    tier.watch.hear([{**REPORT, "probes": 2, "probe_tokens": 30, "probe_failures": 0}, {**REPORT, "probes": 1, "probe_tokens": 15}])
    load = tier.watch.load()
    assert load is not None
    assert load.counters == {"prompt_tokens": 2, "generation_tokens": 4, "probes": 3, "probe_tokens": 45, "probe_failures": 0}
