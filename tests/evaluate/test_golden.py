"""Accuracy, its interval, and every miss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Tier
from serve_app.evaluate.golden import Routed, compare, wilson
from serve_app.evaluate.labelled import Labelled


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [  # Newcombe 1998, table 1, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_the_interval_is_wilsons(successes: int, total: int, low: float, high: float) -> None:
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


def test_without_data_the_interval_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.integers(min_value=1, max_value=1000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_holds_the_share(counts: tuple[int, int]) -> None:
    low, high = wilson(*counts)
    assert 0.0 <= low <= counts[0] / counts[1] + 1e-9
    assert counts[0] / counts[1] - 1e-9 <= high <= 1.0
    assert low < high


def test_a_report_counts_and_lists_every_miss() -> None:
    rows = [Labelled("a", "easy", Tier.SMALL), Labelled("b", "hard", Tier.LARGE), Labelled("c", "code", Tier.SMALL)]
    routed = {
        "a": Routed(Tier.SMALL, 0.1, "score_below"),
        "b": Routed(Tier.SMALL, 0.6, "score_below"),
        "c": Routed(Tier.LARGE, None, "heuristic_math_code"),
    }
    report = compare(rows, routed)
    assert (report.total, report.correct, report.large_share) == (3, 1, 1 / 3)
    assert report.accuracy == 1 / 3
    assert report.interval == wilson(1, 3)
    assert [(m.id, m.expected, m.got, m.score, m.reason) for m in report.misses] == [
        ("b", Tier.LARGE, Tier.SMALL, 0.6, "score_below"),
        ("c", Tier.SMALL, Tier.LARGE, None, "heuristic_math_code"),
    ]
