"""Pairs out of the ledger and verdicts into it, and what `calibrate`, `replay` and `report` read of them, on both databases."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from serve_app.domain import Feedback, Reason, Tier
from serve_app.errors import CalibrationError, RequestError, TierwiseError
from serve_app.evaluate import disagreements, history, judge_pairs, labelled_recorded, replay
from serve_app.evaluate.judge_pairs import Judged, Rows, Verdict
from serve_app.observe.receipt import row
from serve_app.observe.store import Store
from serve_app.settings import TokenPrice
from tests.observe.common import pair, query, record

SMALL = TokenPrice(input=1.0, output=2.0)


def prompt(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def decided(name: str, text: str, tier: Tier, **changes: Any) -> dict[str, Any]:
    made = record(name, prompt=prompt(text), **changes)
    reason = Reason.SCORE_ABOVE if tier is Tier.LARGE else Reason.SCORE_BELOW
    return row(replace(made, decision=replace(made.decision, tier=tier, reason=reason, chosen=None)))


def escalated(name: str, text: str) -> dict[str, Any]:
    made = record(name, prompt=prompt(text))
    return row(replace(made, decision=replace(made.decision, reason=Reason.ESCALATED_LOW_CONFIDENCE)))


def said(name: str, tier: Tier, score: float, by: str | None = None) -> Feedback:
    return Feedback(name, 1_700_000_100.0, tier, score, by=by, key="team-a", session="s-1")


def judgement(name: str, weak: float | None, strong: float | None, judge: str = "exact", created: float = 1.0) -> dict[str, Any]:
    made = {"decision_id": name, "judge": judge, "created": created, "key": None, "session": None}
    return {**made, "weak_score": weak, "strong_score": strong, "fault": None if weak is not None else "timeout"}


def test_pairs_come_page_by_page_and_once(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_pairs, "PAGE", 2)
    store.write([pair(f"tw-{n}", created=1000.0 + n, prompt=prompt(f"Question {n}?")) for n in range(5)])
    assert judge_pairs.count(url, 1001.0, 1004.0) == 3
    found, last = [], 0
    while page := judge_pairs.page(url, 1001.0, 1004.0, last):
        assert len(page) <= 2
        found, last = [*found, *page], page[-1].number
    assert [(one.asked.decision_id, one.asked.text) for one in found] == [(f"tw-{n}", f"Question {n}?") for n in (1, 2, 3)]
    assert (found[0].small, found[0].large, found[0].key, found[0].session) == ("Noted: 4711.", "I keep no pins.", "team-a", "s-1")
    with pytest.raises(RequestError, match="mirror_share"):
        judge_pairs.count(url, 2000.0, None)


def test_the_small_models_answer_is_the_small_models_whoever_answered_the_client(store: Store, url: str) -> None:
    store.write([pair("tw-1", tier=Tier.LARGE, answer="by large", mirror_tier=Tier.SMALL, mirror_answer="by small")])
    (one,) = judge_pairs.page(url, None, None, 0)
    assert (one.small, one.large) == ("by small", "by large")


def test_verdicts_are_written_beside_the_ledger_and_known_again(store: Store, url: str) -> None:
    store.write([pair("tw-1"), pair("tw-2")])
    good, bad = judge_pairs.page(url, None, None, 0)
    rows = Rows(url, "exact")
    rows.keep([Judged(good, "exact", 5.0, Verdict(0.0, 1.0)), Judged(bad, "exact", 6.0, fault="timeout")])
    rows.close()
    store.write([row(record("tw-1"))])  # the ledger goes on writing
    again, another = Rows(url, "exact"), Rows(url, "llm:m")
    assert (again.known, another.known) == ({"tw-1": Verdict(0.0, 1.0)}, {})
    again.close()
    another.close()
    assert query(url, "select decision_id, session, weak_score, fault from judgements order by decision_id") == [
        {"decision_id": "tw-1", "session": "s-1", "weak_score": 0.0, "fault": None},
        {"decision_id": "tw-2", "session": "s-1", "weak_score": None, "fault": "timeout"},
    ]


def test_a_ledger_that_takes_no_verdict_says_so_in_a_line(store: Store, url: str) -> None:
    store.write([pair("tw-1")])
    (one,) = judge_pairs.page(url, None, None, 0)
    rows = Rows(url, "exact")
    with pytest.raises(TierwiseError, match="does not take the verdicts: IntegrityError"):
        rows.keep([Judged(one, "exact", None, Verdict(0.0, 1.0))])  # type: ignore[arg-type]
    assert rows.known == {}
    rows.close()


def test_a_judge_makes_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such ledger"):
        Rows(f"sqlite:///{tmp_path / 'none.db'}", "exact")
    assert not (tmp_path / "none.db").exists()


# --- rows for calibrate


def found(url: str, *bounds: float) -> dict[str, tuple[float | None, float | None, str]]:
    return {one["prompt"]: (one["weak_score"], one["strong_score"], one["evidence"]) for one in labelled_recorded.rows(url, *bounds)}


def test_a_judged_pair_is_a_row_by_its_last_judgement(store: Store, url: str) -> None:
    store.write([pair(f"tw-{n}", created=1000.0 + n, prompt=prompt(f"Question {n}?")) for n in range(3)])
    store.judge([judgement("tw-0", 0.0, 1.0), judgement("tw-0", 0.5, 1.0, "llm", created=2.0), judgement("tw-1", None, None)])
    store.judge([judgement("tw-2", 1.0, 1.0)])
    assert found(url) == {"Question 0?": (0.5, 1.0, "judged"), "Question 2?": (1.0, 1.0, "judged")}
    assert found(url, 1001.0) == {"Question 2?": (1.0, 1.0, "judged")}
    assert {one["id"] for one in labelled_recorded.rows(url)} == {"tw-0", "tw-2"}


def test_feedback_on_both_models_answers_to_one_prompt_is_a_whole_row(store: Store, url: str) -> None:
    store.write([decided("tw-1", "same", Tier.SMALL), decided("tw-2", "same", Tier.LARGE), decided("tw-3", "other", Tier.LARGE)])
    store.write([said("tw-1", Tier.SMALL, 0.0), said("tw-1", Tier.SMALL, 0.5, "boss"), said("tw-2", Tier.LARGE, 1.0)])
    store.write([said("tw-3", Tier.LARGE, 1.0)])
    assert found(url) == {"same": (0.25, 1.0, "feedback"), "other": (None, 1.0, "feedback")}


def test_an_early_exit_says_that_the_small_model_failed_and_nothing_of_the_large_one(store: Store, url: str) -> None:
    store.write([escalated("tw-1", "hard"), escalated("tw-2", "harder")])
    assert found(url) == {"hard": (0.0, None, "early exit"), "harder": (0.0, None, "early exit")}
    store.write([said("tw-2", Tier.LARGE, 0.75)])
    assert found(url)["harder"] == (0.0, 0.75, "early exit and feedback")


def test_a_judgement_stands_alone(store: Store, url: str) -> None:
    store.write([escalated("tw-1", "hard"), pair("tw-1", prompt=prompt("hard")), said("tw-1", Tier.LARGE, 0.0)])
    store.judge([judgement("tw-1", 1.0, 1.0)])
    assert found(url) == {"hard": (1.0, 1.0, "judged")}


def test_without_stored_prompts_there_is_nothing_to_learn_from(store: Store, url: str) -> None:
    store.write([row(record("tw-1")), said("tw-1", Tier.LARGE, 1.0)])
    assert labelled_recorded.rows(url) == []


def test_too_little_is_refused_with_what_there_is(store: Store, url: str) -> None:
    store.write([pair("tw-1"), escalated("tw-2", "hard"), escalated("tw-3", "harder"), said("tw-3", Tier.LARGE, 1.0)])
    store.judge([judgement("tw-1", 1.0, 1.0)])
    says = r"2 prompts with scores of both models \(1 judged, 1 by feedback; of one model's only: 1\): 150 are needed"
    with pytest.raises(CalibrationError, match=says) as caught, labelled_recorded.with_ledger(None, url):
        raise AssertionError("refused before anything is fitted")
    assert "\n" not in caught.value.message


def test_a_ledgers_rows_go_beside_files_and_only_for_as_long_as_needed(store: Store, url: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    with labelled_recorded.with_ledger([mine], url) as files:
        assert files == [mine], "an empty ledger adds nothing"
    store.write([pair("tw-1")])
    store.judge([judgement("tw-1", 0.0, 1.0)])
    with labelled_recorded.with_ledger([mine], url) as files:
        assert files[0] == mine
        assert '"weak_score": 0.0' in files[1].read_text()
    assert not files[1].exists()
    with labelled_recorded.with_ledger(None, "") as files:
        assert files == []


# --- replay and report


def test_replay_has_the_quality_of_what_is_judged_and_what_people_say(store: Store, url: str) -> None:
    store.write([decided("tw-1", "a", Tier.SMALL, score=0.2), decided("tw-2", "b", Tier.LARGE, score=0.9)])
    store.judge([judgement("tw-1", 0.25, 1.0)])
    store.write([said("tw-2", Tier.LARGE, 0.5), said("tw-2", Tier.LARGE, 1.0, "boss")])
    got = replay.replay(history.from_ledger(url), [0.1], SMALL, resamples=5)
    quality = {one.threshold: one.quality and one.quality.value for one in got.points}
    assert (got.judged, quality) == (1, {0.1: 1.0, 0.65: 0.25})
    assert got.feedback == {"large": {"decisions": 1, "mean": 0.75}}
    assert "feedback, as answered: large 0.750 (of 1)" in replay.as_lines(got)
    better = history.from_ledger(url, outcomes={"tw-1": {"weak_score": 0.75, "strong_score": 1.0}, "tw-2": {"expected_tier": "large"}})
    assert (better.weak[0], better.feedback[1], better.expected[1]) == (0.75, 0.75, 1.0), "a file knows better, and hides no feedback"


def test_the_worst_disagreements_are_the_judged_ones_where_there_are_any(store: Store, url: str) -> None:
    store.write([pair("tw-1", answer="one", mirror_answer="two"), pair("tw-2", answer="same", mirror_answer="same")])
    store.write([pair("tw-3", answer="same", mirror_answer="same")])
    assert [one.decision_id for one in disagreements.find(url, None, None).worst] == ["tw-1", "tw-2", "tw-3"]
    store.judge([judgement("tw-2", 0.5, 1.0), judgement("tw-3", 1.0, 0.0), judgement("tw-1", None, None)])
    got = disagreements.find(url, None, None)
    assert [(one.decision_id, one.apart) for one in got.worst] == [("tw-3", 1.0), ("tw-2", 0.5)]
    assert (got.pairs, got.judged) == (3, 2)


def test_a_ledger_of_an_earlier_version_is_still_read(store: Store, url: str) -> None:
    store.write([decided("tw-1", "a", Tier.SMALL), pair("tw-1")])
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("drop table judgements")
        connection.exec_driver_sql("drop table feedback")
    engine.dispose()
    assert len(history.from_ledger(url)) == 1
    assert (disagreements.find(url, None, None).pairs, labelled_recorded.rows(url)) == (1, [])
