"""Recorded traffic, read from a ledger's database."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from serve_app.domain import Outcome, Reason, Tier
from serve_app.errors import RequestError
from serve_app.observe.receipt import row
from serve_app.observe.store import Store
from serve_app.planning.config import Traffic
from serve_app.planning.trace import Trace, burst_cv, described, drawn, read
from serve_app.planning.traffic import ANY, TO_LARGE
from tests.observe.common import record

BEGAN = 1_760_000_000.0


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """100 requests, 30 s apart: three in four by their score, one in four asked for the large tier; one failed."""
    path = tmp_path / "ledger.db"
    store = Store(f"sqlite:///{path}")
    records = []
    for index in range(100):
        made = record(f"tw-{index}", score=index / 100)
        explicit = index % 4 == 0
        tier = Tier.LARGE if explicit or index >= 65 else Tier.SMALL
        reason = Reason.EXPLICIT_TIER if explicit else Reason.SCORE_ABOVE if tier is Tier.LARGE else Reason.SCORE_BELOW
        decision = dataclasses.replace(made.decision, tier=tier, reason=reason)
        outcome = Outcome.FAILED if index == 99 else Outcome.OK
        records.append(dataclasses.replace(made, created=BEGAN + 30 * index, decision=decision, outcome=outcome))
    store.write([row(one) for one in records])
    return path


def test_a_ledger_gives_times_tokens_scores_and_tiers(ledger: Path) -> None:
    trace = read(str(ledger))
    assert len(trace.at) == 99
    assert trace.at.tolist()[:2] == [BEGAN, BEGAN + 30]
    assert trace.threshold == 0.65
    assert set(trace.fixed.tolist()) == {float(ANY), float(TO_LARGE)}
    assert (trace.fixed == TO_LARGE).sum() == 25
    assert trace.output.min() == 20


def test_a_url_reads_the_same(ledger: Path) -> None:
    assert read(f"sqlite:///{ledger}").at.tolist() == read(str(ledger)).at.tolist()


def test_a_trace_is_described(ledger: Path) -> None:
    trace = read(str(ledger))
    found = described(trace, Traffic(), 730.0)
    assert found.requests_per_month == pytest.approx(99 / (98 * 30) * 730 * 3600, rel=0.02)
    assert found.large_share == pytest.approx((25 + 25) / 99, abs=0.02)  # what was asked for, and the rest from 0.65 on
    assert found.output_tokens == 20
    assert found.burst_cv == 0.0  # as even as a clock


def test_a_day_and_more_gives_the_hours_weights() -> None:
    at = np.sort(np.concatenate([np.arange(0.0, 86_400.0 * 2, 60.0), np.arange(9 * 3600.0, 10 * 3600.0, 1.0)]))
    same = np.ones(len(at))
    found = described(Trace(at, same, 9 * same, 0 * same, -same, 0.5), Traffic(), 730.0)
    assert found.hourly is not None
    assert found.hourly[9] / found.hourly[3] == pytest.approx((120 + 3600) / 120, rel=0.02)


def test_a_day_that_is_covered_in_part_counts_no_more_than_the_others() -> None:
    at = 7.5 * 3600 + np.arange(0.0, 86_400.0 * 1.4, 30.0)
    same = np.ones(len(at))
    found = described(Trace(at, same, 9 * same, 0 * same, -same, 0.5), Traffic(), 730.0)
    assert found.hourly == pytest.approx([120.0] * 24, rel=0.03)


def test_bursts_are_what_goes_beyond_poisson() -> None:
    rng = np.random.default_rng(0)
    factors = rng.gamma(4.0, 0.25, 600)  # spread of a half
    bursty = np.sort(np.concatenate([60 * slot + 60 * rng.random(rng.poisson(60 * factor)) for slot, factor in enumerate(factors)]))
    even = np.sort(36_000 * rng.random(36_000))
    one, none = (Trace(at, at, at, at, at, 0.5) for at in (bursty, even))
    assert burst_cv(one, 60.0) == pytest.approx(0.5, abs=0.06)
    assert burst_cv(none, 60.0) < 0.06


def test_requests_are_drawn_from_the_recorded_ones(ledger: Path) -> None:
    trace = read(str(ledger))
    found = drawn(trace, np.arange(2000.0), np.random.default_rng(0))
    assert set(found.score.tolist()) <= set(trace.score.tolist())
    assert (found.fixed == TO_LARGE).mean() == pytest.approx(25 / 99, abs=0.04)
    assert found.small.tolist() == found.large.tolist()


def test_what_is_no_ledger_is_said_in_one_line(tmp_path: Path, ledger: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to be taken for one" * 40)
    Store(f"sqlite:///{tmp_path / 'empty.db'}")
    for source, says in (
        (str(tmp_path / "missing.db"), "no such file"),
        (str(tmp_path / "text.db"), "cannot be read as a tierwise ledger"),
        (str(tmp_path / "empty.db"), "0 finished requests, too few to plan with"),
        (f"sqlite:///{tmp_path / 'missing.db'}", "cannot be read as a tierwise ledger"),
        ("nonsense://user:secret@host/db", "cannot be read as a tierwise ledger"),
    ):
        with pytest.raises(RequestError) as error:
            read(source)
        assert says in error.value.message
        assert "secret" not in error.value.message
        assert len(error.value.message.splitlines()) == 1
    assert not (tmp_path / "missing.db").exists(), "SQLite makes a file of every name that it may write to"
