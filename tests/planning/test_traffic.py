"""Requests that are drawn: their times, their lengths."""

import numpy as np
import pytest

from serve_app.domain import Tier
from serve_app.planning.config import Traffic
from serve_app.planning.lengths import Quantiles, distance, fit, packaged
from serve_app.planning.traffic import Lengths, draw, factor, mean_rate, shape, times

DAY_S = 86_400.0


def test_a_months_requests_are_a_rate() -> None:
    assert mean_rate(Traffic(requests_per_month=730 * 3600 * 2.0), 730.0) == pytest.approx(2.0)


def test_the_day_has_its_mean_and_its_peak() -> None:
    hourly = shape(Traffic(peak_to_trough=4.0))
    assert hourly.mean() == pytest.approx(1.0)
    assert hourly.max() / hourly.min() == pytest.approx(4.0)
    assert int(hourly.argmax()) == 14


def test_hours_may_have_weights_of_their_own() -> None:
    hourly = shape(Traffic(hourly=[1.0] * 23 + [25.0]))
    assert hourly.mean() == pytest.approx(1.0)
    assert factor(hourly, 23.0) == pytest.approx(25 * factor(hourly, 5.0))


@pytest.mark.parametrize("burst_cv", [0.0, 0.5])
def test_a_day_holds_the_requests_of_its_rate(burst_cv: float) -> None:
    at = times(Traffic(burst_cv=burst_cv), 0.5, 0.0, DAY_S, np.random.default_rng(0))
    assert len(at) == pytest.approx(0.5 * DAY_S, rel=0.04)
    assert bool((np.diff(at) >= 0).all())
    counts = np.bincount((at // 60).astype(int), minlength=1440).reshape(24, 60)
    beyond_poisson = (counts.var(axis=1, ddof=1) - counts.mean(axis=1)).mean() / (counts.mean(axis=1) ** 2).mean()
    assert beyond_poisson == pytest.approx(burst_cv**2, abs=0.06)


def test_the_same_seed_gives_the_same_requests() -> None:
    lengths, at = Lengths.of(Traffic()), np.arange(100.0)
    one, same, other = (draw(lengths, at, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one.prompt.tolist(), one.large.tolist()) == (same.prompt.tolist(), same.large.tolist())
    assert one.prompt.tolist() != other.prompt.tolist()


def test_drawn_lengths_have_the_means_that_were_asked_for() -> None:
    traffic = Traffic(prompt_tokens=300.0, output_tokens=200.0, longest_output=600)
    found = draw(Lengths.of(traffic), np.arange(50_000.0), np.random.default_rng(0))
    assert found.prompt.mean() == pytest.approx(300, rel=0.03)
    for answers in (found.small, found.large):
        assert answers.mean() == pytest.approx(200, rel=0.03)
        assert (answers.min() >= 1, answers.max() <= 600) == (True, True)


def test_a_mean_above_the_longest_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="longest answer above it"):
        packaged()[Tier.SMALL].bent(600.0, 500)


def test_quantiles_are_nearer_to_what_they_were_fitted_on_than_to_something_else() -> None:
    rng = np.random.default_rng(0)
    sample, other = rng.lognormal(6.0, 0.6, 2000), rng.lognormal(6.5, 0.6, 2000)
    fitted = fit(list(sample))
    assert distance(list(rng.lognormal(6.0, 0.6, 2000)), fitted) < 0.05
    assert distance(list(other), fitted) > 0.2


def test_quantiles_are_linear_in_the_logarithm() -> None:
    assert Quantiles((0.0, 1.0), (10.0, 1000.0)).at(np.array([0.0, 0.5, 1.0])).tolist() == pytest.approx([10.0, 100.0, 1000.0])


def test_the_packaged_answers_are_published_ones() -> None:
    """Of arena-hard: the small model's run into its limit in every twentieth case, the large one's do not."""
    found = packaged()
    assert found[Tier.SMALL].at(np.array([0.5, 0.96])).tolist() == pytest.approx([582, 4096], rel=0.01)
    assert found[Tier.LARGE].at(np.array([0.5, 0.95])).tolist() == pytest.approx([588.5, 1040.8], rel=0.01)
