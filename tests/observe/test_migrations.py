"""A database of any earlier version goes on, and starts at the same time do not meet in it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from serve_app.errors import SettingsError
from serve_app.observe import migrations
from serve_app.observe.receipt import row
from serve_app.observe.store import Store
from serve_app.observe.tables import attempt_rows, attempts, decision_row, decisions, metadata, mirror_row, mirrors
from tests.observe.common import pair, query, record

BEFORE = Path(__file__).parent / "before_versions"


def before_versions(url: str) -> None:
    """What the last tierwise without versions left behind, with rows in it."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in (BEFORE / f"{engine.dialect.name}.sql").read_text().split(";")[:-1]:
            connection.exec_driver_sql(statement)
        receipt = row(record("tw-1"))
        connection.execute(decisions.insert(), [{n: v for n, v in decision_row(receipt).items() if n != "own_threshold"}])
        connection.execute(attempts.insert(), attempt_rows(receipt))
        connection.execute(mirrors.insert(), [mirror_row(pair("tw-1"))])
    engine.dispose()


def everything(url: str) -> list[list[dict[str, object]]]:
    return [query(url, f"select * from {table}") for table in ("decisions", "attempts", "mirrors")]  # noqa: S608 - ours


def test_the_steps_lead_to_the_tables_as_they_are_used(store: Store) -> None:
    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []


def test_a_database_from_before_versions_is_adopted_with_every_row(url: str) -> None:
    before_versions(url)
    before = everything(url)
    for _ in range(2):  # the second start finds nothing to do
        store = Store(url)
        store.write([row(record("tw-1", key="another")), row(record("tw-2", created=1.0))])
        with store._engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        store.close()
    after = everything(url)
    before[0][0]["own_threshold"] = None
    assert [[r for r in rows if "tw-2" not in r.values()] for rows in after] == before
    assert [len(rows) for rows in after] == [2, 4, 1]
    assert query(url, "select version_num from alembic_version") == [{"version_num": newest()}]


def newest() -> str | None:
    return migrations.steps().get_current_head()


def test_starts_at_the_same_time_come_one_after_another(url: str) -> None:
    before_versions(url)
    with ThreadPoolExecutor(4) as pool:
        for store in pool.map(Store, [url] * 4):
            assert store.count() == 1
            store.close()


def test_a_step_that_breaks_leaves_the_database_as_it_was(url: str) -> None:
    before_versions(url)
    engine = sa.create_engine(url)
    with engine.begin() as connection:  # the last step drops this index
        connection.exec_driver_sql("drop index ix_decisions_created")
        connection.exec_driver_sql("create table ix_decisions_listing (x integer)")
    before = sorted(sa.inspect(engine).get_table_names())
    with pytest.raises(sa.exc.DBAPIError, match="ix_decisions_listing"):
        Store(url)
    sa.inspect(engine).clear_cache()
    assert sorted(sa.inspect(engine).get_table_names()) == before
    engine.dispose()


def test_a_database_of_a_newer_version_is_refused_in_words(url: str) -> None:
    Store(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")
    engine.dispose()
    with pytest.raises(SettingsError, match="newer"):
        Store(url)


def test_every_step_is_in_the_package() -> None:
    steps = {script.revision for script in migrations.steps().walk_revisions()}
    assert steps == {file.stem[1:5] for file in (migrations.HERE / "versions").glob("v*.py")}
