"""Feedback and judgements in the ledger's database: the last word holds, and what is forgotten is gone."""

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from serve_app.domain import Feedback, Tier
from serve_app.observe import opinions, reader
from serve_app.observe.backlog import Forgotten
from serve_app.observe.metrics import Metrics
from serve_app.observe.receipt import held_bytes, id_of, row
from serve_app.observe.store import Store
from tests.observe.common import query, record
from tests.observe.test_metrics import Numbers

SAID = Feedback("tw-1", 1_700_000_100.0, Tier.LARGE, 0.25, "too long", by="team-a", key="team-a", session="s-1")


def judgement(name: str, judge: str = "exact", **changes: Any) -> dict[str, Any]:
    made = {"decision_id": name, "judge": judge, "created": 1_700_000_200.0, "key": "team-a", "session": "s-1"}
    return {**made, "weak_score": 0.0, "strong_score": 1.0, "fault": None, **changes}


def scores(url: str) -> list[tuple[str, str, float]]:
    return [(r["decision_id"], r["by"], r["score"]) for r in query(url, 'select * from feedback order by decision_id, "by"')]


def outcomes(url: str, *bounds: float | None) -> dict[str, Any]:
    with reader.reading(url) as connection:
        return opinions.outcomes(connection, *(bounds or (None, None)))


def test_the_last_word_of_a_key_holds_and_other_keys_have_their_own(store: Store, url: str) -> None:
    store.write([SAID, replace(SAID, score=0.5, created=SAID.created + 1), replace(SAID, by=None, score=1.0)])
    assert scores(url) == [("tw-1", "", 1.0), ("tw-1", "team-a", 0.5)]
    store.write([SAID])  # a retry that comes late
    assert scores(url)[1] == ("tw-1", "team-a", 0.5)
    store.write([replace(SAID, score=0.75, created=SAID.created + 2)])
    assert scores(url)[1] == ("tw-1", "team-a", 0.75)


def test_many_words_at_once_are_kept(store: Store, url: str) -> None:
    store.write([replace(SAID, decision_id=f"tw-{number}") for number in range(opinions.AT_ONCE + 1)])
    assert len(scores(url)) == opinions.AT_ONCE + 1


def test_a_receipt_shows_what_is_said_of_its_decision_and_nothing_where_nothing_is(store: Store) -> None:
    store.write([row(record("tw-1")), row(record("tw-2")), SAID])
    store.judge([judgement("tw-1"), judgement("tw-1", "llm", weak_score=None, strong_score=None, fault="timeout")])
    found = store.get("tw-1")
    assert found is not None
    assert found["feedback"] == [{"by": "team-a", "created": SAID.created, "score": 0.25, "comment": "too long"}]
    assert found["judgements"] == [{"judge": "exact", "created": 1_700_000_200.0, "weak_score": 0.0, "strong_score": 1.0}]
    assert {"feedback", "judgements"} & set(store.get("tw-2") or ()) == set()


def test_a_comment_that_no_database_takes_is_kept_without_what_is_wrong_in_it(store: Store, url: str) -> None:
    store.write([replace(SAID, comment="a\x00b\ud800")])
    assert query(url, "select comment from feedback") == [{"comment": "a\ufffdb?"}]


def test_a_judge_that_judges_again_replaces_its_word(store: Store, url: str) -> None:
    store.judge([judgement("tw-1"), judgement("tw-1", "llm")])
    store.judge([judgement("tw-1", weak_score=0.5)])
    assert [(r["judge"], r["weak_score"]) for r in query(url, "select * from judgements order by judge")] == [("exact", 0.5), ("llm", 0.0)]


