"""Fewer, larger messages between replicas: the first token at once, later ones together, none held long."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def coalesce(source: AsyncGenerator[T], hold_s: float) -> AsyncGenerator[T | str]:
    """Join strings of `source` that arrive within `hold_s` seconds of the last message sent.

    A message that comes later than that is passed on at once, so that a slow stream is not delayed at all. Anything
    but a string is passed on alone. Closing this generator closes `source`; what `source` raises is raised here.
    """
    arrived: list[T] = []
    news = asyncio.Event()

    async def pump() -> None:
        try:
            async with aclosing(source) as items:
                async for item in items:
                    arrived.append(item)
                    news.set()
        finally:
            news.set()

    loop = asyncio.get_running_loop()
    pumping = asyncio.create_task(pump())
    last = loop.time() - hold_s
    try:
        while not pumping.done() or arrived:
            await news.wait()
            if (wait := last + hold_s - loop.time()) > 0:
                await asyncio.wait({pumping}, timeout=wait)
            news.clear()
            batch, arrived[:] = list(arrived), []
            for message in _joined(batch):
                yield message
            last = loop.time()
            if pumping.done():
                news.set()
        await pumping
    finally:
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)


def _joined(batch: list[T]) -> list[T | str]:
    if all(isinstance(item, str) for item in batch):
        return ["".join(str(item) for item in batch)] if batch else []
    return list(batch)
