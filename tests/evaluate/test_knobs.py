"""What a user asks for, as a threshold."""

import numpy as np
import pytest

from serve_app.errors import CalibrationError
from serve_app.evaluate.knobs import Knob, OperatingPoint, operating_point
from serve_app.evaluate.routing_metrics import Outcomes

SCORES = np.array([0.9, 0.7, 0.5, 0.3])
OUTCOMES = Outcomes(np.array([0.0, 0.0, 1.0, 1.0]), np.ones(4))


def point(**knob: float) -> OperatingPoint:
    return operating_point(Knob(**knob), SCORES, OUTCOMES, weak_price=1.0, strong_price=5.0)


def test_half_goes_large_where_nothing_is_asked_for() -> None:
    assert point() == OperatingPoint(threshold=0.5, share=0.5, quality=1.0, saved=0.4)


def test_a_share() -> None:
    assert point(share=0.25) == OperatingPoint(threshold=0.75, share=0.25, quality=0.75, saved=0.6)


def test_a_quality_takes_the_least_share_that_keeps_it() -> None:
    assert point(quality=0.7) == point(share=0.25)
    assert point(quality=0.95) == point(share=0.5)


def test_a_budget_is_spent_whole() -> None:
    found = point(budget=0.6)
    assert (found.share, found.saved) == (0.5, 0.4)


def test_a_threshold_says_what_it_gives() -> None:
    assert point(threshold=0.6) == OperatingPoint(threshold=0.6, share=0.5, quality=1.0, saved=0.4)


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"share": 1.2}, "share 1.2 is not between"),
        ({"budget": 0.1}, "under the 20.0%"),
        ({"share": 0.2, "quality": 0.9}, "one of share, quality at a time"),
    ],
)
def test_what_cannot_be_had_is_refused(knob: dict[str, float], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        point(**knob)
