from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from serve_app.observe.store import Store
from tests.observe import postgres

NUMBERS = count()


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[Path]:
    if (programs := postgres.binaries()) is None:
        pytest.skip("PostgreSQL is not installed: the ledger is tested on SQLite alone")
    with postgres.running(programs) as folder:
        yield folder


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Of an empty database, on each of the two that the ledger knows."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    return postgres.new_database(request.getfixturevalue("postgres_socket"), f"ledger_{next(NUMBERS)}")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    one = Store(url)
    yield one
    one.close()
