"""A plan as text, as JSON and as a plot."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.domain import Json
from serve_app.planning.config import Engines, Prices, Traffic
from serve_app.planning.cost import Bill, Ground, bill
from serve_app.planning.plan import Result, Simulated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MONEY = ("", "$/month", "of it idle", "$/1k")
FLEET = ("small", "large", "peak s/l", "use s/l", "large share")
HEAD = (*MONEY, *FLEET, "TTFT p50/p99 s", "answer p50/p99 s", "refused")
COLOURS = {"small tier": "#2a78b8", "large tier": "#c4572f", "router": "#7a6fb0", "head": "#8a8a8a", "ingress": "#b8a13a"}


@dataclass(frozen=True, slots=True)
class Plan:
    traffic: Traffic
    engines: Engines
    prices: Prices
    simulated: Simulated
    bills: tuple[Bill, ...]


def priced(traffic: Traffic, engines: Engines, prices: Prices, simulated: Simulated) -> Plan:
    """Raises `SettingsError` for an instance type without a price."""
    bills = (bill(one, Ground(engines, prices, simulated.rate, simulated.cells)) for one in simulated.results)
    return Plan(traffic, engines, prices, simulated, tuple(bills))


def as_json(plan: Plan) -> Json:
    simulated = plan.simulated
    return {
        "traffic": plan.traffic.model_dump(),
        "engines": plan.engines.model_dump(),
        "prices": {"date": plan.prices.date, "source": plan.prices.source, "hours_per_month": plan.prices.hours_per_month},
        "simulated": {"requests": simulated.asked, "cells": simulated.cells, **asdict(simulated.grid)},
        "ways": [
            {**asdict(one), "usd_per_month": paid.usd, "idle_usd": paid.idle_usd, "items": [asdict(item) for item in paid.items]}
            for one, paid in zip(simulated.results, plan.bills, strict=True)
        ],
    }


def as_lines(plan: Plan) -> list[str]:
    pairs = list(zip(plan.simulated.results, plan.bills, strict=True))
    rows = [HEAD, *(_row(one, paid, plan.traffic.requests_per_month) for one, paid in pairs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [*_about(plan), "", *("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)]
    return [*lines, "", *(line for one, paid in pairs for line in _items(one, paid)), *_notes(plan)]


def _about(plan: Plan) -> list[str]:
    traffic, simulated = plan.traffic, plan.simulated
    grid = simulated.grid
    part = "a whole day" if grid.whole else f"{len(grid.starts)} windows of {grid.seconds:.0f} s after {grid.warm_s:.0f} s of warm-up"
    cells = "" if simulated.cells == 1 else f" of one of {simulated.cells} equal cells"
    tokens = f"{traffic.prompt_tokens:g} prompt and {traffic.output_tokens:g} output tokens on average"
    return [
        f"{traffic.requests_per_month:,.0f} requests a month ({simulated.rate:,.1f}/s), {tokens}, prices of {plan.prices.date}",
        f"simulated: {part}{cells}, {simulated.asked:,} requests for each way",
    ]


def _notes(plan: Plan) -> list[str]:
    unknown = [name for name in ("small", "large") if not getattr(plan.engines, name).measured]
    return [f"the speeds of {' and '.join(unknown)} were not measured: {plan.engines.large.source}"] if unknown else []


def _row(one: Result, paid: Bill, requests: float) -> tuple[str, ...]:
    refused = one.refused / max(one.answered + one.refused + one.unfinished, 1)
    return (
        one.way,
        f"{paid.usd:,.0f}",
        f"{paid.idle_usd:,.0f}",
        f"{paid.usd / requests * 1000:.3f}",
        *(f"{one.mean[tier]:.1f}" if tier in one.mean else "-" for tier in ("small", "large")),
        _both(one.peak, "{:.0f}"),
        _both(one.use, "{:.0%}"),
        f"{one.large_share:.1%}",
        f"{one.ttft_p50:.2f} / {one.ttft_p99:.2f}",
        f"{one.total_p50:.1f} / {one.total_p99:.1f}",
        f"{refused:.2%}",
    )


def _both(values: object, form: str) -> str:
    found = values if isinstance(values, dict) else {}
    return " / ".join(form.format(found[tier]) if tier in found else "-" for tier in ("small", "large"))


def _items(one: Result, paid: Bill) -> list[str]:
    there = [item for item in paid.items if item.count]
    parts = [f"{item.name} {item.count:.1f} x {item.instance} ${item.usd:,.0f} (idle {item.idle_usd:,.0f})" for item in there]
    return [f"{one.way}: " + ", ".join(parts)]


def plot(plan: Plan, path: Path) -> None:
    """Dollars by item and the latencies of each way. The file's ending says SVG or PNG. Raises `ValueError` for another one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - only who plots pays for it
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    money, times = figure.subplots(1, 2, sharey=True)
    _plot_money(money, plan)
    _plot_times(times, plan.simulated.results)
    for axes, columns in ((money, len(COLOURS)), (times, 4)):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=columns, fontsize=8, frameon=False)
    figure.suptitle(f"{plan.traffic.requests_per_month:,.0f} requests a month", fontsize=11)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def _plot_money(axes: "Axes", plan: Plan) -> None:
    names = [one.way for one in plan.simulated.results]
    left = [0.0] * len(names)
    for name, colour in COLOURS.items():
        widths = [sum(item.usd for item in paid.items if item.name == name) / 1000 for paid in plan.bills]
        axes.barh(names, widths, left=left, color=colour, label=name)
        left = [one + width for one, width in zip(left, widths, strict=True)]
    axes.set_xlabel(f"thousand US dollars a month, prices of {plan.prices.date}")
    axes.invert_yaxis()


def _plot_times(axes: "Axes", results: Sequence[Result]) -> None:
    names = [one.way for one in results]
    for (label, values), marker in zip(
        (
            ("TTFT p50", [one.ttft_p50 for one in results]),
            ("TTFT p99", [one.ttft_p99 for one in results]),
            ("answer p50", [one.total_p50 for one in results]),
            ("answer p99", [one.total_p99 for one in results]),
        ),
        "os^D",
        strict=True,
    ):
        axes.plot(values, names, marker, label=label, markersize=6)
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.grid(axis="x", alpha=0.3)
