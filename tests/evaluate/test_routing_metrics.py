"""RouteLLM's metrics: small cases worked out by hand, and its published random rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.routing_metrics import Outcomes
from tests.evaluate.routing_data import table

FOUR = Outcomes(np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, 0.0]))  # gains 1, 0, 1, -1


def some(rows: int = 300, seed: int = 1) -> tuple[np.ndarray, Outcomes]:
    random = np.random.default_rng(seed)
    outcomes = Outcomes((random.random(rows) < 0.5).astype(float), (random.random(rows) < 0.8).astype(float))
    return np.round(outcomes.gain + random.normal(scale=1.5, size=rows), 1), outcomes


def test_the_gap_recovered_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert metrics.gap_recovered(scores, FOUR).tolist() == [0.0, 1.0, 1.0, 2.0, 1.0]
    assert metrics.apgr(scores, FOUR) == pytest.approx((0.5 + 1.0 + 1.5 + 1.5) / 4)
    assert metrics.cpt(scores, FOUR, 0.8) == 0.25
    assert metrics.quality(scores, FOUR).tolist() == [0.5, 0.75, 0.75, 1.0, 0.75]


def test_equal_scores_share_their_gain() -> None:
    """The order of the rows in the file must not matter."""
    tied = np.array([0.5, 0.5, 0.5, 0.1])
    back = np.array([3, 2, 1, 0])
    assert metrics.gap_recovered(tied, FOUR).tolist() == pytest.approx([0.0, 2 / 3, 4 / 3, 2.0, 1.0])
    assert metrics.apgr(tied[back], FOUR.take(back)) == pytest.approx(metrics.apgr(tied, FOUR))


def test_a_random_order_is_a_half_and_the_oracle_the_best() -> None:
    _, outcomes = some()
    flat = metrics.random_scores(300)
    assert (metrics.apgr(flat, outcomes), metrics.cpt(flat, outcomes, 0.5)) == (pytest.approx(0.5), pytest.approx(0.5))
    best = metrics.apgr(metrics.oracle_scores(outcomes), outcomes)
    assert all(metrics.apgr(np.random.default_rng(seed).random(300), outcomes) < best for seed in range(20))


def test_reversing_an_order_mirrors_its_area() -> None:
    scores, outcomes = some()
    assert metrics.apgr(-scores, outcomes) == pytest.approx(1 - metrics.apgr(scores, outcomes))


def test_without_a_gap_there_is_nothing_to_recover() -> None:
    same = Outcomes(np.ones(3), np.ones(3))
    assert np.isnan(metrics.apgr(np.arange(3.0), same))
    assert np.isnan(metrics.cpt(np.arange(3.0), same, 0.5))
    assert metrics.macro([0.6, float("nan"), 0.4]) == pytest.approx(0.5)


def test_the_cost_saved_at_a_kept_quality() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert metrics.share_for_quality(scores, FOUR, 0.95) == 0.25
    assert metrics.cost_saved(0.25, 1.0, 8.0) == pytest.approx(0.75 * 7 / 8)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_the_roc_area_equals_sklearns(rows: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([float(s) for s, _ in rows]), np.array([p for _, p in rows])
    ours = metrics.roc_auc(scores, positive)
    assert np.isnan(ours) if positive.all() or not positive.any() else ours == pytest.approx(roc_auc_score(positive, scores))


def test_what_counts_as_a_win_and_as_wrong() -> None:
    assert metrics.strong_wins(FOUR).tolist() == [True, False, True, False]
    assert metrics.weak_is_wrong(FOUR).tolist() == [True, False, True, False]


def test_the_calibration_error_by_hand() -> None:
    predicted = np.array([0.1, 0.1, 0.9, 0.9])
    assert metrics.calibration_error(predicted, np.array([0.0, 0.0, 1.0, 1.0]), bins=2) == pytest.approx(0.1)
    assert metrics.calibration_error(predicted, np.array([1.0, 1.0, 0.0, 0.0]), bins=2) == pytest.approx(0.9)


def test_a_resample_is_judged_as_its_rows_would_be() -> None:
    """The weighted area equals the plain one on the drawn rows."""
    scores, outcomes = some()
    index = np.random.default_rng(5).integers(0, 300, 300)
    counts = np.bincount(index, minlength=300).astype(float)[None]
    weighted = metrics._Grouped.of(scores, outcomes.gain).apgr(counts)[0]
    assert weighted == pytest.approx(metrics.apgr(scores[index], outcomes.take(index)))


def test_intervals_hold_their_values_and_differences_are_paired() -> None:
    scores, outcomes = some()
    alone, against = metrics.apgr_intervals({"random": metrics.random_scores(300), "ours": scores}, outcomes, resamples=300)
    assert (alone["random"].low, alone["random"].high) == (pytest.approx(0.5), pytest.approx(0.5))
    assert alone["ours"].low < alone["ours"].value < alone["ours"].high
    assert against["ours"].value == pytest.approx(alone["ours"].value - 0.5)
    again = metrics.apgr_intervals({"first": scores, "same": scores * 2}, outcomes, resamples=100)[1]["same"]
    assert (again.low, again.high) == (pytest.approx(0.0), pytest.approx(0.0))


PUBLISHED = {  # arXiv 2406.18665v4, tables 2 and 3, the rows 'Random'
    "routellm_mmlu_mixtral_gpt4.jsonl": (0.500, 50.07, 79.93),
    "routellm_gsm8k_mixtral_gpt4.jsonl": (0.497, 50.00, 80.08),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_random_rows_come_out(name: str) -> None:
    rows = table(name)
    area, half, most = PUBLISHED[name]
    flat = metrics.random_scores(len(rows.rows))
    assert metrics.apgr(flat, rows.outcomes) == pytest.approx(area, abs=0.004)
    assert 100 * metrics.cpt(flat, rows.outcomes, 0.5) == pytest.approx(half, abs=0.2)
    assert 100 * metrics.cpt(flat, rows.outcomes, 0.8) == pytest.approx(most, abs=0.2)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_oracle_sends_only_what_the_strong_model_wins(name: str) -> None:
    """It recovers the whole gap with the share of prompts that must be won net, and more than the gap before it loses."""
    outcomes = table(name).outcomes
    oracle = metrics.oracle_scores(outcomes)
    needed = outcomes.gain.mean()
    assert metrics.cpt(oracle, outcomes, 1.0) == pytest.approx(needed, abs=1 / len(outcomes.weak))
    assert metrics.gap_recovered(oracle, outcomes).max() == pytest.approx(metrics.strong_wins(outcomes).mean() / needed)
    assert metrics.apgr(oracle, outcomes) > 0.9
