"""The population stability index of live scores and of novel prompts, over an hour of decisions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain import Decision, Reason, Score, SignalState, Tier
from serve_app.routing import drift
from serve_app.routing.calibrate import fit
from tests.fakes import calibration, make_score

EVEN = [1 / drift.BINS] * drift.BINS
HOUR = 3600.0


def test_the_index_is_what_the_rules_of_prometheus_compute() -> None:
    """tests/monitoring/alerts.test.yml has the same counts and the same indices."""
    assert drift.index([71] * 9 + [261], EVEN) == pytest.approx(0.2473, abs=1e-4)
    assert drift.index([0] * 7 + [3, 3, 3], EVEN) == pytest.approx(4.034, abs=1e-3)
    assert drift.novelty_index(126, 900) == pytest.approx(0.2492, abs=1e-4)
    assert drift.novelty_index(3, 9) == pytest.approx(1.002, abs=1e-3)


def test_nothing_counted_has_no_index() -> None:
    assert drift.index([0] * drift.BINS, EVEN) is None
    assert drift.novelty_index(0, 0) is None


@given(st.lists(st.integers(0, 10_000), min_size=10, max_size=10).filter(any))
def test_empty_bins_give_a_finite_index_that_is_about_never_negative(counts: list[int]) -> None:
    found = drift.index(counts, EVEN)
    assert found is not None
    assert math.isfinite(found)
    assert found >= 0.0


def test_as_expected_is_no_drift() -> None:
    assert drift.index([50] * 10, EVEN) == pytest.approx(0.0)
    assert drift.novelty_index(2, 100) == drift.novelty_index(0, 100) == 0.0


def test_scores_of_the_rows_that_made_the_edges_fill_every_bin_alike() -> None:
    scores = np.random.default_rng(0).beta(2, 5, 4000)
    edges = drift.deciles(scores.tolist())
    counts = np.bincount([drift.bin_of(value, edges) for value in scores], minlength=drift.BINS)
    assert counts.tolist() == pytest.approx([400] * 10, abs=2)


def test_an_artefact_that_does_not_tell_its_scores_has_even_edges() -> None:
    artefact = calibration()
    assert drift.edges(artefact) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    artefact.description[drift.DESCRIBED] = [0.1 * step**0.5 for step in range(1, 10)]
    assert drift.edges(artefact)[0] == 0.1
    artefact.description[drift.DESCRIBED] = [0.9, 0.1]
    assert drift.edges(artefact) == drift.EVEN


def test_a_fit_tells_how_rows_score_that_serving_would_score() -> None:
    """A quarter of the rows is code, which no score decides; held-out scores are less sure than fitted ones."""
    random, rows = np.random.default_rng(0), 240
    hard = np.arange(rows) % 2 == 0
    vectors = (random.normal(size=(rows, 24)) + np.where(hard, 0.4, -0.4)[:, None]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = ["```python\nx = 1\n```" if number % 4 == 0 else f"What is word {number}?" for number in range(rows)]
    fitted = fit(vectors, [Tier.LARGE if one else Tier.SMALL for one in hard], embedder="e", texts=texts)
    scores = [fitted.embedding_score(vector) for vector, text in zip(vectors, texts, strict=True) if "`" not in text]
    told, edges = fitted.description[drift.DESCRIBED], drift.edges(fitted)
    assert list(edges) == told == sorted(told)
    assert drift.index(np.bincount([drift.bin_of(score, edges) for score in scores], minlength=10).tolist(), EVEN) < 0.15  # type: ignore[operator]
    assert max(scores) > edges[-1]
    assert fitted.familiar is not None
    assert drift.DESCRIBED not in fit(vectors, [Tier.LARGE if one else Tier.SMALL for one in hard], embedder="e").description
    assert drift.described([0.5] * rows, ["```python\nx\n```"] * rows) == {}


@pytest.mark.parametrize(
    ("score", "seen"),
    [
        (Score(0.5, 0.4, SignalState.OK, 0.65, SignalState.OK), 0.4),
        (Score(0.3, novelty=0.0), 0.3),
        (Score(0.7, None, SignalState.FAILED, 0.7, SignalState.OK), None),
        (Score(0.7, 0.7, SignalState.LATE), None),
        (Score(0.7, None, SignalState.SKIPPED, 0.7, SignalState.OK), None),
        (Score(None), None),
    ],
    ids=["before the rating", "a rank", "only rated", "without the embedding", "no embedding asked", "none"],
)
def test_only_what_the_fitted_rows_have_too_is_compared(score: Score, seen: float | None) -> None:
    assert drift.watched(score) == seen


def test_a_score_of_another_calibration_is_in_no_bin() -> None:
    artefact = calibration()
    ours = Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.65, Score(0.35, 0.35, SignalState.OK, calibration=artefact.sha256))
    assert drift.bin_of_decision(ours, artefact) == 3
    assert drift.bin_of_decision(Decision(Tier.SMALL, Reason.SCORE_BELOW, 0.65, make_score(0.35)), artefact) is None


def filled(decisions: int, now: float = 0.0) -> drift.Window:
    window = drift.Window()
    for number in range(decisions):
        window.add(9 if number % 2 else number % 10, novel=number % 4 == 0, now=now)
    return window


def test_fewer_decisions_than_say_something_have_no_index() -> None:
    few, enough = filled(499).seen(0.0), filled(500).seen(0.0)
    assert (few.decisions, few.score_psi, few.novelty_psi, few.novel_share) == (499, None, None, pytest.approx(0.25, abs=1e-3))
    assert enough.score_psi is not None
    assert enough.novelty_psi is not None
    assert min(enough.score_psi, enough.novelty_psi) > 0.25


def test_decisions_leave_the_window_after_an_hour() -> None:
    window = filled(600)
    assert window.seen(HOUR - 1).decisions == 600
    assert window.seen(HOUR).decisions == 0


def test_the_window_is_bounded_and_takes_a_clock_that_goes_back() -> None:
    window = drift.Window()
    for minute in range(300):
        window.add(0, novel=None, now=60.0 * minute)
    window.add(1, novel=None, now=0.0)
    seen = window.seen(60.0 * 299)
    assert (seen.decisions, seen.novel_share) == (61, None)


def test_a_calibration_that_tells_no_novelty_has_no_share_of_it() -> None:
    window = drift.Window()
    for number in range(1000):
        window.add(number % 10, novel=None, now=0.0)
    assert window.seen(0.0) == drift.Drift(1000, pytest.approx(0.0), None, None)
