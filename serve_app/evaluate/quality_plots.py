"""The pictures of docs/routing-quality.md: cost and quality, reliability, where the scores lie. One small SVG for each study."""

import io
from collections.abc import Mapping

import numpy as np

from serve_app.domain import Json
from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.comparison import OURS, Ranking
from serve_app.evaluate.routing_metrics import Outcomes, Vector

POINTS = 41  # shares of a curve
GROUPS = 10  # of equal size, of a reliability curve
BINS = 20
LABELS = {"weak": "small model", "strong": "large model"}


def series(rankings: Mapping[str, Ranking], outcomes: Outcomes) -> Json:
    """What is drawn: quality at equal steps of the share to large, predicted and found means, counts of scores."""
    ours, shares = rankings[OURS], np.linspace(0.0, 1.0, POINTS)
    curves = {name: _rounded(metrics.quality(one.scores, outcomes)[_at(shares, one.scores)]) for name, one in rankings.items()}
    pairs = {"weak": (ours.weak, outcomes.weak), "strong": (ours.strong, outcomes.strong)}
    reliability = {name: _means(predicted, found) for name, (predicted, found) in pairs.items() if predicted is not None}
    counts = np.histogram(ours.scores, bins=BINS, range=(0.0, 1.0))[0]
    return {"quality": curves, "reliability": reliability, "histogram": [int(count) for count in counts]}


def draw(found: Json, title: str) -> str:
    """The SVG; the same figures give the same text."""
    import matplotlib as mpl  # noqa: PLC0415 - a second of import that only `make quality` pays
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"svg.hashsalt": "tierwise", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        panels = figure.subplots(1, 3)
        figure.suptitle(title)
        for name, values in found["quality"].items():
            panels[0].plot(np.linspace(0, 1, len(values)), values, label=name, lw=1.6 if name == OURS else 0.9)
        panels[0].set(xlabel="share to the large model", ylabel="mean score")
        panels[0].legend(fontsize=6)
        panels[1].plot([0, 1], [0, 1], color="0.7", lw=0.8)
        for name, (predicted, right) in found["reliability"].items():
            panels[1].plot(predicted, right, marker="o", ms=2.5, lw=0.9, label=LABELS[name])
        panels[1].set(xlabel="predicted p(right)", ylabel="found")
        panels[1].legend(fontsize=6)
        panels[2].bar(np.arange(BINS) / BINS, found["histogram"], width=1 / BINS, align="edge")
        panels[2].set(xlabel="score of unseen rows", ylabel="rows")
        buffer = io.StringIO()
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _at(shares: Vector, scores: Vector) -> Vector:
    found: Vector = np.round(shares * len(scores)).astype(int)
    return found


def _means(predicted: Vector, outcome: Vector) -> list[list[float]]:
    groups = [group for group in np.array_split(np.argsort(predicted, kind="stable"), GROUPS) if len(group)]
    return [_rounded(np.array([one[group].mean() for group in groups])) for one in (predicted, outcome)]


def _rounded(values: Vector) -> list[float]:
    return [round(float(value), 4) for value in values]
