"""What waits for the ledger: bounded in items and bytes, and nothing that was deleted comes back."""

from typing import Any

from serve_app.domain import MirrorPair, Record
from serve_app.observe.backlog import Backlog, Forgotten, Waiting
from serve_app.observe.receipt import id_of, row
from tests.observe.common import PROMPT, pair, record

KIB = 1024


def with_prompt(name: str, size: int) -> Record:
    return record(name, prompt={"prompt": "x" * (size - len("prompt"))})


def filled(*items: Record | MirrorPair, most: int = 10, most_bytes: int = 10 * KIB) -> Backlog[Record | MirrorPair]:
    backlog: Backlog[Record | MirrorPair] = Backlog(most, most_bytes)
    for item in items:
        assert backlog.fits([item])
        backlog.add(item)
    return backlog


def test_items_are_bounded_by_number() -> None:
    backlog = filled(record("1"), record("2"), most=3)
    assert backlog.fits([record("3")])
    assert not backlog.fits([record("3"), record("4")])


def test_items_are_bounded_by_the_text_that_they_hold() -> None:
    backlog = filled(with_prompt("1", 6 * KIB))
    assert backlog.waiting.text_bytes == 6 * KIB
    assert backlog.fits([with_prompt("2", 4 * KIB)])
    assert not backlog.fits([with_prompt("2", 4 * KIB + 1)])
    assert backlog.fits([record("2")])


def test_a_batch_is_bounded_by_number_and_bytes_but_never_empty() -> None:
    backlog = filled(with_prompt("1", 6 * KIB), with_prompt("2", 2 * KIB), record("3"), record("4"))
    assert list(backlog.first(9, 1)) == ["1"]
    assert list(backlog.first(9, 8 * KIB)) == ["1", "2", "3", "4"]
    assert list(backlog.first(3, 8 * KIB)) == ["1", "2", "3"]
    assert list(backlog.first(9, 8 * KIB - 1)) == ["1"]


def test_what_was_sent_gives_its_place_back() -> None:
    backlog = filled(with_prompt("1", 6 * KIB), pair("1"))
    backlog.remove(backlog.first(9, 99 * KIB))
    assert backlog.waiting == Waiting(0, 0)


def test_what_came_anew_while_the_first_was_sent_stays() -> None:
    backlog = filled(with_prompt("1", 6 * KIB))
    sent = backlog.first(1, KIB)
    backlog.add(newer := with_prompt("1", KIB))
    assert backlog.waiting == Waiting(1, KIB)
    backlog.remove(sent)
    assert backlog.get("1") is newer


def test_a_record_and_its_pair_wait_side_by_side() -> None:
    backlog = filled(record("1"), pair("1"))
    assert [id_of(item) for item in backlog.first(9, KIB).values()] == ["1", "1-m"]


def covered(forgotten: Forgotten, **changes: Any) -> list[bool]:
    """Of a receipt and of a pair with these fields."""
    return [forgotten.covers(row(record("1", prompt=PROMPT, **changes))), forgotten.covers(pair("1", **changes))]


def test_what_was_made_before_its_deletion_is_covered() -> None:
    forgotten = Forgotten()
    forgotten.add("a", None, 100.0)
    forgotten.add(None, "s", 200.0)
    forgotten.add("b", "t", 300.0)
    assert covered(forgotten, key="a", session=None, created=100.0) == [True, True]
    assert covered(forgotten, key="a", session="x", created=100.1) == [False, False]
    assert covered(forgotten, key="c", session="s", created=150.0) == [True, True]
    assert covered(forgotten, key="b", session="t", created=250.0) == [True, True]
    assert covered(forgotten, key="b", session="u", created=250.0) == [False, False]
    assert covered(forgotten, key="c", session="t", created=250.0) == [False, False]
    assert covered(forgotten, key=None, session=None, created=1.0) == [False, False]


def test_deletions_are_remembered_up_to_a_bound_and_the_latest_stay() -> None:
    forgotten = Forgotten(most=2)
    for now, key in enumerate(["a", "b", "a", "c"]):
        forgotten.add(key, None, float(now))
    assert [covered(forgotten, key=key, created=0.0)[0] for key in "abc"] == [True, False, True]
