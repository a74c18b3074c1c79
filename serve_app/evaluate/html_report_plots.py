"""The report's plots as SVG that stands in the page: text stays text, and takes the page's colour, light or dark."""

import html
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from serve_app.evaluate.history import Floats, History
from serve_app.evaluate.replay import Point, Replay

SMALL, LARGE, BOTH = "#1f9e89", "#e07b39", "#7a7f87"  # each readable on white and on near-black
INK = "#010203"  # stands for the page's colour of text
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.2,
    "legend.frameon": False,
    **dict.fromkeys(["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"], INK),
}
BINS = 48
CURVE_POINTS = 400


def svg(name: str, says: str, draw: Callable[[Axes], None]) -> str:
    """`name` keeps the ids of one plot apart from another's; `says` is for who cannot see it."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(|href=")#', rf"\1#{name}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(says, quote=True)}"', 1)


def traffic(history: History) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        edges, counts = _binned(history)
        middles = [_date(moment) for moment in (edges[:-1] + edges[1:]) / 2]
        axes.stackplot(middles, counts["small"], counts["large"], labels=["small", "large"], colors=[SMALL, LARGE], alpha=0.85)
        axes.set_ylabel(f"requests in {_span(edges[1] - edges[0])}")
        axes.set_ylim(bottom=0)
        _above(axes)
        _dates(axes)

    return draw


def split(history: History) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        edges, counts = _binned(history)
        middles = (edges[:-1] + edges[1:]) / 2
        whole = counts["small"] + counts["large"]
        there = whole > 0
        axes.plot([_date(moment) for moment in middles[there]], counts["large"][there] / whole[there], color=LARGE, lw=1.6)
        axes.set_ylabel("share of the large tier")
        axes.set_ylim(0, 1)
        _dates(axes)

    return draw


def scores(history: History, threshold: float | None) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        score = history.numbers["score"]
        there = ~np.isnan(score)
        parts = [score[there & ~history.large], score[there & history.large]]
        bins, labels = np.linspace(0, 1, 41).tolist(), ["small answered", "large answered"]
        axes.hist(parts, bins=bins, stacked=True, color=[SMALL, LARGE], label=labels, alpha=0.85)
        if threshold is not None:
            axes.axvline(threshold, color=INK, lw=1.2, ls="--", label=f"threshold {threshold:g}")
        axes.set_xlabel("score")
        axes.set_ylabel("requests")
        axes.set_xlim(0, 1)
        _above(axes)

    return draw


def cost_curve(found: Replay) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        _band(axes, found.points, "usd", BOTH, "dollars for 1,000 requests")
        axes.axhline(found.recorded_usd, color=INK, lw=1, ls=":", label="as paid")
        if found.in_force is not None:
            axes.axvline(found.in_force, color=INK, lw=1.2, ls="--", label=f"in force: {found.in_force:g}")
        axes.set_xlabel("threshold")
        axes.set_ylabel("dollars / 1,000")
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 1)
        axes.legend(loc="best")

    return draw


def quality_curve(found: Replay) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for name, colour, label in (("quality", SMALL, "judged quality"), ("agreement", LARGE, "agreement with labels")):
            if getattr(found.points[0], name) is not None:
                _band(axes, found.points, name, colour, label)
        axes.set_xlabel("threshold")
        axes.set_ylim(0, 1)
        axes.set_xlim(0, 1)
        axes.legend(loc="best")

    return draw


def savings(history: History) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        picked = np.unique(np.linspace(0, len(history) - 1, CURVE_POINTS).astype(int))
        moments = [_date(moment) for moment in history.numbers["created"][picked]]
        paid, large = (np.cumsum(history.numbers[name])[picked] for name in ("cost_usd", "all_large_usd"))
        axes.plot(moments, large, color=LARGE, label="had it all been large")
        axes.plot(moments, paid, color=SMALL, label="paid")
        axes.fill_between(np.asarray(moments, dtype=object), paid, large, color=SMALL, alpha=0.15, label="saved")
        axes.set_ylabel("dollars, added up")
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left")
        _dates(axes)

    return draw


def latency(history: History) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        shares, seconds = np.linspace(0, 1, CURVE_POINTS), history.numbers["total_seconds"]
        timed = (history.words["outcome"] == "ok") & ~np.isnan(seconds)
        for name, colour, there in (("small", SMALL, ~history.large), ("large", LARGE, history.large)):
            took = seconds[there & timed]
            if len(took):
                axes.plot(np.quantile(took, shares), shares, color=colour, label=f"{name}, p99 {np.quantile(took, 0.99):.3g} s")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("seconds from arrival to the end of the answer")
        axes.set_ylabel("share of requests")
        axes.set_ylim(0, 1)
        if axes.lines:
            axes.legend(loc="lower right")

    return draw


def _above(axes: Axes) -> None:
    """The legend, where it hides no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)


def _band(axes: Axes, points: tuple[Point, ...], name: str, colour: str, label: str) -> None:
    thresholds = [point.threshold for point in points]
    values = [getattr(point, name) for point in points]
    axes.fill_between(thresholds, [one.low for one in values], [one.high for one in values], color=colour, alpha=0.25, lw=0)
    axes.plot(thresholds, [one.value for one in values], color=colour, lw=1.6, label=label)


def _binned(history: History) -> tuple[Floats, dict[str, Floats]]:
    created = history.numbers["created"]
    low, high = float(created.min()), float(created.max())
    edges = np.linspace(low, max(high, low + 1.0), BINS + 1)
    counts = {name: np.histogram(created[there], edges)[0] for name, there in (("small", ~history.large), ("large", history.large))}
    return edges, {name: count.astype(np.float64) for name, count in counts.items()}


def _date(moment: float) -> Any:
    return datetime.fromtimestamp(float(moment), UTC)


def _dates(axes: Axes) -> None:
    locator: Any = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    axes.margins(x=0)


def _span(seconds: float) -> str:
    for size, unit in ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
