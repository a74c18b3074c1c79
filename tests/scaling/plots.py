"""The plots of docs/scaling.md. matplotlib is imported where it draws."""

from collections.abc import Sequence
from pathlib import Path

from tests.scaling.trace import TRACES, Outcome

GREY = "0.55"


def draw(outcomes: Sequence[Outcome], folder: Path, ours: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _over_time([one for one in outcomes if one.name in ours], folder / "scaling-step.svg")
    _trade_off(outcomes, folder / "scaling-trade-off.svg", ours)


def _over_time(outcomes: Sequence[Outcome], path: Path) -> None:
    """Queue, replicas and latency of our policies through the step of load."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    queue, replicas, latency = figure.subplots(3, 1, sharex=True)
    for one in outcomes:
        ats = [seen.at for seen in one.seen]
        queue.plot(ats, [one.queue_at(at) for at in ats], label=one.name)
        (line,) = replicas.step(ats, [seen.running for seen in one.seen], where="post", label=f"{one.name}: running")
        replicas.step(
            ats, [seen.paid for seen in one.seen], where="post", ls=":", color=line.get_color(), label="with those that start or leave"
        )
        latency.plot([s.arrived for s in one.served], [s.ended - s.arrived for s in one.served], ".", ms=3, color=line.get_color())
    for axes, label in ((queue, "requests waiting"), (replicas, "replicas"), (latency, "latency (s), by arrival")):
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        _shade(axes)
    queue.legend(fontsize=8)
    replicas.legend(fontsize=7)
    latency.set_xlabel("seconds; grey: 2.5 replicas' load; before and after: 0.4")
    figure.savefig(path, metadata={"Date": None})


def _shade(axes: object) -> None:
    before, step, _ = TRACES["step"]
    axes.axvspan(before.seconds, before.seconds + step.seconds, color="0.93", zorder=0)  # type: ignore[attr-defined]


def _trade_off(outcomes: Sequence[Outcome], path: Path, ours: Sequence[str]) -> None:
    """Waiting against paying: what is lower and further left is better in both."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for one in outcomes:
        mine = one.name in ours
        axes.plot(one.replica_seconds, one.queue_seconds, "*" if mine else "o", ms=13 if mine else 7, color="C3" if mine else GREY)
        axes.annotate(
            one.name, (one.replica_seconds, one.queue_seconds), xytext=(6, 5), textcoords="offset points", fontsize=8, rotation=25
        )
    axes.set_xlabel("replica-seconds")
    axes.set_ylabel("queue-seconds")
    axes.set_xlim(0, 1.2 * max(one.replica_seconds for one in outcomes))
    figure.savefig(path, metadata={"Date": None})
