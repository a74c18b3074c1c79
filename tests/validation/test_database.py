"""The ledger's URL: known to SQLAlchemy, its driver installed, and never shown."""

import sys
from pathlib import Path

import pytest

from tests.validation.common import changed, report_of

ENV = "LEDGER_URL_OF_A_TEST"
SECRET = "hunter2"


def said(tmp_path: Path, url: str) -> str:
    report = report_of(tmp_path, changed("args.ledger.url", url))
    assert SECRET not in repr(report)
    return "\n".join(line for line in report.problems if "ledger" in line)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (SECRET, "no URL that SQLAlchemy understands"),
        (f"postgresql+psycopg://me@host:{SECRET}/name", "no URL that SQLAlchemy understands"),
        (f"cassandra://me:{SECRET}@host/name", "names cassandra, which SQLAlchemy does not know"),
        (f"mysql+oursql2://me:{SECRET}@host/name", "names mysql+oursql2, which SQLAlchemy does not know"),
        (f"postgresql+asyncpg://me:{SECRET}@host/name", "asynchronous"),
    ],
)
def test_a_url_that_the_ledger_could_not_use_is_a_problem(tmp_path: Path, url: str, words: str) -> None:
    assert words in said(tmp_path, url)


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    line = said(tmp_path, f"postgresql+psycopg://me:{SECRET}@host/name")
    assert line.startswith("args.ledger.url: needs the driver psycopg, which is not installed here")
    assert "tierwise[postgres]" in line


def test_the_url_of_the_environment_goes_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = changed("args.ledger.url_env", ENV)
    monkeypatch.setenv(ENV, f"cassandra://me:{SECRET}@host/name")
    report = report_of(tmp_path, config)
    assert [line for line in report.problems if ENV in line] == [
        f"args.ledger.url_env: {ENV}: names cassandra, which SQLAlchemy does not know"
    ]
    assert SECRET not in repr(report)
    monkeypatch.setenv(ENV, "sqlite:///here.db")
    report = report_of(tmp_path, config)
    assert not [line for line in report.problems + report.warnings if "ledger" in line]


def test_an_environment_without_the_named_url_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENV, raising=False)
    report = report_of(tmp_path, changed("args.ledger.url_env", ENV))
    assert [line for line in report.warnings if ENV in line]
    assert not [line for line in report.problems if "ledger" in line]
