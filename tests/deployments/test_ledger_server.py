"""The ledger's deployment over a real database: what one replica knew, the next one knows."""

import asyncio
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from serve_app.deployments import ledger
from serve_app.deployments.ledger import LedgerServer
from serve_app.observe.metrics import Metric
from serve_app.observe.receipt import row, weight
from serve_app.observe.store import Store
from serve_app.settings import LedgerSettings
from tests.fakes import until
from tests.observe.common import PROMPT, pair, query, record


class NoMetrics:
    shown: ClassVar[list[tuple[str, float, dict[str, str]]]] = []

    def add(self, *_: Any) -> None: ...

    def set(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        self.shown.append((metric.name, value, labels))


class Deployed(LedgerServer):
    def __del__(self) -> None:  # type: ignore[override]
        """Serve awaits the real one; a collector cannot."""


async def deployed(url: str, **settings: Any) -> Any:
    server: Any = Deployed.__new__(Deployed)
    await LedgerServer.__init__(server, LedgerSettings(url=url, flush_s=0.01, **settings))
    return server


async def stop(server: Any) -> None:
    for task in server._tasks.values():
        task.cancel()
    await asyncio.gather(*server._tasks.values(), return_exceptions=True)
    server._writer._store.close()


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ledger, "RayBackend", NoMetrics)
    return f"sqlite:///{tmp_path / 'ledger.db'}"


async def test_a_deletion_outlives_the_ledger(url: str) -> None:
    """A record that an ingress still had comes to the next one."""
    first, made = await deployed(url), time.time()
    await first.forget(None, "s-1")
    await stop(first)
    second = await deployed(url)
    await second.record([row(record("late", prompt=PROMPT, created=made)), pair("late", created=made)])
    assert (await second.get("late"))["session"] is None
    assert (query(url, "select * from prompts"), query(url, "select * from mirrors")) == ([], [])
    await stop(second)


async def test_a_new_ledger_counts_every_dollar_once(url: str) -> None:
    """The batch that the old one had committed, and whose answer was lost, is sent again."""
    now = time.time()
    cost = record("a").cost_usd

    async def spent(server: Any, records: int) -> None:
        await until(lambda: server._quotas.sync("one", [], ["team-a"], now)["spent"])
        assert (await server.sync_quotas("one", [], ["team-a"]))["spent"]["team-a"] == pytest.approx(records * cost)

    first = await deployed(url)
    await first.record([row(record("a", created=now))])
    await spent(first, 1)
    await first.record([row(record("b", created=now))])
    await spent(first, 2)
    await stop(first)
    second = await deployed(url)
    await spent(second, 2)
    await second.record([row(record("a", created=now)), row(record("b", created=now)), row(record("c", created=now))])
    await spent(second, 3)
    await stop(second)


async def test_the_deployment_shows_what_waits_to_be_written_until_it_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "SHOW_S", 0.01)
    NoMetrics.shown.clear()
    server = await deployed(url)
    async with server._writer.between_batches():
        kept = asyncio.create_task(server.record([row(record("a", prompt=PROMPT)), row(record("b"))]))
        await until(lambda: ("tierwise_ledger_backlog_records", 2, {"at": "ledger"}) in NoMetrics.shown)
        assert ("tierwise_ledger_backlog_bytes", weight(PROMPT), {"at": "ledger"}) in NoMetrics.shown
    await kept
    NoMetrics.shown.clear()
    await until(lambda: NoMetrics.shown[-1:] == [("tierwise_ledger_backlog_bytes", 0, {"at": "ledger"})])
    assert ("tierwise_ledger_backlog_records", 0, {"at": "ledger"}) in NoMetrics.shown
    await stop(server)


async def test_the_deployment_prunes_at_its_start_keeps_and_forgets(url: str) -> None:
    earlier = Store(url)
    earlier.write([row(record("old", prompt=PROMPT, created=time.time() - 2 * 86_400))])
    earlier.close()
    server = await deployed(url, prompt_days=1)
    await server.record([row(record("new", prompt=PROMPT, created=time.time())), pair("new", created=time.time())])
    assert (await server.get("new"))["session"] == "s-1"
    await server.check_health()
    look = Store(url)
    await until(lambda: [found["decision_id"] for found in query(url, "select decision_id from prompts")] == ["new"])
    assert [await server.forget("team-a", "s-1"), await server.forget("team-a", None)] == [2, 0]
    assert (query(url, "select * from prompts"), look.mirrors(9), look.count()) == ([], [], 2)
    assert (await server.get("new"))["session"] is None
    look.close()
    await stop(server)
    with pytest.raises(RuntimeError, match="writer stopped"):
        await server.check_health()
