"""A steady, open-loop stream of requests: the next one is sent when its time has come, whether or not the last one is back."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import httpx

from tests.chaos.judge import Answer, Reply, judge
from tests.chaos.requests import Ask

IN_A_ROW = 5
Normal = Callable[[Answer], bool | None]  # None: this answer says nothing of the part in question


class Traffic:
    """Owns its connections and the requests in flight, which its rate and its deadline bound. `answers` in order of arrival."""

    def __init__(self, url: str, asks: Iterator[Ask], *, rate: float, deadline_s: float) -> None:
        self.answers: list[Answer] = []
        self.sent = 0
        self._asks = asks
        self._rate = rate
        self._deadline_s = deadline_s
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
        self._client = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(None), limits=limits, trust_env=False)
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._started = asyncio.get_running_loop().time()
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops sending, and waits for what is on its way: every request has its deadline."""
        self._sending.cancel()
        await asyncio.gather(self._sending, *self._open, return_exceptions=True)
        await self._client.aclose()

    def now(self) -> float:
        return asyncio.get_running_loop().time() - self._started

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait while the traffic goes on; whether `condition` came to hold."""
        end = self.now() + seconds
        while self.now() < end:
            if condition():
                return True
            await asyncio.sleep(0.1)
        return condition()

    async def _send(self) -> None:
        for number, ask in enumerate(self._asks):
            await asyncio.sleep(max(0.0, number / self._rate - self.now()))
            self.sent += 1
            task = asyncio.create_task(self._one(ask))
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _one(self, ask: Ask) -> None:
        self.answers.append(await once(self._client, ask, self._deadline_s, self.now))


async def once(client: httpx.AsyncClient, ask: Ask, deadline_s: float, now: Callable[[], float]) -> Answer:
    """Send one request and judge its answer."""
    sent = now()
    head: httpx.Response | None = None
    pieces: list[str] = []
    broken = None
    try:
        async with (
            asyncio.timeout(deadline_s),
            client.stream("POST" if ask.body is not None else "GET", ask.path, json=ask.body, headers=dict(ask.headers)) as head,
        ):
            async for piece in head.aiter_text():
                pieces.append(piece)  # noqa: PERF401 - what came before a break counts
    except TimeoutError:
        return Answer(ask.part, ask.stream, sent, now() - sent, status=head.status_code if head else None, hung=True)
    except httpx.HTTPError as error:
        broken = type(error).__name__
    if head is None:
        return Answer(ask.part, ask.stream, sent, now() - sent, error=broken)
    return judge(ask, Reply(head.status_code, head.headers, "".join(pieces), broken), sent, now() - sent)


@dataclass(frozen=True, slots=True)
class Recovery:
    """`seconds` from a fault to the first of five normal answers in a row; 0 when nothing abnormal was seen, infinite while it lasts."""

    noticed: bool
    seconds: float


def recovery(answers: list[Answer], fault: float, normal: Normal) -> Recovery:
    """By the order of sending, among requests that were on their way or sent after the fault."""
    after = sorted((a for a in answers if a.sent + a.seconds >= fault and normal(a) is not None), key=lambda a: a.sent)
    first_bad = next((i for i, a in enumerate(after) if not normal(a)), None)
    if first_bad is None:
        enough = sum(a.sent >= fault for a in after) >= IN_A_ROW
        return Recovery(noticed=False, seconds=0.0 if enough else math.inf)
    for i in range(first_bad, len(after) - IN_A_ROW + 1):
        if all(normal(a) for a in after[i : i + IN_A_ROW]):
            return Recovery(noticed=True, seconds=max(0.0, after[i].sent + after[i].seconds - fault))
    return Recovery(noticed=True, seconds=math.inf)


def figures(answers: list[Answer]) -> dict[str, Any]:
    """What a client sees, counted."""
    failed = Counter(a.kind_of_failure for a in answers if not a.ok)
    slow = sorted(a.seconds for a in answers if a.ok)
    return {
        "sent": len(answers),
        "ok": sum(a.ok for a in answers),
        "failed": dict(failed.most_common()),
        "retried": sum(a.retried for a in answers),
        "degraded": sum(a.degraded for a in answers),
        "hung": sum(a.hung for a in answers),
        "wrong": sum(a.wrong is not None for a in answers),
        "wrongs": sorted({a.wrong for a in answers if a.wrong is not None})[:3],
        "p50_s": round(quantile(slow, 0.5), 3),
        "p99_s": round(quantile(slow, 0.99), 3),
        "longest_s": round(max((a.seconds for a in answers), default=0.0), 2),
    }


def quantile(ordered: list[float], share: float) -> float:
    """The nearest rank; 0 of nothing."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
