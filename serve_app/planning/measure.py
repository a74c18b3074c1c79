"""Drive one tier of a running endpoint at several loads and keep what each answer took: what the engine model is fitted to.

Every request has a prompt of its own, so that no prefix is cached, and an answer of a length that was asked for, so that two loads
differ in nothing but their load.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from serve_app.domain import Json
from serve_app.errors import TierwiseError

WORDS = ("river", "copper", "seven", "window", "market", "slow", "green", "paper", "north", "engine", "quiet", "field", "under", "glass")
MOST_ROWS = 100_000
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Timed:
    """One answer. `at` is seconds from the start of its block; `load` is the share of the saturated rate that was asked for."""

    block: int
    load: float
    at: float
    prompt_tokens: int
    output_tokens: int
    ttft_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Course:
    """What is driven: `rounds` times each load for `block_s` seconds, after a pilot with `workers` requests at a time.

    Many short rounds, so that a machine that is slower for a while is slower at every load.
    """

    tier: str = "small"
    loads: tuple[float, ...] = (0.25, 0.5, 0.65, 0.85)
    rounds: int = 6
    block_s: float = 10.0
    pilot_s: float = 15.0
    workers: int = 16
    prompt_words: tuple[int, int] = (10, 120)
    output_tokens: tuple[int, int] = (16, 128)


def drive(url: str, api_key: str, course: Course, *, seed: int, say: Say) -> list[Timed]:
    """Raises `TierwiseError` when the endpoint does not answer, or refuses most of the pilot."""
    return asyncio.run(_drive(url, api_key, course, random.Random(seed), say))


async def _drive(url: str, api_key: str, course: Course, rng: random.Random, say: Say) -> list[Timed]:
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    limits = httpx.Limits(max_connections=512)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120.0, limits=limits) as client:
        driver = Driver(client, course, rng)
        rate = await driver.pilot()
        say(f"saturated by {course.workers} at a time: {rate:.2f} requests/s")
        rows: list[Timed] = []
        for block, load in enumerate([load for _ in range(course.rounds) for load in course.loads]):
            found = await driver.block(block, load, rate * load)
            say(f"block {block}, load {load:.0%}: {len(found)} answers")
            rows += found
    return rows


class Driver:
    """Sends requests to one endpoint. Owns nothing but the course of its random numbers."""

    def __init__(self, client: httpx.AsyncClient, course: Course, rng: random.Random) -> None:
        self._client, self._course, self._rng = client, course, rng

    async def pilot(self) -> float:
        """Requests a second when all places are always taken, the first and the last answers left out."""
        began, course, ends = time.monotonic(), self._course, list[float]()

        async def worker() -> None:
            while time.monotonic() - began < course.pilot_s:
                if await self._ask(0, 1.0, 0.0) is not None:
                    ends.append(time.monotonic() - began)

        await asyncio.gather(*(worker() for _ in range(course.workers)))
        steady = [end for end in ends if 0.2 * course.pilot_s <= end <= course.pilot_s]
        if len(steady) < 5:
            said = f"{len(steady)} answers in {course.pilot_s:g} s, too few to find its speed: is tierwise running?"
            raise TierwiseError(f"{self._client.base_url}: {said}")
        return len(steady) / (0.8 * course.pilot_s)

    async def block(self, block: int, load: float, rate: float) -> list[Timed]:
        """Poisson arrivals: the next one comes whether or not the last was answered."""
        began, tasks = time.monotonic(), list[asyncio.Task[Timed | None]]()
        at = self._rng.expovariate(rate)
        while at < self._course.block_s:
            await asyncio.sleep(max(at - (time.monotonic() - began), 0.0))
            tasks.append(asyncio.create_task(self._ask(block, load, time.monotonic() - began)))
            at += self._rng.expovariate(rate)
        return [row for row in await asyncio.gather(*tasks) if row is not None]

    async def _ask(self, block: int, load: float, at: float) -> Timed | None:
        """None where it was refused or broke off: the block shows it by its count."""
        began, first, usage = time.monotonic(), None, None
        try:
            async with self._client.stream("POST", "/v1/chat/completions", json=self._body()) as answer:
                if answer.status_code != httpx.codes.OK:
                    return None
                async for line in answer.aiter_lines():
                    chunk = _chunk(line)
                    if first is None and _has_text(chunk):
                        first = time.monotonic() - began
                    usage = chunk.get("usage") or usage
        except httpx.HTTPError:
            await asyncio.sleep(0.1)  # nobody listens: the pilot must not spin
            return None
        if first is None or usage is None:
            return None
        return Timed(block, load, at, usage["prompt_tokens"], usage["completion_tokens"], first, time.monotonic() - began)

    def _body(self) -> Json:
        course, rng = self._course, self._rng
        words = " ".join(rng.choices(WORDS, k=rng.randint(*course.prompt_words)))
        tokens = rng.randint(*course.output_tokens)
        message = {"role": "user", "content": f"{rng.random()} {words}"}
        lengths = {"max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True}
        return {"model": course.tier, "messages": [message], "stream": True, "stream_options": {"include_usage": True}, **lengths}


def _chunk(line: str) -> Json:
    if not line.startswith("data: {"):
        return {}
    found = json.loads(line.removeprefix("data: "))
    return found if isinstance(found, dict) else {}


def _has_text(chunk: Json) -> bool:
    return any((choice.get("delta") or {}).get("content") for choice in chunk.get("choices") or [])


def write(rows: Sequence[Timed], path: Path) -> None:
    path.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")


def read(path: Path) -> list[Timed]:
    """Raises `TierwiseError` naming the file and the line that is none of ours."""
    rows: list[Timed] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[:MOST_ROWS], start=1):
        try:
            rows.append(Timed(**json.loads(line)))
        except (ValueError, TypeError):
            raise TierwiseError(f"{path}:{number}: not a measured answer") from None
    return rows
