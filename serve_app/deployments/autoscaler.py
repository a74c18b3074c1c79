"""The autoscaling policy as Serve wants it: `policy_function: serve_app.deployments.autoscaler:QueuePolicy` in deployments.yaml.

Serve makes one instance for each deployment, in its controller, and a new one at every deploy and after a restart of the
controller; it copies this module there by value, so that everything but the reading of Serve's context stands in
`routing/scaling.py`. Serve applies min_replicas and max_replicas to what is decided here, and its own delays after ours.
"""

import logging
from collections.abc import Mapping
from typing import Any

from serve_app.routing.scaling import History, Sample, decide, held
from serve_app.settings.scaling import PREFIX, Scaling

WAITING, RUNNING, CAPACITY = "num_requests_waiting", "num_requests_running", "num_requests_capacity"
SERVED = "num_requests_served"  # an engine's alone
COMPLAIN_S = 60.0


class QueuePolicy:
    """Owns the history of one deployment. Never blocks, never raises: the controller's loop runs every deployment."""

    def __init__(self) -> None:
        self._history = History()
        self._blind_since: float | None = None
        self._complained = False

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Serve's `AutoscalingContext` in; the replicas to have and no state of Serve's out."""
        try:
            return self._decide(ctx), {}
        except Exception:  # noqa: BLE001 - an error here would stop the controller's loop for every deployment: hold instead
            self._hold(ctx, "it cannot be read", exc_info=True)
            return ctx.target_num_replicas, {}

    def _decide(self, ctx: Any) -> int:
        reports = latest(ctx.raw_metrics or {})
        scaling = newest(reports)
        fresh = [values for at, values in reports.values() if scaling is not None and ctx.current_time - at <= scaling.stale_s]
        if ctx.current_num_replicas and (scaling is None or len(fresh) < ctx.current_num_replicas):
            return self._hold(ctx, f"{len(fresh)} of {ctx.current_num_replicas} replicas have reported lately")
        self._blind_since, self._complained = None, False
        sample = Sample(
            at=ctx.current_time,
            replicas=ctx.current_num_replicas,
            target=ctx.target_num_replicas,
            waiting=sum(values[WAITING] for values in fresh),
            running=sum(values[RUNNING] for values in fresh),
            capacity=sum(values[CAPACITY] for values in fresh),
            queued=ctx.total_queued_requests,
            served=sum(values.get(SERVED, 0.0) for values in fresh),
        )
        to_zero = ctx.capacity_adjusted_min_replicas == 0
        replicas, self._history = decide(scaling or AT_ZERO, self._history, sample, to_zero=to_zero)
        return replicas

    def _hold(self, ctx: Any, why: str, *, exc_info: bool = False) -> int:
        """Nothing changes; said once when it lasts, since nobody scales meanwhile."""
        self._history = held(self._history)
        if self._blind_since is None:
            self._blind_since = ctx.current_time
        if not self._complained and ctx.current_time - self._blind_since >= COMPLAIN_S:
            self._complained = True
            logger = logging.getLogger("ray.serve")  # the controller's own, whose lines `serve` keeps
            logger.warning("%s is not scaled for want of statistics: %s", ctx.deployment_name, why, exc_info=exc_info)
        return int(ctx.target_num_replicas)


AT_ZERO = Scaling(waiting=1.0)
"""Without a replica nobody says by what to scale; only queued requests count then, and no threshold."""


def latest(metrics: Mapping[str, Mapping[Any, Any]]) -> dict[Any, tuple[float, dict[str, float]]]:
    """Each replica's last report: when it was made, and its numbers. One that lacks a queue counts for nothing."""
    reports: dict[Any, tuple[float, dict[str, float]]] = {}
    for name, series_of in metrics.items():
        for replica, series in series_of.items():
            if series:
                reports[replica] = _joined(reports.get(replica), series[-1].timestamp, name, series[-1].value)
    return {replica: report for replica, report in reports.items() if {WAITING, RUNNING, CAPACITY} <= report[1].keys()}


def _joined(report: tuple[float, dict[str, float]] | None, at: float, name: str, value: float) -> tuple[float, dict[str, float]]:
    """The numbers of one report share one time. Older ones were left out since, such as a threshold that was taken away."""
    if report is None or at > report[0]:
        return at, {name: value}
    return (at, {**report[1], name: value}) if at == report[0] else report


def newest(reports: Mapping[Any, tuple[float, dict[str, float]]]) -> Scaling | None:
    """The thresholds that the last report carries: while they change, replicas differ for a moment. None when it has none."""
    numbers = max(reports.values(), key=lambda report: report[0])[1] if reports else {}
    return Scaling.from_numbers(numbers) if any(name.startswith(PREFIX) for name in numbers) else None
