"""What the scenarios have in common: what is normal for a part of the graph, and a kill under traffic."""

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.books import Balance, Books, Page, metric
from tests.chaos.judge import Answer
from tests.chaos.processes import Processes, kill
from tests.chaos.report import Report, client_view, seconds
from tests.chaos.requests import Ask
from tests.chaos.traffic import Normal, Recovery, Traffic, figures, recovery
from tests.graph import Graph

RATE = 10.0
DEADLINE_S = 30.0  # beyond the endpoint's own 20 s: what reaches it hangs
UNNOTICED_S = 8.0
LONG_S = 2.0  # an answer takes 0.3 s here
BACK_S = 60.0
COUNTED = {name: f"ray_tierwise_{name}_total" for name in ("retries", "signal_faults", "records_dropped", "skipped_chunks")}


def of_tier(tier: str, long_s: float = LONG_S) -> Normal:
    """Normal is an answer of this tier at its first try and without a long wait, to a request that named it."""
    return lambda a: (a.ok and a.tier == tier and not a.retried and a.seconds < long_s) if a.part == tier else None


def of_signal(index: int) -> Normal:
    """Normal is a score that had this signal: 0 the embedding, 1 the self-assessment. Streams do not tell."""
    return lambda a: (a.ok and a.states[index] == "ok") if a.part in ("easy", "hard") and not (a.ok and a.stream) else None


def of_any(answer: Answer) -> bool | None:
    return answer.ok and answer.seconds < LONG_S if answer.part != "receipt" else None


def of_receipts(answer: Answer) -> bool | None:
    return answer.ok if answer.part == "receipt" else None


def with_receipts(asks: Iterator[Ask], answers: list[Answer]) -> Iterator[Ask]:
    """Between the requests, the receipt of the last one that was answered."""
    for number, ask in enumerate(asks):
        yield ask
        ids = [a.decision_id for a in answers[-20:] if a.ok and a.decision_id is not None]
        if ids and number % 3 == 0:
            yield Ask("receipt", path=f"/v1/decisions/{ids[-1]}")


async def killed(
    graph: Graph,
    asks: Iterator[Ask],
    find: Callable[[Processes], int],
    normal: Normal,
    *,
    rate: float = RATE,
    deadline_s: float = DEADLINE_S,
    back_s: float = BACK_S,
) -> tuple[list[Answer], Recovery]:
    """Kill what `find` names and keep the traffic up until its part is normal again and the process is a new one."""
    processes = Processes(graph)
    answers: list[Answer] = []
    async with Traffic(graph.url, with_receipts(asks, answers), rate=rate, deadline_s=deadline_s) as traffic:
        traffic.answers = answers
        await asyncio.sleep(3)
        old = await asyncio.to_thread(find, processes)
        fault = traffic.now()
        kill(old)

        await settled(traffic, fault, normal, back_s)
        await asyncio.to_thread(processes.wait_for_new, lambda: find(processes), old, back_s)
        await settled(traffic, fault, normal, back_s)
    return answers, recovery(answers, fault, normal)


async def settled(traffic: Traffic, fault: float, normal: Normal, seconds: float) -> None:
    """Keep the traffic up until its part is normal, and still is when all that was under way is back."""
    end = traffic.now() + seconds

    def back() -> bool:
        seen = recovery(traffic.answers, fault, normal)
        return math.isfinite(seen.seconds) and (seen.noticed or traffic.now() > fault + UNNOTICED_S)

    while traffic.now() < end and await traffic.until(back, end - traffic.now()):
        await asyncio.sleep(LONG_S)
        if back():
            return


def told(balance: Balance, counted: dict[str, float]) -> str:
    """The column of what is counted."""
    marks = ", ".join(f"{name} +{value:.0f}" for name, value in counted.items() if value > 0)
    books = "books even" if balance.even else f"books off: {balance.off}, missing {len(balance.missing)}, dropped {balance.dropped:.0f}"
    return f"{marks}; {books}" if marks else books


def counts(graph: Graph) -> dict[str, float]:
    return {name: metric(graph, full) for name, full in COUNTED.items()}


@dataclass(frozen=True)
class Case:
    """One fault on one graph: opens the books before it, closes them after it, writes its line and holds what must always hold."""

    graph: Graph
    label: str
    report: Report
    fault: str
    test: str
    books: Books
    before: Page
    counted: dict[str, float]

    @classmethod
    def opened(cls, graph: Graph, label: str, report: Report, *, fault: str, test: str) -> "Case":
        books = Books(graph)
        return cls(graph, label, report, fault, test, books, books.page(), counts(graph))

    def conclude(self, answers: list[Answer], back: Recovery, *, killed: tuple[str, ...] = ()) -> None:
        """`killed`: tiers whose books cannot be even, because their counters or their recorder died."""
        seen = figures([a for a in answers if a.part != "receipt"])
        balance = self.books.balance(self.before, answers, killed=killed)
        more = {name: value - self.counted[name] for name, value in counts(self.graph).items()}
        extra = {"outcomes": self.books.outcomes(self.before.at), "off": balance.off, "missing": len(balance.missing)}
        line = {"client": client_view(seen), "counted": told(balance, more), "recovery": seconds(back.seconds)}
        self.report.line(self.fault, self.label, self.test, **line, recovered_in_s=back.seconds, **seen, **more, **extra)
        assert seen["hung"] == 0, seen
        assert seen["wrong"] == 0, seen["wrongs"]
        assert math.isfinite(back.seconds), "the part did not come back"
        assert balance.even, balance
