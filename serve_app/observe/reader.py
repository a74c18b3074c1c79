"""A ledger's database opened for reading only, and read in batches; by the command line, beside a ledger that may be writing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from serve_app.errors import RequestError, TierwiseError
from serve_app.observe.tables import decisions

AT_ONCE = 10_000  # rows in memory


@contextmanager
def reading(url: str) -> Iterator[sa.Connection]:
    """A connection that cannot write. Raises `TierwiseError` in one line, without the URL: it may hold a password."""
    try:
        engine = sa.create_engine(_read_only(url))
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):
        raise RequestError("the ledger's URL is none that SQLAlchemy understands, or its driver is not installed") from None
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection
    except SQLAlchemyError as error:
        raise TierwiseError(f"the ledger cannot be read: {type(error).__name__}: is it one, and was it written by this version?") from None
    finally:
        engine.dispose()


def _read_only(url: str) -> sa.URL:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return parsed
    if not Path(parsed.database).is_file():
        raise RequestError(f"{parsed.database}: there is no such ledger")
    return parsed.set(database=f"file:{quote(parsed.database)}", query={"mode": "ro", "uri": "true"})


def rows(connection: sa.Connection, wanted: sa.Select[Any], at_once: int = AT_ONCE) -> Iterator[Sequence[Mapping[Any, Any]]]:
    """Batch by batch: neither side holds all of them."""
    with connection.execution_options(stream_results=True, yield_per=at_once).execute(wanted) as found:
        yield from found.mappings().partitions()


def between(since: float | None, until: float | None) -> list[sa.ColumnElement[bool]]:
    """Decisions made in [since, until), Unix time."""
    bounds = ((decisions.c.created.__ge__, since), (decisions.c.created.__lt__, until))
    return [compare(moment) for compare, moment in bounds if moment is not None]
