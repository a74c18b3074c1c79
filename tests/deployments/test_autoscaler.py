"""The policy as Serve calls it: Serve's own wrapper, context and serialisation around it, without a cluster."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import TimeStampedValue
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from serve_app.deployments.autoscaler import QueuePolicy
from serve_app.deployments.embedder import EmbedderServer
from serve_app.deployments.scaled import Scaled
from serve_app.settings.scaling import Scaling

FILE = Path(__file__).parents[2] / "deployments.yaml"
POLICY = "serve_app.deployments.autoscaler:QueuePolicy"
LARGE = Scaling(waiting=20.0, out_after_s=30.0, in_after_s=600.0, cooldown_s=0.0, stale_s=30.0)
BUSY = {"waiting": 50, "running": 16, "capacity": 16}
IDLE = {"waiting": 0, "running": 0, "capacity": 16}


class Replica(Scaled):
    def __init__(self, scaling: Scaling | None = LARGE, **queues: int) -> None:
        self._scaling, self._queues = scaling, queues

    def queues(self) -> dict[str, int]:
        return self._queues


class Controller:
    """What Serve's controller hands to a policy; `age` is how old each replica's report is, in seconds."""

    def __init__(self, policy: Any, *, min_replicas: int = 1) -> None:
        config = AutoscalingConfig(min_replicas=min_replicas, max_replicas=9, upscale_delay_s=0, downscale_delay_s=0)
        self.policy, self.config = policy, config
        self.now, self.target = 1000.0, 1
        self.state: dict[str, Any] = {}

    def tick(
        self, replicas: list[Replica], *, target: int | None = None, age: float = 1.0, queued: float = 0.0, metrics: Any = None
    ) -> int:
        self.target = self.target if target is None else target
        raw = raw_metrics([(f"replica-{i}", self.now - age, one.record_autoscaling_stats()) for i, one in enumerate(replicas)])
        context = AutoscalingContext(
            deployment_id=SimpleNamespace(name="LargeTier"),
            deployment_name="LargeTier",
            app_name="tierwise",
            current_num_replicas=len(replicas),
            target_num_replicas=self.target,
            running_replicas=[],
            total_num_requests=queued,
            total_queued_requests=queued,
            aggregated_metrics={},
            raw_metrics=raw if metrics is None else metrics,
            capacity_adjusted_min_replicas=self.config.min_replicas,
            capacity_adjusted_max_replicas=self.config.max_replicas,
            policy_state=self.state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=self.now,
            config=self.config,
        )
        replicas_wanted, self.state = self.policy(context)
        return replicas_wanted

    def ticks(self, seconds: int, replicas: list[Replica], **options: Any) -> int:
        answer = self.target
        for _ in range(seconds):
            self.now += 1.0
            answer = self.tick(replicas, **options)
        return answer


def raw_metrics(reports: list[tuple[str, float, dict[str, float]]]) -> dict[str, dict[str, list[TimeStampedValue]]]:
    raw: dict[str, dict[str, list[TimeStampedValue]]] = {}
    for replica, at, stats in reports:
        for name, value in stats.items():
            raw.setdefault(name, {})[replica] = [TimeStampedValue(at - 5.0, 0.0), TimeStampedValue(at, value)]
    return raw


@pytest.fixture
def controller() -> Controller:
    return Controller(QueuePolicy())


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("ray.serve")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_serve_takes_the_policy_as_the_file_names_it_and_calls_one_instance_of_it() -> None:
    """Serve copies the class by value into its controller; wrapped as there, it decides as here."""
    wrapped = _apply_autoscaling_config(_resolve_policy_callable(AutoscalingPolicy(policy_function=POLICY)))
    controller = Controller(wrapped)
    assert controller.ticks(30, [Replica(**BUSY)]) == 1
    assert controller.ticks(1, [Replica(**BUSY)]) == 2


def test_every_deployment_that_the_file_scales_by_queues_carries_numbers_that_the_policy_reads() -> None:
    listed = yaml.safe_load(FILE.read_text())["applications"][0]["deployments"]
    found = {item["name"]: item for item in listed if item.get("autoscaling_config", {}).get("policy") == {"policy_function": POLICY}}
    assert list(found) == ["Embedder", "RouterLLM", "SmallTier", "LargeTier"]
    for item in found.values():
        replica = Replica(None, **BUSY)
        replica.reconfigure(item["user_config"])
        controller = Controller(QueuePolicy())
        assert controller.ticks(120, [replica]) > 1, "66 requests on 16 places are too many for each of them"


def test_the_engines_counters_decide_and_not_what_serve_counts(controller: Controller) -> None:
    assert controller.ticks(60, [Replica(**IDLE)], queued=500.0) == 1
    assert controller.ticks(60, [Replica(**BUSY)], queued=0.0) == 2


def test_a_report_that_is_missing_holds(controller: Controller) -> None:
    busy = [Replica(**BUSY), Replica(**BUSY)]
    reports = raw_metrics([("replica-0", 1000.0, busy[0].record_autoscaling_stats())])
    for _ in range(100):
        controller.now += 1.0
        reports = raw_metrics([("replica-0", controller.now, busy[0].record_autoscaling_stats())])
        assert controller.tick(busy, target=2, metrics=reports) == 2


def test_a_report_that_is_old_holds(controller: Controller) -> None:
    assert controller.ticks(100, [Replica(**BUSY)], age=31.0) == 1
    assert controller.ticks(31, [Replica(**BUSY)], age=29.0) == 2


def test_a_hole_in_the_reports_starts_the_time_anew(controller: Controller) -> None:
    controller.ticks(29, [Replica(**BUSY)])
    controller.ticks(1, [Replica(**BUSY)], age=60.0)
    assert controller.ticks(30, [Replica(**BUSY)]) == 1


def test_replicas_without_thresholds_are_never_scaled(controller: Controller) -> None:
    assert controller.ticks(200, [Replica(None, **BUSY)]) == 1


def test_while_thresholds_change_the_newest_report_has_them(controller: Controller) -> None:
    old = Replica(Scaling(waiting=60.0, stale_s=30.0), **BUSY).record_autoscaling_stats()
    new = Replica(Scaling(waiting=10.0, out_after_s=5.0, cooldown_s=0.0), **BUSY).record_autoscaling_stats()
    for _ in range(7):
        controller.now += 1.0
        raw = raw_metrics([("replica-0", controller.now - 1.0, new), ("replica-1", controller.now - 2.0, old)])
        decided = controller.tick([Replica(**BUSY)] * 2, target=2, metrics=raw)
    assert decided == 3


def test_a_threshold_that_was_taken_away_no_longer_counts(controller: Controller) -> None:
    """Serve keeps the last value of a number that is no longer reported for a while."""
    both = Replica(Scaling(waiting=1.0, depth=1000.0, out_after_s=5.0, cooldown_s=0.0), **BUSY).record_autoscaling_stats()
    only = Replica(Scaling(depth=1000.0, out_after_s=5.0, cooldown_s=0.0), **BUSY).record_autoscaling_stats()
    for _ in range(30):
        controller.now += 1.0
        raw = raw_metrics([("replica-0", controller.now - 1.0, only)])
        raw["scaling_waiting"] = {"replica-0": [TimeStampedValue(controller.now - 4.0, both["scaling_waiting"])]}
        assert controller.tick([Replica(**BUSY)], metrics=raw) == 1


def test_without_replicas_a_queued_request_starts_one() -> None:
    controller = Controller(QueuePolicy(), min_replicas=0)
    assert controller.ticks(20, [], target=0) == 0
    assert controller.ticks(1, [], target=0, queued=1.0) == 1


def test_what_was_served_between_two_reports_keeps_the_last_replica() -> None:
    controller = Controller(QueuePolicy(), min_replicas=0)
    quick = LARGE.model_copy(update={"idle_s": 10.0})
    for number in range(10):
        assert controller.ticks(5, [Replica(quick, **IDLE, served=number)], target=1) == 1
    assert controller.ticks(10, [Replica(quick, **IDLE, served=9)], target=1) == 0


def test_an_error_in_the_policy_holds_and_never_reaches_the_controller(controller: Controller) -> None:
    assert controller.ticks(3, [Replica(**BUSY)], metrics=[("not", "what Serve gives")]) == 1


def test_being_blind_for_a_minute_is_said_once(controller: Controller, log: pytest.LogCaptureFixture) -> None:
    controller.ticks(59, [Replica(**BUSY)], age=99.0)
    assert log.messages == []
    controller.ticks(200, [Replica(**BUSY)], age=99.0)
    assert log.messages == ["LargeTier is not scaled for want of statistics: 0 of 1 replicas have reported lately"]
    controller.ticks(1, [Replica(**BUSY)])
    controller.ticks(62, [Replica(**BUSY)], age=99.0)
    assert len(log.messages) == 2


def test_a_bad_user_config_is_refused_and_the_old_one_stays(caplog: pytest.LogCaptureFixture) -> None:
    replica = Replica(**BUSY)
    before = replica.record_autoscaling_stats()
    replica.reconfigure({"scaling": {"wating": 3}})
    assert replica.record_autoscaling_stats() == before
    assert "user_config.scaling.wating: unknown key, did you mean 'waiting'?" in caplog.text
    replica.reconfigure({"scaling": {"waiting": 3}})
    assert replica.record_autoscaling_stats()["scaling_waiting"] == 3.0


async def test_the_embedders_texts_beyond_one_batch_wait_and_leave_again_also_by_an_error() -> None:
    embedder = object.__new__(EmbedderServer)  # without its model
    embedder._batch, embedder._inside = 2, 0
    go = asyncio.Event()

    async def batched(text: str) -> None:
        await go.wait()
        if text == "bad":
            raise ValueError(text)

    embedder._batched = batched
    texts = [asyncio.ensure_future(embedder.embed(text)) for text in ("a", "b", "bad")]
    await asyncio.sleep(0)
    assert embedder.queues() == {"waiting": 1, "running": 2, "capacity": 2}
    go.set()
    await asyncio.gather(*texts, return_exceptions=True)
    assert embedder.queues() == {"waiting": 0, "running": 0, "capacity": 2}
