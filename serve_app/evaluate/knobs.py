"""From what a user asks for to a threshold. A threshold t sends the share 1 - t of such traffic to the large tier."""

from dataclasses import dataclass

import numpy as np

from serve_app.errors import CalibrationError
from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.routing_metrics import Outcomes, Vector


@dataclass(frozen=True, slots=True)
class Knob:
    """At most one is set. `share` to the large tier; `quality`, a part of the large model's; `budget`, a part of its cost."""

    share: float | None = None
    quality: float | None = None
    budget: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a threshold is expected to give: `quality` as a part of the large model's, `saved` as a part of its cost."""

    threshold: float
    share: float
    quality: float
    saved: float


def operating_point(knob: Knob, scores: Vector, outcomes: Outcomes, *, weak_price: float, strong_price: float) -> OperatingPoint:
    """`scores` are held-out ones of rows like the traffic; prices are per token. Half goes large where no knob is set.

    Raises `CalibrationError` when a knob is out of range, more than one is set, or what is asked for cannot be had.
    """
    check(knob)
    ratio = weak_price / strong_price
    if knob.threshold is not None:
        return _point(float(np.mean(scores >= knob.threshold)), knob.threshold, scores, outcomes, ratio)
    share = _share(knob, scores, outcomes, ratio)
    return _point(share, 1.0 - share, scores, outcomes, ratio)


def check(knob: Knob) -> None:
    """Raises `CalibrationError` when a knob is out of range or more than one is set."""
    asked = {name: value for name in ("share", "quality", "budget", "threshold") if (value := getattr(knob, name)) is not None}
    if len(asked) > 1:
        raise CalibrationError(f"one of {', '.join(asked)} at a time")
    for name, value in asked.items():
        if not 0.0 <= value <= 1.0:
            raise CalibrationError(f"{name} {value:g} is not between 0 and 1")


def _share(knob: Knob, scores: Vector, outcomes: Outcomes, ratio: float) -> float:
    if knob.share is not None:
        return knob.share
    if knob.quality is not None:
        share = metrics.share_for_quality(scores, outcomes, knob.quality)
        if np.isnan(share):
            raise CalibrationError(f"no share keeps {knob.quality:.1%} of the large model's quality")
        return share
    if knob.budget is None:
        return 0.5
    if knob.budget < ratio:
        raise CalibrationError(f"a budget of {knob.budget:.1%} is under the {ratio:.1%} that the small model alone costs")
    return (knob.budget - ratio) / (1.0 - ratio) if ratio < 1.0 else 1.0


def _point(share: float, threshold: float, scores: Vector, outcomes: Outcomes, ratio: float) -> OperatingPoint:
    kept = metrics.quality(scores, outcomes)[round(share * len(scores))] / max(float(outcomes.strong.mean()), metrics.EPSILON)
    return OperatingPoint(round(threshold, 6), round(share, 6), round(float(kept), 4), round(metrics.cost_saved(share, ratio, 1.0), 4))
