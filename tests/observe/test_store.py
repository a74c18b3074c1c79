"""The ledger's tables, on SQLite and PostgreSQL."""

from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from serve_app.domain import DecisionQuery, Mode, Outcome, Reason, Score, Tier
from serve_app.observe.receipt import receipt
from serve_app.observe.store import Store
from tests.observe.common import pair, query, record


def test_a_receipt_survives_the_round_trip(store: Store) -> None:
    stored = receipt(record("tw-1"))
    store.write([stored])
    found = store.get("tw-1")
    assert found is not None
    assert {**found, "attempts": tuple(found["attempts"])} == stored
    assert store.get("tw-2") is None


def test_a_receipt_holds_what_follows_from_its_record() -> None:
    data = receipt(record("tw-1"))
    assert data["saved_usd"] == 0.00001
    assert data["decision"]["margin"] == pytest.approx(0.05)
    assert data["usage"] == {"prompt_tokens": 10, "completion_tokens": 20, "cached_tokens": 4, "total_tokens": 30}
    assert receipt(record("tw-1", score=None))["decision"]["margin"] is None


def test_a_decision_is_a_row_of_columns(store: Store, url: str) -> None:
    store.write([receipt(record("tw-1"))])
    (row,) = query(url, "select * from decisions")
    del row["receipt"]
    assert row == {
        "id": "tw-1",
        "created": 1_700_000_000.5,
        "tier": "large",
        "reason": "fallback_engine_error",
        "mode": "normal",
        "outcome": "ok",
        "score": 0.7,
        "threshold": 0.65,
        "calibration": "hash-of-calibration",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cached_tokens": 4,
        "cost_usd": 0.00005,
        "all_large_usd": 0.00006,
        "overhead_seconds": 0.02,
        "total_seconds": 3.0,
        "key": "team-a",
        "session": "s-1",
        "kind": "chat",
        "stream": 1,
        "chosen": "small",
        "own_threshold": 0,
    }


def test_every_attempt_is_a_row_in_order(store: Store, url: str) -> None:
    store.write([receipt(record("tw-1")), receipt(record("tw-2", attempts=0))])
    rows = query(url, "select * from attempts order by decision_id, number")
    assert [(r["decision_id"], r["number"], r["tier"], r["outcome"]) for r in rows] == [
        ("tw-1", 0, "small", "timeout"),
        ("tw-1", 1, "large", "ok"),
    ]
    assert (rows[0]["first_token"], rows[0]["completion_tokens"]) == (None, 0)
    assert (rows[1]["model"], rows[1]["first_token"], rows[1]["completion_tokens"]) == ("large-model", 2.5, 20)


def test_writing_twice_changes_nothing(store: Store, url: str) -> None:
    first = receipt(record("tw-1"))
    store.write([first, first])
    store.write([{**first, "outcome": "failed"}, receipt(record("tw-2"))])
    assert [row["outcome"] for row in query(url, "select * from decisions order by id")] == ["ok", "ok"]
    assert len(query(url, "select * from attempts")) == 4


def test_what_was_new_is_told(store: Store) -> None:
    rows = [receipt(record(f"tw-{number}")) for number in range(3)]
    assert store.write([rows[0], rows[0], pair("tw-0")]) == [rows[0]]
    assert store.write(rows) == rows[1:]
    assert store.write(rows) == []


def test_a_batch_is_written_as_a_whole_or_not_at_all(store: Store) -> None:
    bad = receipt(record("tw-2"))
    bad["decision"]["tier"] = None
    with pytest.raises(sa.exc.IntegrityError):
        store.write([receipt(record("tw-1")), bad])
    assert store.count() == 0


def test_an_empty_batch_is_nothing(store: Store) -> None:
    store.write([])
    assert store.count() == 0


def test_a_record_without_a_score_is_kept(store: Store, url: str) -> None:
    store.write([receipt(record("tw-1", score=None))])
    assert query(url, "select score from decisions") == [{"score": None}]


def test_rows_are_still_there_after_a_restart(url: str) -> None:
    for number in range(2):
        store = Store(url)
        store.write([receipt(record(f"tw-{number}"))])
        assert store.count() == number + 1
        store.close()


def test_sqlite_keeps_a_log_that_readers_can_stay_behind(sqlite_url: str) -> None:
    Store(sqlite_url).close()
    assert query(sqlite_url, "pragma journal_mode") == [{"journal_mode": "wal"}]


def test_readers_do_not_block_the_writer(store: Store, url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as reader:
        reader.execute(sa.text("select count(*) from decisions")).scalar()
        store.write([receipt(record("tw-1"))])
    engine.dispose()
    assert store.count() == 1


def test_large_batches_are_written(store: Store) -> None:
    store.write([receipt(record(f"tw-{i}")) for i in range(2000)])
    assert store.count() == 2000


# --- pages


def listed(store: Store, **query: Any) -> list[str]:
    return [row["id"] for row in store.page(DecisionQuery(**{"limit": 99, **query}))]


@pytest.fixture
def pages(store: Store) -> Store:
    """Five decisions, a second apart; the last two at the same moment."""
    made = [record(f"tw-{number}", score=number / 10, created=min(number, 4) + 1_700_000_000.25) for number in (1, 2, 3, 4, 5)]
    small = replace(made[0].decision, tier=Tier.SMALL, reason=Reason.SCORE_BELOW, mode=Mode.SHADOW)
    made[0] = replace(made[0], decision=small, outcome=Outcome.FAILED, session="s-2", key=None)
    made[1] = replace(made[1], decision=replace(made[1].decision, score=Score(None)))
    store.write([receipt(one) for one in made])
    return store


def test_decisions_are_listed_newest_first(pages: Store) -> None:
    assert listed(pages) == ["tw-5", "tw-4", "tw-3", "tw-2", "tw-1"]
    assert listed(pages, limit=2) == ["tw-5", "tw-4"]
    (newest,) = pages.page(DecisionQuery(limit=1))
    assert "receipt" not in newest
    assert (newest["session"], newest["stream"], newest["cost_usd"]) == ("s-1", True, 0.00005)


def test_a_page_goes_on_where_the_one_before_ended_whatever_is_written_meanwhile(pages: Store) -> None:
    first = pages.page(DecisionQuery(limit=1))[-1]
    pages.write([receipt(record("tw-6", created=1_800_000_000.0)), receipt(record("tw-0", created=1.0))])
    assert listed(pages, before=(first["created"], first["id"])) == ["tw-4", "tw-3", "tw-2", "tw-1", "tw-0"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"tier": "small"}, ["tw-1"]),
        ({"reason": "score_below"}, ["tw-1"]),
        ({"outcome": "failed"}, ["tw-1"]),
        ({"mode": "shadow"}, ["tw-1"]),
        ({"session": "s-2"}, ["tw-1"]),
        ({"key": "team-a", "tier": "large", "outcome": "ok"}, ["tw-5", "tw-4", "tw-3", "tw-2"]),
        ({"key": "nobody"}, []),
        ({"since": 1_700_000_003.25, "until": 1_700_000_004.25}, ["tw-3"]),
        ({"min_score": 0.3, "max_score": 0.4}, ["tw-4", "tw-3"]),
    ],
)
def test_filters_hold_together(pages: Store, query: dict[str, Any], found: list[str]) -> None:
    assert listed(pages, **query) == found
