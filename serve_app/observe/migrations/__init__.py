"""The ledger's database, version by version: brought to the newest one when the ledger starts, on SQLite and PostgreSQL.

A database from before there were versions is adopted by the first one: it adds what is missing and touches nothing else.
"""

import threading
from pathlib import Path

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError

from serve_app.errors import SettingsError

HERE = Path(__file__).parent
LOCK = 8_436_201_977  # of PostgreSQL's advisory locks; any number that nobody else takes
WAIT_MS = 120_000  # for another start that is bringing the same database up to date
ONE_AT_A_TIME = threading.Lock()  # Alembic keeps what it works on in its module
NEWER = "the ledger's database is not of this version of tierwise, but perhaps of a newer one"


def upgrade(engine: sa.Engine) -> None:
    """In one transaction, so that a start that dies leaves the database as it was. Starts at the same time come one after another.

    Raises `SettingsError` for a database that a newer version has written.
    """
    with ONE_AT_A_TIME:
        try:
            with engine.connect() as connection:
                _lock(connection)
                _apply(connection)
                connection.commit()
        finally:
            engine.dispose()  # the connection that waits so long is for this alone


def steps() -> ScriptDirectory:
    return ScriptDirectory(str(HERE))


def _lock(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {WAIT_MS}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver would begin only at the first row, after the tables
    else:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))


def _apply(connection: sa.Connection) -> None:
    """Alembic's own command would run a file of ours for it; this is what that comes to."""
    context, scripts = MigrationContext.configure(connection), steps()
    try:
        ahead = list(scripts.iterate_revisions("head", context.get_current_heads()))
    except RevisionError as error:
        raise SettingsError([f"{NEWER}: {error}"]) from None
    for script in reversed(ahead):
        with Operations.context(context):
            script.module.upgrade()
        context.stamp(scripts, script.revision)
