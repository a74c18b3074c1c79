"""Recorded traffic under other thresholds: who moves, what it costs, how sure that is, and what a file must hold."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.domain import Decision, Mode, Outcome, Reason, Score, SignalState, Tier, Usage
from serve_app.errors import RequestError
from serve_app.evaluate import history, recorded, replay
from serve_app.evaluate.history import History
from serve_app.observe.receipt import receipt
from serve_app.observe.store import Store
from serve_app.settings import TokenPrice
from tests.observe.common import record

SMALL = TokenPrice(input=1.0, output=2.0)
DEPLOYMENTS = Path(__file__).parents[2] / "deployments.yaml"
SCORED = [Reason.SCORE_ABOVE, Reason.SCORE_BELOW, Reason.CAPACITY]


def row(score: float | None, tier: str, reason: str = "", **changes: Any) -> dict[str, Any]:
    """A million prompt tokens: one dollar at the small tier, ten at the large one."""
    made = {"id": "tw-1", "created": 1.0, "score": score, "tier": tier, "threshold": 0.5, "outcome": "ok", "mode": "normal"}
    made |= {"reason": reason or ("score_above" if tier == "large" else "score_below"), "prompt_tokens": 1_000_000, "completion_tokens": 0}
    made |= {"cost_usd": 10.0 if tier == "large" else 1.0, "all_large_usd": 10.0, "total_seconds": 1.0, "overhead_seconds": 0.1}
    return {**made, **changes}


def made_of(*rows: dict[str, Any]) -> History:
    return history._history([list(rows)], {})


def points(found: History, *thresholds: float) -> dict[float, replay.Point]:
    return {point.threshold: point for point in replay.replay(found, thresholds, SMALL, resamples=20).points}


def test_the_threshold_in_force_gives_what_was_paid() -> None:
    found = made_of(row(0.2, "small"), row(0.9, "large"), row(None, "large", "guard_context"))
    (point,) = points(found, 0.5).values()
    assert (point.usd.value, point.large_share.value) == (pytest.approx(7000.0), pytest.approx(2 / 3))
    assert point.saved.value == pytest.approx(0.3)
    assert (point.to_large, point.to_small) == (0, 0)


def test_what_moves_keeps_its_tokens_and_takes_the_other_price() -> None:
    found = points(made_of(row(0.2, "small", completion_tokens=500_000), row(0.9, "large", completion_tokens=500_000)), 0.1, 0.95)
    assert found[0.1].usd.value == pytest.approx((10 + 10) / 2 * 1000)
    assert found[0.95].usd.value == pytest.approx((1 + 2) / 2 * 1000), "1 dollar as paid, and 1 + 0.5 * 2 by the small tier's price"
    assert (found[0.1].to_large, found[0.95].to_small) == (1, 1)


def test_scores_of_a_calibration_that_was_replaced_stay_where_they_went() -> None:
    before, now = row(0.2, "small", calibration="old"), row(0.2, "small", calibration="new")
    found = replay.replay(made_of(before, before, now), [0.1], SMALL, resamples=20)
    assert (found.movable, found.other_scores) == (1, 2)
    assert found.points[0].to_large == 1
    assert any("2 decisions were scored by a calibration that was replaced" in line for line in replay.as_lines(found))
    assert replay.replay(made_of(now, now), [0.1], SMALL, resamples=20).other_scores == 0


def test_a_score_at_the_threshold_goes_to_the_large_tier() -> None:
    found = points(made_of(row(0.7, "large")), 0.7, 0.700001)
    assert [point.large_share.value for point in found.values()] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in SCORED])
def test_only_what_the_threshold_decided_moves(reason: Reason) -> None:
    stays = made_of(row(0.6, "small", reason))
    assert points(stays, 0.0)[0.0].large_share.value == 0.0
    assert replay.replay(stays, [0.0], SMALL, resamples=2).movable == 0


@pytest.mark.parametrize("reason", SCORED)
def test_what_the_threshold_decided_moves(reason: Reason) -> None:
    assert points(made_of(row(0.6, "small", reason)), 0.55)[0.55].large_share.value == 1.0


def test_in_a_tool_loop_the_turn_moves_whose_tier_is_its_scores() -> None:
    assert list(made_of(row(0.9, "large", "tool_loop"), row(0.2, "small", "tool_loop")).by_threshold) == [True, True]
    assert list(made_of(row(0.2, "large", "tool_loop")).by_threshold) == [False], "a conversation held it"


def test_a_threshold_of_ones_own_stays() -> None:
    assert list(made_of(row(0.6, "large", own_threshold=True), row(0.6, "large")).by_threshold) == [False, True]


def test_shadow_mode_is_replayed_as_the_router_chose() -> None:
    shadow = made_of(row(0.2, "large", "score_below", mode="shadow", chosen="small"))
    found = points(shadow, 0.1)
    assert (found[0.1].large_share.value, found[0.1].usd.value) == (1.0, 10_000.0)
    assert (found[0.5].large_share.value, found[0.5].usd.value, found[0.5].to_small) == (0.0, 1000.0, 0)


def test_quality_is_over_the_judged_and_agreement_over_the_labelled() -> None:
    judged = {"weak_score": 0.2, "strong_score": 0.8}
    found = points(made_of(row(0.4, "small", **judged), row(0.4, "small"), row(0.4, "small", expected_tier="large")), 0.3)
    assert [(p.quality and p.quality.value, p.agreement and p.agreement.value) for p in found.values()] == [(0.8, 1.0), (0.2, 0.0)]
    nothing = points(made_of(row(0.4, "small")), 0.3)[0.3]
    assert (nothing.quality, nothing.agreement) == (None, None)


def test_the_sums_are_those_of_a_plain_loop() -> None:
    chance = np.random.default_rng(3)
    rows = []
    for _ in range(300):
        score = round(float(chance.random()), 2)
        fixed = chance.random() < 0.2
        reason = "explicit_model" if fixed else ""
        tier = "large" if (chance.random() < 0.5 if fixed else score >= 0.5) else "small"
        cost = {"cost_usd": float(chance.random()), "all_large_usd": float(chance.random()), "prompt_tokens": int(chance.integers(1e6))}
        rows.append(row(score, tier, reason, weak_score=float(chance.random()), strong_score=float(chance.random()), **cost))
    for threshold, point in points(made_of(*rows), *np.linspace(0, 1, 11)).items():
        usd = large = quality = 0.0
        for one in rows:
            goes = one["tier"] if one["reason"] == "explicit_model" else "large" if one["score"] >= threshold else "small"
            other = one["all_large_usd"] if goes == "large" else one["prompt_tokens"] / 1e6
            usd += one["cost_usd"] if goes == one["tier"] else other
            large += goes == "large"
            quality += one["strong_score"] if goes == "large" else one["weak_score"]
        assert point.usd.value == pytest.approx(usd / 300 * 1000)
        assert point.large_share.value == pytest.approx(large / 300)
        assert point.quality is not None
        assert point.quality.value == pytest.approx(quality / 300)


def test_intervals_are_those_of_a_mean_and_the_same_again() -> None:
    chance = np.random.default_rng(0)
    found = made_of(*(row(float(score), "large" if score >= 0.5 else "small") for score in chance.random(2000)))
    one = replay.replay(found, [0.3], SMALL, seed=1)
    share = next(point for point in one.points if point.threshold == 0.3).large_share
    error = 1.96 * np.sqrt(share.value * (1 - share.value) / 2000)
    assert share.high - share.low == pytest.approx(2 * error, rel=0.15)
    assert share.low < share.value < share.high
    assert one == replay.replay(found, [0.3], SMALL, seed=1)
    assert one != replay.replay(found, [0.3], SMALL, seed=2)


# --- where the records come from


def test_a_file_with_the_newest_first_is_put_in_order() -> None:
    found = made_of(row(0.2, "small", created=3.0, threshold=0.8), row(0.2, "small", created=2.0))
    assert replay.replay(found, [], SMALL, resamples=2).in_force == 0.8


def decided(name: str, score: float, tier: Tier, **changes: Any) -> dict[str, Any]:
    reason = Reason.SCORE_ABOVE if tier is Tier.LARGE else Reason.SCORE_BELOW
    decision = Decision(tier, reason, 0.65, Score(score, score, SignalState.OK), Mode.NORMAL, **changes)
    made = record(name, score=score, created=1000.0 + int(name[3:]))
    attempt = replace(made.attempts[1], tier=tier, usage=Usage(1000, 500), outcome=Outcome.OK)
    return receipt(replace(made, decision=decision, attempts=(attempt,)))


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    store = Store(url)
    mine = decided("tw-3", 0.7, Tier.LARGE, own_threshold=True)
    store.write([decided("tw-1", 0.2, Tier.SMALL), decided("tw-2", 0.9, Tier.LARGE), mine])
    store.close()
    return url


def run(*options: object) -> tuple[int, Any]:
    done = CliRunner().invoke(app, ["replay", "--config", str(DEPLOYMENTS), *map(str, options)])
    return done.exit_code, json.loads(done.output) if done.exit_code == 0 and "--json" in options else done.output


def test_a_ledger_is_replayed_and_its_export_gives_the_same(ledger: str, tmp_path: Path) -> None:
    code, found = run("--ledger", ledger, "--threshold", 0.1, "--threshold", 0.95, "--json")
    assert (code, found["rows"], found["movable"], found["in_force"]) == (0, 3, 2, 0.65)
    assert [(p["threshold"], p["to_large"], p["to_small"]) for p in found["points"]] == [(0.1, 1, 0), (0.65, 0, 0), (0.95, 0, 1)]
    CliRunner().invoke(app, ["export", "--ledger", ledger, "--out", str(tmp_path / "out.parquet")])
    assert run("--data", tmp_path / "out.parquet", "--threshold", 0.1, "--threshold", 0.95, "--json") == (0, found)


def test_the_environment_names_a_ledger_unless_a_file_is_named(ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERWISE_LEDGER_URL", ledger)
    (tmp_path / "rows.jsonl").write_text(json.dumps(row(0.5, "large")) + "\n")
    assert run("--json")[1]["rows"] == 3
    assert run("--data", tmp_path / "rows.jsonl", "--json")[1]["rows"] == 1


def test_a_time_and_outcomes_from_a_file_are_taken(ledger: str, tmp_path: Path) -> None:
    outcomes = tmp_path / "judged.jsonl"
    outcomes.write_text('{"id": "tw-1", "weak_score": 0.5, "strong_score": 1}\n{"id": "tw-2", "expected_tier": "large"}\n')
    _, found = run("--ledger", ledger, "--outcomes", outcomes, "--from", 1001, "--to", 1003, "--threshold", 0.65, "--json")
    assert (found["rows"], found["judged"], found["labelled"]) == (2, 1, 1)
    assert (found["points"][0]["quality"]["value"], found["points"][0]["agreement"]["value"]) == (0.5, 1.0)


def test_the_table_marks_the_threshold_in_force(ledger: str) -> None:
    code, text = run("--ledger", ledger)
    assert code == 0
    assert [line.split()[1] for line in text.splitlines() if line.lstrip().startswith(">")] == ["0.65"]
    assert len(text.splitlines()) == 4 + len(replay.GRID)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ledger", "sqlite:///none.db"], "no such ledger"),
        (["--ledger", "nonsense"], "none that SQLAlchemy understands"),
        (["--threshold", "1.5", "--ledger", "LEDGER"], "numbers from 0 to 1"),
        (["--ledger", "LEDGER", "--from", "2030-01-01"], "no decisions in that time"),
        (["--ledger", "LEDGER", "--data", "x.parquet"], "one of the two"),
        (["--data", "none.jsonl"], "No such file"),
        (["--ledger", "LEDGER", "--config", "none.yaml"], "cannot be read as a deployments file"),
    ],
)
def test_a_mistake_is_one_line(ledger: str, options: list[str], says: str) -> None:
    code, text = run(*[ledger if option == "LEDGER" else option for option in options])
    assert (code, len(text.strip().splitlines())) == (2, 1)
    assert says in text


BROKEN = [
    json.dumps(row(0.5, "small", **changes)) + "\n"
    for changes in (
        {"cost_usd": "much"},
        {"cost_usd": None},
        {"created": "2026-11-24"},
        {"created": 10**400},
        {"all_large_usd": float("nan")},
    )
]


@pytest.mark.parametrize("text", ["not json\n", "[1]\n", '{"id": "tw-1"}\n', *BROKEN, ""])
def test_a_file_that_holds_something_else_is_refused_in_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    with pytest.raises(RequestError):
        history.from_file(file, since=0.5)
    (tmp_path / "rows.parquet").write_text(text)
    with pytest.raises(RequestError):
        history.from_file(tmp_path / "rows.parquet")


@pytest.mark.parametrize(("text", "moment"), [("", None), ("12.5", 12.5), ("1970-01-02", 86_400.0), ("1970-01-01T01:00+01:00", 0.0)])
def test_a_moment_is_unix_time_or_iso_in_utc(text: str, moment: float | None) -> None:
    assert recorded.moment(text) == moment


@pytest.mark.parametrize("text", ["nan", "inf", "yesterday", "2026-13-01"])
def test_no_moment_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        recorded.moment(text)
