"""Pages of decisions, from the database to the ingress: readers never keep the writer waiting."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments import clients
from serve_app.deployments.clients import HandleLedger
from serve_app.deployments.ledger import PAGES, READERS
from serve_app.domain import DecisionQuery
from serve_app.errors import NotReady
from serve_app.observe.artefacts import PART_BYTES
from serve_app.observe.receipt import row
from tests.deployments.test_ledger_server import deployed, stop
from tests.deployments.test_ledger_server import url as url  # noqa: PLC0414 - a fixture
from tests.fakes import FOREVER, soon
from tests.observe.common import record


async def test_what_is_written_is_listed(url: str) -> None:
    server = await deployed(url)
    await server.record([row(record("tw-1")), row(record("tw-2", created=1.0))])
    assert [found["id"] for found in await server.page(DecisionQuery(limit=9))] == ["tw-1", "tw-2"]
    await stop(server)


async def test_any_number_of_slow_readers_leaves_the_writer_a_thread_and_a_place(url: str) -> None:
    server = await deployed(url)
    most, inside, release = 0, 0, threading.Event()

    def slow(_: DecisionQuery) -> list[Any]:
        nonlocal most, inside
        inside += 1
        most = max(most, inside)
        release.wait(10)
        inside -= 1
        return []

    server._store.page = slow
    readers = [asyncio.create_task(server.page(DecisionQuery(limit=9))) for _ in range(50)]
    await soon(server.record([row(record("tw-1"))]))
    refused = [reader for reader in readers if reader.done()]
    assert len(refused) == 50 - PAGES, "Serve has 64 places here"
    assert all(isinstance(reader.exception(), NotReady) for reader in refused)
    release.set()
    assert await asyncio.gather(*(reader for reader in readers if reader not in refused)) == [[]] * PAGES
    assert most == READERS
    assert await server.page(DecisionQuery(limit=9)) == [], "places are given back"
    await stop(server)


async def test_an_artefact_is_read_beside_pages_in_parts(url: str) -> None:
    server = await deployed(url)
    name = server._store.artefacts.put(b"x" * PART_BYTES + b"rest", kind="gain", embedder="", report={}, created=0.0)
    first, second = await server.artefact(name, 0), await server.artefact(name, PART_BYTES)
    assert (first.size, len(first.data), second.data) == (PART_BYTES + 4, PART_BYTES, b"rest")
    assert await server.artefact("0" * 64, 0) is None
    server._pages = PAGES
    with pytest.raises(NotReady, match="busy"):
        await server.artefact(name, 0)
    await stop(server)


def client(page: Any) -> HandleLedger:
    handle: Any = SimpleNamespace(page=SimpleNamespace(remote=page))
    return HandleLedger(handle, queue=9, batch=9, on_drop=lambda _: None)


async def test_the_ingress_passes_the_query_on() -> None:
    asked = []

    async def page(query: DecisionQuery) -> list[Any]:
        asked.append(query)
        return [{"id": "tw-1"}]

    assert await client(page).page(DecisionQuery(limit=3, tier="small")) == [{"id": "tw-1"}]
    assert asked == [DecisionQuery(limit=3, tier="small")]


@pytest.mark.parametrize("broken", [True, False])
async def test_a_ledger_that_breaks_or_hangs_is_a_503(monkeypatch: pytest.MonkeyPatch, broken: bool) -> None:
    monkeypatch.setattr(clients, "LEDGER_S", 0.05)

    async def page(_: DecisionQuery) -> list[Any]:
        if broken:
            raise RuntimeError("secret internal text")
        await asyncio.sleep(FOREVER)
        return []

    with pytest.raises(NotReady, match="The ledger does not answer"):
        await soon(client(page).page(DecisionQuery(limit=3)))
