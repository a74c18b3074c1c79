"""The ledger's sums against the engines' counters, and the ledger's rows against the answers that clients got."""

import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.chaos.judge import Answer
from tests.graph import Graph, wait_for

Counters = dict[str, tuple[int, int]]  # prompt and generated tokens, by tier
NAMES = ("prompt_tokens", "generation_tokens")


@dataclass(frozen=True, slots=True)
class Page:
    """The books at one moment, while nothing runs."""

    at: float
    engines: Counters
    dropped: float


@dataclass(frozen=True, slots=True)
class Balance:
    """What happened between two pages. `off` is engine minus ledger, for the tiers whose engines lived all the time."""

    off: dict[str, tuple[int, int]]
    cancelled: dict[str, int]
    missing: list[str]  # answered, and not in the ledger
    dropped: float

    @property
    def even(self) -> bool:
        """Exact for finished attempts, within one step for each one that was cancelled; every answer is recorded or counted as dropped."""
        steps = all(max(abs(p), abs(g)) <= self.cancelled.get(tier, 0) for tier, (p, g) in self.off.items())
        return steps and len(self.missing) <= self.dropped


def metric(graph: Graph, name: str, seconds: float = 20.0) -> float:
    """The sum of a metric; a node's exporter that is busy elsewhere is asked again."""
    end = time.monotonic() + seconds
    while True:
        try:
            return graph.metric(name)
        except (httpx.HTTPError, ValueError, OSError):
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


class Books:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._database = graph.log.parent / "tierwise.db"

    def page(self, seconds: float = 30.0) -> Page:
        """Wait until no engine runs and no counter moves, then read them."""
        seen: list[Counters] = []

        def still() -> bool:
            counters = self._counters()
            if counters is not None:
                seen.append(counters)
            else:
                seen.clear()
            return len(seen) > 2 and seen[-1] == seen[-2] == seen[-3]

        wait_for(lambda: still() or time.sleep(0.7) is not None, seconds, "the engines to be at rest")
        return Page(time.time(), seen[-1], metric(self._graph, "ray_tierwise_records_dropped_total"))

    def _counters(self) -> Counters | None:
        """None while something runs or a tier does not report."""
        try:
            tiers = httpx.get(f"{self._graph.url}/status", timeout=5, trust_env=False).json()["tiers"]
            if any(tier["running"] or tier["waiting"] for tier in tiers.values()):
                return None
            return {name: (tier[NAMES[0]], tier[NAMES[1]]) for name, tier in tiers.items()}
        except (httpx.HTTPError, ValueError, KeyError):
            return None

    def balance(self, before: Page, answers: list[Answer], *, killed: tuple[str, ...] = ()) -> Balance:
        """Close the books: `killed` names the tiers whose counters died with an engine."""
        answered = [a.decision_id for a in answers if a.decision_id is not None and a.complete and a.status in (200, 502, 504)]
        after = self.page()
        wait_for(lambda: not self._missing(answered) or time.time() > after.at + 3, 10, "the last rows")
        sums, cancelled = self._sums(before.at, after.at)
        off = {}
        for tier in set(after.engines) - set(killed):
            delta = [new - old for new, old in zip(after.engines[tier], before.engines[tier], strict=True)]
            prompt, generated = sums.get(tier, (0, 0))
            off[tier] = (delta[0] - prompt, delta[1] - generated)
        return Balance(off, cancelled, self._missing(answered), after.dropped - before.dropped)

    def outcomes(self, since: float) -> dict[str, int]:
        """How the ledger says that requests ended."""
        query = "select outcome, count(*) from decisions where created >= ? group by outcome"
        return {str(name): int(number) for name, number in self._read(query, since)}

    def receipts(self, since: float) -> list[dict[str, object]]:
        return [json.loads(row[0]) for row in self._read("select receipt from decisions where created >= ? order by created", since)]

    def _sums(self, since: float, until: float) -> tuple[Counters, dict[str, int]]:
        query = (
            "select a.tier, sum(a.prompt_tokens), sum(a.completion_tokens), sum(a.outcome not in ('ok', 'rejected'))"
            " from attempts a join decisions d on d.id = a.decision_id where d.created between ? and ? group by a.tier"
        )
        rows = self._read(query, since, until)
        return {r[0]: (int(r[1]), int(r[2])) for r in rows}, {r[0]: int(r[3]) for r in rows}

    def _missing(self, ids: list[str]) -> list[str]:
        known = {row[0] for row in self._read("select id from decisions")}
        return sorted(set(ids) - known)

    def _read(self, query: str, *values: float) -> list[tuple[object, ...]]:
        path = Path(self._database)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query, values).fetchall()
