"""Feedback on its way to the ledger: kept when the call returns, bounded, behind the record that it is of."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments import opinions
from serve_app.deployments.clients import HandleLedger
from serve_app.deployments.ledger import BatchWriter
from serve_app.domain import Feedback, Tier
from serve_app.errors import NotReady
from serve_app.observe.receipt import row
from serve_app.observe.store import Store
from serve_app.settings import LedgerSettings
from tests.fakes import FOREVER, soon, until
from tests.observe.common import PROMPT, query, record

SAID = Feedback("a", 1_700_000_100.0, Tier.LARGE, 1.0, by="team-a", key="team-a", session="s-1")


class Handle:
    """The ledger behind it, which may be away or slow."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.broken = False
        self.running = self.most = 0
        self.record = SimpleNamespace(remote=self._record)

    async def _record(self, rows: list[Any]) -> None:
        if self.broken:
            raise RuntimeError("secret")
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        self.batches.append(rows)


def client(handle: Any) -> HandleLedger:
    return HandleLedger(handle, queue=100, batch=50, on_drop=lambda _: None)


async def test_the_record_goes_before_what_is_said_of_it() -> None:
    handle = Handle()
    ledger = client(handle)
    ledger.record(record("a"))
    await ledger.feedback(SAID)
    assert handle.batches == [[row(record("a"))], [SAID]]


async def test_a_ledger_that_is_away_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle()
    handle.broken = True
    with pytest.raises(NotReady, match="ledger does not answer"):
        await client(handle).feedback(SAID)
    handle.broken = False
    handle.gate.clear()
    monkeypatch.setattr(opinions, "LEDGER_S", 0.02)
    with pytest.raises(NotReady, match="ledger does not answer"):
        await soon(client(handle).feedback(SAID))


async def test_few_calls_run_at_a_time_and_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinions, "WAITING", 20)
    handle = Handle()
    handle.gate.clear()
    kept = client(handle)
    calls = [asyncio.create_task(kept.feedback(replace(SAID, decision_id=f"{number}"))) for number in range(20)]
    await until(lambda: handle.running == opinions.AT_ONCE)
    with pytest.raises(NotReady, match="busy"):
        await kept.feedback(SAID)
    handle.gate.set()
    await asyncio.gather(*calls)
    assert (len(handle.batches), handle.most) == (20, opinions.AT_ONCE)
    await kept.feedback(SAID)


async def test_the_writer_keeps_the_last_word_and_lets_none_come_back(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    store = Store(url)
    dropped: list[int] = []
    writer = BatchWriter(store, LedgerSettings(flush_s=0.01), dropped.append)
    writer.take([row(record("a", prompt=PROMPT)), replace(SAID, score=0.0), SAID])
    assert await writer.flush()
    found = await writer.get("a")
    assert found is not None
    assert [said["score"] for said in found["feedback"]] == [1.0]
    await writer.forget(None, "s-1", SAID.created)
    writer.take([SAID])
    writer.take([replace(SAID, decision_id="b", score=None, created=SAID.created + 10)])  # type: ignore[arg-type]  # what the database never takes
    assert await writer.flush()
    assert (query(url, "select * from feedback"), dropped) == ([], []), "feedback is no record: none was dropped"
    store.close()


async def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opinions, "LEDGER_S", FOREVER)
    handle = Handle()
    handle.gate.clear()
    asking = asyncio.create_task(client(handle).feedback(SAID))
    await until(lambda: handle.running)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