@pytest.mark.parametrize(("key", "session", "left"), [("team-a", None, ["tw-3"]), (None, "s-1", ["tw-2", "tw-3"]), ("team-b", "s-1", [])])
def test_what_is_forgotten_takes_its_feedback_and_judgements_along(
    store: Store, url: str, key: str | None, session: str | None, left: list[str]
) -> None:
    """And a key that is forgotten takes along what it said of others' decisions."""
    own = [SAID, replace(SAID, decision_id="tw-2", session=None), replace(SAID, decision_id="tw-3", by="boss", key="team-b", session="s-2")]
    store.write([*own, replace(SAID, decision_id="tw-4", key="team-b")])
    store.judge([judgement("tw-1"), judgement("tw-2", session=None), judgement("tw-3", key="team-b", session="s-2")])
    store.forget(key, session)
    said, judged = ([r["decision_id"] for r in query(url, f"select * from {name} order by 1")] for name in ("feedback", "judgements"))  # noqa: S608
    if left:
        assert (said, judged) == (left, left)
    else:
        assert (said, judged) == (["tw-1", "tw-2", "tw-3"], ["tw-1", "tw-2", "tw-3"])


def test_comments_grow_old_as_prompts_do_and_scores_as_records_do(store: Store, url: str) -> None:
    store.write([row(record("tw-1", created=100.0)), row(record("tw-2", created=300.0))])
    store.write([replace(SAID, decision_id=name, created=at) for name, at in (("tw-1", 350.0), ("tw-2", 350.0), ("lost", 150.0))])
    store.judge([judgement("tw-1", created=350.0), judgement("tw-2", created=350.0)])
    store.prune(before_prompts=300.0, before_rows=None)
    assert [r["comment"] for r in query(url, "select * from feedback order by decision_id")] == [None, "too long", "too long"]
    store.prune(before_prompts=400.0, before_rows=200.0)
    assert query(url, "select decision_id, comment from feedback") == [{"decision_id": "tw-2", "comment": None}]
    assert query(url, "select decision_id from judgements") == [{"decision_id": "tw-2"}]


def test_outcomes_are_the_last_judgement_and_the_mean_of_what_people_say(store: Store, url: str) -> None:
    store.write([row(record(name, created=at)) for name, at in (("tw-1", 100.0), ("tw-2", 200.0), ("tw-3", 300.0))])
    store.judge([judgement("tw-1", "llm", created=2.0, weak_score=0.5), judgement("tw-1", created=1.0)])
    store.judge([judgement("tw-2", weak_score=None, strong_score=None, fault="timeout")])
    said = [replace(SAID, decision_id=name) for name in ("tw-1", "tw-3")]
    store.write([*said, replace(SAID, by="boss", score=0.75)])
    judged = {"weak_score": 0.5, "strong_score": 1.0, "feedback": 0.5}
    assert outcomes(url) == {"tw-1": judged, "tw-3": {"feedback": 0.25}}
    assert outcomes(url, 150.0, 301.0) == {"tw-3": {"feedback": 0.25}}
    assert outcomes(url, 100.0, 300.0) == {"tw-1": judged}


def test_a_ledger_from_before_there_were_opinions_has_none(sqlite_url: str) -> None:
    engine = sa.create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("create table decisions (id text)")
    engine.dispose()
    assert outcomes(sqlite_url) == {}


def test_feedback_counts_by_tier_and_by_whether_it_is_good() -> None:
    numbers = Numbers()
    for score in (0.0, 0.49, 0.5):
        Metrics(numbers).told(replace(SAID, score=score))
    assert numbers.added == {("feedback_total", ("large", "bad")): 2, ("feedback_total", ("large", "good")): 1}


def test_feedback_waits_under_a_name_of_its_own_and_its_comment_has_a_weight() -> None:
    assert [id_of(SAID), id_of(replace(SAID, by=None))] == ["tw-1-f-team-a", "tw-1-f-"]
    assert [held_bytes(SAID), held_bytes(replace(SAID, comment=None))] == [8, 0]


@pytest.mark.parametrize(("key", "session"), [("team-a", None), (None, "s-1"), ("boss", None)])
def test_feedback_that_was_on_its_way_when_it_was_forgotten_is_covered(key: str | None, session: str | None) -> None:
    forgotten = Forgotten()
    forgotten.add(key, session, SAID.created)
    assert forgotten.covers(replace(SAID, by="boss"))
    assert not forgotten.covers(replace(SAID, by="boss", created=SAID.created + 1))
