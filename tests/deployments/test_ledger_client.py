"""The ingress's side of the ledger, where prompts are stored: bounded in bytes, pairs beside records, deletion."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments import clients
from serve_app.deployments.clients import HandleLedger
from serve_app.domain import MirrorPair
from serve_app.errors import NotReady
from serve_app.observe.backlog import MIB, Waiting
from serve_app.observe.receipt import MAX_PROMPT_BYTES, held_bytes, id_of, receipt, row, weight
from tests.fakes import FOREVER, soon
from tests.observe.common import PROMPT, pair, record


class Ledger:
    """The deployment behind the handle: what it was sent, and what it was asked to forget."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.forgotten: list[tuple[str | None, str | None, int]] = []
        self.broken: BaseException | None = None
        self.slow_s = 0.0

    async def record(self, rows: list[Any]) -> None:
        if self.broken is not None:
            raise self.broken
        self.batches.append(rows)

    async def forget(self, key: str | None, session: str | None) -> int:
        await asyncio.sleep(self.slow_s)
        self.forgotten.append((key, session, len(self.rows)))
        return len(self.rows)

    @property
    def rows(self) -> list[Any]:
        return [item for batch in self.batches for item in batch]


class Setting:
    def __init__(self, queue: int = 100, queue_mib: int = 64, *, count_pairs: bool = True) -> None:
        self.ledger = Ledger()
        self.dropped = 0
        self.pairs: list[str] = []
        handle: Any = SimpleNamespace(record=_remote(self.ledger.record), forget=_remote(self.ledger.forget))
        on_pair = self.pairs.append if count_pairs else None
        self.acked: list[str] = []
        self.client = HandleLedger(
            handle,
            queue=queue,
            batch=50,
            on_drop=self.drop,
            queue_mib=queue_mib,
            on_pair=on_pair,
            on_acked=lambda record: self.acked.append(record.id),
        )

    def drop(self, count: int) -> None:
        self.dropped += count


def _remote(method: Callable[..., Any]) -> Any:
    return SimpleNamespace(remote=method)


def sized(size: int) -> dict[str, Any]:
    return {"prompt": "x" * (size - len("prompt"))}


async def test_records_go_with_their_prompts_and_pairs_behind_them() -> None:
    setting = Setting()
    setting.client.record(record("a", prompt=PROMPT))
    setting.client.mirrored(pair("a"))
    assert await setting.client.get("a") == receipt(record("a"))
    assert await setting.client.flush()
    assert setting.ledger.batches == [[row(record("a", prompt=PROMPT)), pair("a")]]


async def test_what_an_ingress_has_not_been_acknowledged_is_what_waits_there() -> None:
    setting = Setting()
    setting.ledger.broken = RuntimeError("away")
    setting.client.record(record("a", prompt=PROMPT))
    setting.client.record(record("b"))
    assert not await setting.client.flush()
    assert setting.client.waiting == Waiting(2, weight(PROMPT))
    setting.ledger.broken = None
    assert await setting.client.flush()
    assert setting.client.waiting == Waiting(0, 0)


async def test_a_record_is_acknowledged_when_the_ledger_has_taken_it_and_not_before() -> None:
    setting = Setting()
    setting.ledger.broken = RuntimeError("away")
    setting.client.record(record("a"))
    setting.client.mirrored(pair("a"))
    assert not await setting.client.flush()
    assert setting.acked == []
    setting.ledger.broken = None
    assert await setting.client.flush()
    assert await setting.client.flush()
    assert setting.acked == ["a"]


async def test_a_prompt_that_finds_no_place_is_left_out_and_its_record_is_not() -> None:
    setting = Setting(queue=1000, queue_mib=1)
    setting.client.record(record("large", prompt=sized(MAX_PROMPT_BYTES + 1)))
    for number in range(5):
        setting.client.record(record(f"{number}", prompt=sized(MAX_PROMPT_BYTES)))
    assert await setting.client.flush()
    assert [id_of(item) for item in setting.ledger.rows if "prompt" in item] == ["0", "1", "2", "3"]
    assert len(setting.ledger.rows) == 6
    assert setting.dropped == 0
    setting.client.record(record("later", prompt=sized(MAX_PROMPT_BYTES)))
    assert await setting.client.flush()
    assert "prompt" in setting.ledger.rows[-1]


@pytest.mark.parametrize(("queue", "queue_mib"), [(1, 64), (100, 1)])
async def test_a_pair_that_finds_no_place_is_counted_apart(queue: int, queue_mib: int) -> None:
    setting = Setting(queue, queue_mib)
    setting.client.record(record("a"))
    setting.client.mirrored(pair("a", answer="x" * MIB))
    assert (setting.pairs, setting.dropped) == (["dropped"], 0)


async def test_nobody_has_to_count_pairs() -> None:
    setting = Setting(queue=1, count_pairs=False)
    for name in ("a", "b"):
        setting.client.mirrored(pair(name))
    assert await setting.client.flush()
    assert [id_of(item) for item in setting.ledger.rows] == ["a-m"]


async def test_one_message_stays_below_what_the_transport_takes() -> None:
    setting = Setting()
    for number in range(20):
        setting.client.record(record(f"{number}", prompt=sized(MAX_PROMPT_BYTES)))
        setting.client.mirrored(pair(f"{number}", answer="x" * MAX_PROMPT_BYTES))
    assert await setting.client.flush()
    assert len(setting.ledger.rows) == 40
    assert max(sum(map(held_bytes, batch)) for batch in setting.ledger.batches) <= clients.MESSAGE_BYTES
    assert sum(isinstance(item, MirrorPair) for item in setting.ledger.rows) == 20


async def test_what_waits_here_is_sent_before_it_is_forgotten() -> None:
    setting = Setting()
    setting.client.record(record("a", prompt=PROMPT))
    assert await setting.client.forget("team-a", "s-1") == 1
    assert setting.ledger.forgotten == [("team-a", "s-1", 1)]


async def test_a_ledger_that_is_down_deletes_nothing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting()
    setting.client.record(record("a"))
    setting.ledger.broken = RuntimeError("secret")
    with pytest.raises(NotReady, match="ledger does not answer"):
        await setting.client.forget("team-a", None)
    assert setting.ledger.forgotten == []
    setting.ledger.broken = None
    setting.ledger.slow_s = FOREVER
    monkeypatch.setattr(clients, "FORGET_S", 0.02)
    with pytest.raises(NotReady, match="ledger does not answer"):
        await soon(setting.client.forget("team-a", None))
