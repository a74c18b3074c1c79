"""Fewer, larger messages: the first at once, none held long, and nothing left running."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Any

import pytest

from serve_app.deployments.coalesce import coalesce
from tests.fakes import FOREVER, until

HOLD = 0.05


class Source:
    """Yields its items, each after a pause; knows whether it was closed."""

    def __init__(self, items: Iterable[tuple[float, Any]]) -> None:
        self.items = list(items)
        self.given: list[Any] = []
        self.closed = False

    async def stream(self) -> AsyncGenerator[Any]:
        try:
            for pause, item in self.items:
                await asyncio.sleep(pause)
                if isinstance(item, BaseException):
                    raise item
                self.given.append(item)
                yield item
        finally:
            self.closed = True


async def arrivals(source: Source, hold: float = HOLD) -> list[tuple[float, Any]]:
    """Every message and when it came."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    return [(loop.time() - start, message) async for message in coalesce(source.stream(), hold)]


def tasks() -> int:
    return len(asyncio.all_tasks())


async def test_the_first_message_comes_at_once() -> None:
    source = Source([(0, "a"), (FOREVER, "b")])
    stream = coalesce(source.stream(), FOREVER)
    async with asyncio.timeout(2.0):
        assert await anext(stream) == "a"
    await stream.aclose()


async def test_messages_close_together_are_joined() -> None:
    source = Source([(0, "a"), (0, "b"), (0, "c"), (0, "d")])
    assert [message for _, message in await arrivals(source, hold=0.2)] == ["a", "bcd"]


async def test_a_slow_stream_is_not_delayed() -> None:
    """A message that comes later than the hold after the last one goes out at once."""
    source = Source([(0, "a"), (0.05, "b"), (0.05, "c")])
    messages = await arrivals(source, hold=0.01)
    assert [message for _, message in messages] == ["a", "b", "c"]


async def test_no_message_is_held_longer_than_allowed() -> None:
    source = Source([(0, "a"), (0, "b"), (FOREVER, "c")])
    stream = coalesce(source.stream(), HOLD)
    assert await anext(stream) == "a"
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.timeout(10 * HOLD):
        assert await anext(stream) == "b"
    assert loop.time() - started > HOLD / 2
    await stream.aclose()


async def test_the_end_is_not_held_back() -> None:
    source = Source([(0, "a"), (0, "b")])
    async with asyncio.timeout(2.0):
        assert [message for _, message in await arrivals(source, hold=FOREVER)] == ["a", "b"]


async def test_nothing_is_lost_or_reordered() -> None:
    source = Source([(0.0005 * (i % 3), f"{i},") for i in range(200)])
    messages = await arrivals(source, hold=0.005)
    assert "".join(message for _, message in messages) == "".join(f"{i}," for i in range(200))
    assert len(messages) < 200


async def test_a_dict_passes_alone_and_unchanged() -> None:
    answer = {"choices": []}
    assert [message for _, message in await arrivals(Source([(0, answer)]))] == [answer]
    mixed = Source([(0, "a"), (0, "b"), (0, answer)])
    assert [message for _, message in await arrivals(mixed)] == ["a", "b", answer]


async def test_an_empty_source_gives_nothing() -> None:
    assert await arrivals(Source([])) == []


async def test_an_error_comes_after_what_was_before_it() -> None:
    source = Source([(0, "a"), (0, "b"), (0, KeyError("broken"))])
    stream = coalesce(source.stream(), HOLD)
    assert await anext(stream) == "a"
    assert await anext(stream) == "b"
    with pytest.raises(KeyError, match="broken"):
        await anext(stream)
    assert source.closed


async def test_closing_closes_the_source_and_leaves_no_task() -> None:
    before = tasks()
    source = Source([(0, "a"), (FOREVER, "b")])
    stream = coalesce(source.stream(), HOLD)
    await anext(stream)
    assert tasks() == before + 1
    await stream.aclose()
    assert source.closed
    assert tasks() == before


async def test_cancelling_the_reader_closes_the_source_and_leaves_no_task() -> None:
    before = tasks()
    source = Source([(0, "a"), (FOREVER, "b")])
    reading = asyncio.create_task(arrivals(source))
    await until(lambda: source.given)
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.closed
    assert tasks() == before


async def test_a_whole_stream_leaves_no_task() -> None:
    before = tasks()
    source = Source([(0, "a"), (0, "b")])
    await arrivals(source)
    assert source.closed
    assert tasks() == before
