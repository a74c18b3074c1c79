"""Decisions leave the ledger as a file, whole or not at all."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.domain import DecisionQuery
from serve_app.errors import RequestError, TierwiseError
from serve_app.observe import export, reader
from serve_app.observe.receipt import receipt
from serve_app.observe.store import Store
from tests.observe.common import record


@pytest.fixture
def filled(store: Store) -> Store:
    store.write([receipt(record(f"tw-{number}", created=float(number))) for number in range(7)])
    return store


def test_every_decision_is_in_the_file_as_it_is_in_the_ledger(
    filled: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "AT_ONCE", 2)
    assert export.export(url, tmp_path / "out.parquet") == 7
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert rows == filled.page(DecisionQuery(limit=99))[::-1]


def test_a_time_is_from_inclusive_to_exclusive(filled: Store, url: str, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    assert export.export(url, out, since=2.0, until=4.0) == 2
    assert pq.read_table(out)["id"].to_pylist() == ["tw-2", "tw-3"]


def test_receipts_come_along_when_they_are_asked_for(filled: Store, url: str, tmp_path: Path) -> None:
    export.export(url, tmp_path / "out.parquet", receipts=True)
    texts = pq.read_table(tmp_path / "out.parquet")["receipt"].to_pylist()
    assert [json.loads(text) for text in texts] == [filled.get(f"tw-{number}") for number in range(7)]


def test_an_empty_ledger_is_an_empty_file_with_all_columns(store: Store, url: str, tmp_path: Path) -> None:
    assert export.export(url, tmp_path / "out.parquet") == 0
    assert "score" in pq.read_table(tmp_path / "out.parquet").column_names


def test_what_breaks_on_the_way_leaves_the_file_before_and_no_other(filled: Store, url: str, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"before")
    with filled._engine.begin() as connection:
        connection.exec_driver_sql("alter table decisions rename column outcome to ended")
    with pytest.raises(TierwiseError, match="cannot be read"):
        export.export(url, out)
    assert out.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir() if "parquet" in file.name] == ["out.parquet"]


def test_a_reader_cannot_write(filled: Store, url: str) -> None:
    with pytest.raises(TierwiseError, match="cannot be read"), reader.reading(url) as connection:
        connection.exec_driver_sql("delete from decisions")
    assert filled.count() == 7


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such ledger"), reader.reading(f"sqlite:///{tmp_path / 'none.db'}"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_does_not_answer_is_told_without_its_password(tmp_path: Path) -> None:
    command = ["export", "--out", str(tmp_path / "o"), "--ledger", "postgresql+psycopg://me:hunter2@127.0.0.1:1/x?connect_timeout=1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "the ledger cannot be read: OperationalError" in done.output
    assert "hunter2" not in done.output


def test_the_command_writes_what_was_asked_for(sqlite_url: str, tmp_path: Path) -> None:
    store = Store(sqlite_url)
    store.write([receipt(record("tw-1", created=1_795_478_400.0))])  # 2026-11-24
    store.close()
    command = ["export", "--ledger", sqlite_url, "--out", str(tmp_path / "out.parquet"), "--json"]
    for options, count in ([], 1), (["--since", "2026-11-24"], 1), (["--since", "2026-11-24T00:00:01Z"], 0), (["--until", "1795478400"], 0):
        done = CliRunner().invoke(app, [*command, *options])
        assert json.loads(done.output)["decisions"] == count
    assert CliRunner().invoke(app, [*command, "--since", "tomorrow"]).exit_code == 2
