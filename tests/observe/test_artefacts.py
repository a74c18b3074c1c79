"""Artefacts by their hashes in both databases, and the history of what was put live."""

import hashlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from serve_app.errors import CalibrationError, RequestError
from serve_app.observe import artefacts as kept
from serve_app.observe.artefacts import Artefacts, Promotion
from serve_app.observe.receipt import row
from serve_app.observe.store import Store
from tests.observe.common import query, record

BLOB = bytes(range(256)) * 40
NAME = hashlib.sha256(BLOB).hexdigest()


@pytest.fixture
def shelf(store: Store) -> Iterator[Artefacts]:
    return store.artefacts


def put(shelf: Artefacts, blob: bytes = BLOB, **changes: object) -> str:
    given = {"kind": "gain", "embedder": "", "report": {"apgr": 0.6}, "created": 1.0}
    return shelf.put(blob, **{**given, **changes})


def test_an_artefact_comes_back_by_its_hash_whole_and_in_parts(shelf: Artefacts) -> None:
    assert put(shelf) == NAME
    assert shelf.get(NAME) == BLOB
    parts = [shelf.part(NAME, start, 4000) for start in (0, 4000, 8000, 12_000)]
    assert b"".join(part.data for part in parts) == BLOB
    assert [(part.size, len(part.data)) for part in parts] == [(len(BLOB), size) for size in (4000, 4000, 2240, 0)]
    assert (shelf.get("0" * 64), shelf.part("0" * 64, 0)) == (None, None)


def test_what_is_there_is_never_changed(shelf: Artefacts, url: str) -> None:
    put(shelf)
    put(shelf, created=2.0, kind="label", forced=True)
    assert query(url, "select created, kind, size, report from artefacts") == [
        {"created": 1.0, "kind": "gain", "size": len(BLOB), "report": '{"apgr": 0.6}'}
    ]


def test_a_damaged_artefact_is_not_given_out_and_may_be_put_again(shelf: Artefacts, store: Store) -> None:
    put(shelf)
    with store._engine.begin() as connection:
        connection.execute(sa.update(kept.artefacts).values(blob=BLOB[:-1] + b"x"))
    with pytest.raises(CalibrationError, match=f"{NAME[:12]} in the ledger is damaged"):
        shelf.get(NAME)
    put(shelf)
    assert shelf.get(NAME) == BLOB


def test_an_artefact_that_is_too_large_is_refused(shelf: Artefacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_BYTES", 100)
    with pytest.raises(RequestError, match="10240 bytes, 100 at most"):
        put(shelf)
    assert shelf.get(NAME) is None


def test_a_second_writer_does_not_keep_records_away(store: Store, url: str) -> None:
    """`tierwise promote` writes beside the ledger that runs."""
    other = Store(url)
    store.write([row(record("before"))])
    put(other.artefacts)
    store.write([row(record("after"))])
    assert (store.artefacts.get(NAME), store.count()) == (BLOB, 2)
    other.close()


def test_the_history_of_an_application_comes_oldest_first(shelf: Artefacts) -> None:
    first = Promotion(1.0, "tierwise", "promote", NAME, "profile", "ann", None, 0.7, forced=True, gate={"problems": ["few"]})
    second = Promotion(2.0, "tierwise", "rollback", "profile", NAME, "bob", threshold=0.7)
    for line in (first, Promotion(1.5, "another", "promote", NAME, "profile", "ann"), second):
        shelf.promoted(line)
    assert shelf.history("tierwise") == [first, second]
    assert [line.application for line in shelf.history(most=2)] == ["another", "tierwise"]
