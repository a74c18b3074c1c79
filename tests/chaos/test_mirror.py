"""A mirror that hangs is nobody's wait but its own."""

import asyncio
import itertools

import httpx
import pytest

from tests.chaos.books import metric
from tests.chaos.judge import Answer
from tests.chaos.report import Report
from tests.chaos.requests import EASY, Ask, chat
from tests.chaos.stage import deploy
from tests.chaos.traffic import Traffic, quantile
from tests.graph import Graph, wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

ROUNDS = 4
BLOCK_S = 9.0
SMALL_ALWAYS = {"x-tierwise-threshold": "1"}


def asks(name: str) -> itertools.chain[Ask]:
    """Answered by the small tier; whoever asks the large one hangs there."""
    made = (chat("easy", f"{EASY} large:hang {name}-{number}", stream=bool(number % 2)) for number in itertools.count())
    return itertools.chain(Ask(ask.part, ask.body, SMALL_ALWAYS, expected=ask.expected) for ask in made)


async def block(graph: Graph, name: str, share: float) -> list[Answer]:
    """Traffic with this share of mirrors, once it is in force; its first second warms up."""
    await asyncio.to_thread(deploy, graph, user_config={"mirror_share": share})
    await asyncio.to_thread(wait_for, lambda: _share(graph) == share, 30, "the share to be in force")
    async with Traffic(graph.url, asks(name), rate=10, deadline_s=30) as traffic:
        await asyncio.sleep(BLOCK_S)
    return [answer for answer in traffic.answers if answer.sent > 1.0]


def _share(graph: Graph) -> float:
    return float(httpx.get(f"{graph.url}/status", timeout=10, trust_env=False).json()["live"]["mirror_share"])


async def test_a_hung_mirror(fake: Graph, report: Report) -> None:
    off: list[Answer] = []
    on: list[Answer] = []
    mirrored = metric(fake, "ray_tierwise_mirrors_total")
    await block(fake, "warm-up", 0.0)  # the test before may have left a replica that is still starting
    for number in range(ROUNDS):
        off += await block(fake, f"off-{number}", 0.0)
        on += await block(fake, f"on-{number}", 1.0)
    await asyncio.to_thread(deploy, fake, user_config={"mirror_share": 0.0})
    figures = {
        f"{name}_p{share * 100:.0f}_ms": _ms(answers, share) for name, answers in (("off", off), ("on", on)) for share in (0.5, 0.99)
    }
    change = figures["on_p99_ms"] / figures["off_p99_ms"] - 1
    counted = metric(fake, "ray_tierwise_mirrors_total") - mirrored
    client = (
        f"{len(on)} answers with a hung mirror: p99 {figures['on_p99_ms']:.0f} ms, {figures['off_p99_ms']:.0f} ms without ({change:+.1%})"
    )
    line = {"client": client, "counted": f"{counted:.0f} mirrors counted, none of them answered", "recovery": "none needed"}
    report.line("a mirror that hangs", "fake, default", "test_a_hung_mirror", **line, change=change, **figures)
    assert all(answer.ok and answer.wrong is None and answer.tier == "small" for answer in [*on, *off])
    assert counted > 0
    assert change < 0.05


def _ms(answers: list[Answer], share: float) -> float:
    return round(quantile(sorted(answer.seconds for answer in answers), share) * 1000, 1)
