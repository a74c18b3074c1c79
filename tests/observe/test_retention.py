"""What the ledger keeps of prompts and people: only where it is switched on, for so long, and until it is asked to forget."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from serve_app.observe.receipt import MAX_PROMPT_BYTES, receipt, row, scrubbed, without_large_prompt
from serve_app.observe.store import Store
from tests.observe.common import PROMPT, pair, query, record

# What the first version made of an empty file.
OLD_DDL = """
CREATE TABLE decisions (
    id VARCHAR(64) NOT NULL, created DOUBLE NOT NULL, tier VARCHAR(8) NOT NULL, reason VARCHAR(32) NOT NULL, mode VARCHAR(8) NOT NULL,
    outcome VARCHAR(16) NOT NULL, score DOUBLE, threshold DOUBLE NOT NULL, calibration VARCHAR(64) NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, cost_usd DOUBLE NOT NULL,
    all_large_usd DOUBLE NOT NULL, overhead_seconds DOUBLE NOT NULL, total_seconds DOUBLE NOT NULL, receipt TEXT NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX ix_decisions_created ON decisions (created);
CREATE TABLE attempts (
    decision_id VARCHAR(64) NOT NULL, number INTEGER NOT NULL, tier VARCHAR(8) NOT NULL, model VARCHAR(255) NOT NULL,
    outcome VARCHAR(16) NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    cost_usd DOUBLE NOT NULL, started DOUBLE NOT NULL, first_token DOUBLE, ended DOUBLE NOT NULL,
    PRIMARY KEY (decision_id, number), FOREIGN KEY(decision_id) REFERENCES decisions (id)
);
"""
OLD_DECISION = (
    "INSERT INTO decisions VALUES (?, 1.0, 'small', 'score_below', 'normal', 'ok', 0.1, 0.65, 'c', 1, 2, 0, 0.5, 0.6, 0.0, 1.0, ?)"
)


def write(store: Store, name: str, **changes: Any) -> None:
    store.write([row(record(name, prompt=PROMPT, **changes))])


def stored(url: str, table: str) -> list[str]:
    name = "id" if table == "decisions" else "decision_id"
    return [found[name] for found in query(url, f"select distinct {name} from {table} order by {name}")]  # noqa: S608 - both are ours


def old_database(path: Path, names: list[str]) -> None:
    """With receipts as the first version wrote them: a session in them, no key anywhere."""
    database = sqlite3.connect(path)
    database.executescript(OLD_DDL)
    for name in names:
        text = json.dumps({"id": name, "kind": "completion", "stream": True, "session": "old", "prompt_hash": "ab"})
        database.execute(OLD_DECISION, (name, text))
    database.commit()
    database.close()


# --- prompts


def test_a_prompt_is_kept_beside_its_receipt_and_never_in_it(store: Store, url: str) -> None:
    write(store, "tw-1")
    assert query(url, "select * from prompts") == [
        {"decision_id": "tw-1", "created": 1_700_000_000.5, "key": "team-a", "session": "s-1", "body": json.dumps(PROMPT)}
    ]
    found = store.get("tw-1")
    assert found is not None
    assert "prompt" not in found
    assert "4711" not in query(url, "select receipt from decisions")[0]["receipt"]


def test_a_receipt_never_holds_the_prompt() -> None:
    assert receipt(record("tw-1", prompt=PROMPT)) == receipt(record("tw-1"))
    assert row(record("tw-1", prompt=PROMPT))["prompt"] == PROMPT


def test_without_a_prompt_nothing_is_kept(store: Store, url: str) -> None:
    store.write([row(record("tw-1"))])
    assert stored(url, "prompts") == []


def test_a_prompt_above_the_bound_is_left_out() -> None:
    def about(size: int) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": "é" * (size // 2)}]}

    assert without_large_prompt(record("tw-1", prompt=about(MAX_PROMPT_BYTES - 100))).prompt is not None
    assert without_large_prompt(record("tw-1", prompt=about(MAX_PROMPT_BYTES + 100))) == record("tw-1")


def test_a_body_of_any_depth_is_measured() -> None:
    deep: Any = "x" * (MAX_PROMPT_BYTES + 1)
    for _ in range(100_000):
        deep = [deep]
    assert without_large_prompt(record("tw-1", prompt={"messages": deep})).prompt is None


# --- mirrors


def test_pairs_are_read_in_the_order_of_writing_from_where_one_left_off(store: Store) -> None:
    store.write([pair("tw-b", created=9.0), pair("tw-a", created=1.0)])
    first = store.mirrors(limit=1)
    assert [(found["decision_id"], found["body"], found["answer"], found["mirror_answer"]) for found in first] == [
        ("tw-b", PROMPT, "Noted: 4711.", "I keep no pins.")
    ]
    assert (first[0]["tier"], first[0]["mirror_tier"], first[0]["completion_tokens"], first[0]["cost_usd"]) == (
        "small",
        "large",
        5,
        0.00002,
    )
    store.write([pair("tw-c", created=0.5)])
    assert [found["decision_id"] for found in store.mirrors(limit=9, after=first[0]["number"])] == ["tw-a", "tw-c"]


def test_a_pair_that_comes_twice_is_kept_once(store: Store) -> None:
    store.write([pair("tw-1"), row(record("tw-1"))])
    store.write([pair("tw-1", answer="another")])
    assert [found["answer"] for found in store.mirrors(limit=9)] == ["Noted: 4711."]


def test_a_number_is_not_given_again_after_a_deletion(store: Store) -> None:
    store.write([pair("tw-1", session="gone")])
    last = store.mirrors(limit=1)[0]["number"]
    store.forget(None, "gone")
    store.write([pair("tw-2")])
    assert [found["decision_id"] for found in store.mirrors(limit=9, after=last)] == ["tw-2"]


def test_text_that_no_database_takes_is_kept_without_what_is_wrong_in_it(store: Store) -> None:
    store.write([pair("tw-1", answer="a\x00b\ud800c", prompt={"prompt": "\x00\ud800"})])
    (found,) = store.mirrors(limit=1)
    assert (found["answer"], found["body"]) == ("a\ufffdb?c", {"prompt": "\x00\ud800"})


# --- sums


def test_spending_is_summed_by_key_from_a_moment_on(store: Store) -> None:
    for name, key, created, cost in [
        ("1", "a", 10.0, 0.1),
        ("2", "a", 20.0, 0.2),
        ("3", "a", 30.0, 0.4),
        ("4", "b", 20.0, 0.8),
        ("5", None, 20.0, 9),
    ]:
        write(store, name, key=key, created=created, cost_usd=cost)
    store.write([pair("2", key="a", created=20.0)])
    assert store.spent_since(["a", "b", "idle"], since=20.0) == {"a": pytest.approx(0.6), "b": 0.8, "idle": 0.0}
    assert store.spent_since([], since=0.0) == {}


# --- forgetting


@pytest.mark.parametrize(
    ("key", "session", "gone"),
    [
        ("a", None, ["a-1", "a-2"]),
        (None, "s-1", ["a-1", "b-1"]),
        ("a", "s-1", ["a-1"]),
        ("c", None, []),
        (None, "s-9", []),
    ],
)
def test_forgetting_takes_exactly_what_belongs_to_the_key_or_session(
    store: Store, url: str, key: str | None, session: str | None, gone: list[str]
) -> None:
    for name in ("a-1", "a-2", "b-1", "b-2"):
        mine = {"key": name[0], "session": f"s-{name[2]}"}
        write(store, name, **mine)
        store.write([pair(name, **mine)])
    kept = sorted({"a-1", "a-2", "b-1", "b-2"} - set(gone))
    before = {name: store.get(name) for name in kept}
    assert store.forget(key, session) == len(gone)
    assert stored(url, "prompts") == stored(url, "mirrors") == kept
    assert [found["id"] for found in query(url, "select id from decisions where session is null order by id")] == gone
    assert {name: store.get(name) for name in kept} == before
    for name in gone:
        receipt_now = store.get(name)
        assert receipt_now is not None
        assert (receipt_now["session"], receipt_now["prompt_hash"], receipt_now["key"]) == (None, "", name[0])


def test_the_account_is_the_same_after_forgetting(store: Store, url: str) -> None:
    write(store, "tw-1")
    account = "select key, tier, prompt_tokens, completion_tokens, cost_usd, all_large_usd from decisions"
    before = (query(url, account), query(url, "select * from attempts"))
    store.forget("team-a", None)
    assert (query(url, account), query(url, "select * from attempts")) == before


def test_forgetting_again_changes_nothing(store: Store) -> None:
    write(store, "tw-1")
    assert [store.forget("team-a", None), store.forget("team-a", None)] == [1, 0]


def test_forgetting_everything_must_be_said_otherwise(store: Store, url: str) -> None:
    write(store, "tw-1")
    with pytest.raises(ValueError, match="a key or a session"):
        store.forget(None, None)
    assert stored(url, "prompts") == ["tw-1"]


def test_a_key_of_many_decisions_is_forgotten_to_the_last(store: Store, url: str) -> None:
    store.write([row(record(f"tw-{number:04}", prompt=PROMPT)) for number in range(1201)])
    assert store.forget("team-a", None) == 1201
    assert query(url, "select count(*) as n from decisions where session is not null") == [{"n": 0}]


def test_what_is_forgotten_is_not_in_the_files_either(sqlite_url: str) -> None:
    """SQLite would leave it in free pages and in its log."""
    store, url = Store(sqlite_url), sqlite_url
    write(store, "tw-1", session="a-secret-session")
    store.write([pair("tw-1"), *(row(record(f"other-{number}")) for number in range(50))])
    folder = Path(url.removeprefix("sqlite:///")).parent

    def on_disk(text: str) -> bool:
        return any(text.encode() in file.read_bytes() for file in folder.iterdir())

    assert on_disk("4711")
    assert on_disk("a-secret-session")
    store.forget("team-a", None)
    assert not on_disk("4711")
    assert not on_disk("a-secret-session")
    store.close()


def test_a_scrubbed_row_has_neither_prompt_nor_session_nor_hash() -> None:
    data = scrubbed(row(record("tw-1", prompt=PROMPT)))
    assert data == {**receipt(record("tw-1")), "session": None, "prompt_hash": ""}


def test_deletions_are_remembered_where_a_time_is_given_and_pruned_when_they_are_old(store: Store) -> None:
    for steps in (store.forgetting("a", None, 100.0), store.forgetting(None, "s", 200.0), store.forgetting("b", "t", 300.0)):
        next(steps)  # with the deletion itself
    store.forget("c", None)
    assert store.forgotten(9) == [("a", None, 100.0), (None, "s", 200.0), ("b", "t", 300.0)]
    assert store.forgotten(2) == [(None, "s", 200.0), ("b", "t", 300.0)]
    store.prune(0.0, None, before_deletions=200.0)
    assert store.forgotten(9) == [(None, "s", 200.0), ("b", "t", 300.0)]


# --- pruning


def test_prompts_and_mirrors_grow_old_before_records_do(store: Store, url: str) -> None:
    for name, created in [("old", 100.0), ("middle", 200.0), ("new", 300.0)]:
        write(store, name, created=created)
        store.write([pair(name, created=created)])
    store.prune(before_prompts=200.0, before_rows=None)
    assert (stored(url, "prompts"), stored(url, "mirrors"), store.count()) == (["middle", "new"], ["middle", "new"], 3)
    store.prune(before_prompts=200.0, before_rows=200.0)
    assert stored(url, "decisions") == stored(url, "attempts") == ["middle", "new"]
    store.prune(before_prompts=0.0, before_rows=300.0)
    assert [stored(url, table) for table in ("decisions", "attempts", "prompts", "mirrors")] == [["new"]] * 4


# --- databases of an earlier version


def test_a_database_of_the_first_version_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    old_database(file, ["tw-1"])
    url = f"sqlite:///{file}"
    for _ in range(2):  # the second start finds nothing to do
        store = Store(url)
        store.close()
    store = Store(url)
    write(store, "tw-2")
    assert store.get("tw-1") == {"id": "tw-1", "kind": "completion", "stream": True, "session": "old", "prompt_hash": "ab"}
    assert query(url, "select id, key, session, kind, stream, chosen, cost_usd from decisions order by id") == [
        {"id": "tw-1", "key": None, "session": "old", "kind": "completion", "stream": 1, "chosen": None, "cost_usd": 0.5},
        {"id": "tw-2", "key": "team-a", "session": "s-1", "kind": "chat", "stream": 1, "chosen": "small", "cost_usd": 0.00005},
    ]
    indexes = {found["name"] for found in query(url, "select name from sqlite_master where type = 'index'")}
    assert {"ix_decisions_listing", "ix_decisions_session", "ix_decisions_key_listing"} <= indexes
    store.close()


def test_a_session_of_the_first_version_can_be_forgotten(tmp_path: Path) -> None:
    """It stood in the receipts alone."""
    file = tmp_path / "old.db"
    old_database(file, [f"tw-{number:04}" for number in range(1001)])
    store = Store(f"sqlite:///{file}")
    assert store.forget(None, "old") == 1001
    found = store.get("tw-1000")
    store.close()
    assert found is not None
    assert found["session"] is None
