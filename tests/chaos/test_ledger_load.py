"""`kill -9` of the ledger while a thousand records a second go into it: none is lost in silence, and the accounts agree.

Beside the requests a feeder sends records through the ingress's own client. The short form kills each database's ledger once, at
the same time: the graph's own on SQLite under requests too, and one on PostgreSQL in an application of its own. The long form puts
the whole graph on each.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.chaos.books import Books, Counters
from tests.chaos.conftest import whole
from tests.chaos.judge import Answer
from tests.chaos.processes import kill
from tests.chaos.report import Report
from tests.chaos.requests import mixed
from tests.chaos.traffic import Traffic, figures
from tests.graph import Graph, wait_for
from tests.observe import postgres
from tests.observe.common import query
from tests.observe.loaded_graph import MARK

ROWS = 1000.0  # a second
QUEUE, BATCH = 10_000, 500  # the settings' defaults, which the feeder takes too
RATE, DEADLINE_S = 10.0, 30.0
BACK_S = 60.0
OF_A_RECORD = (10, 20)  # tokens of each fed record
FEEDER = {"name": "feeder", "import_path": "tests.observe.loaded_graph:build_feeder", "route_prefix": "/feeder", "args": {}}
ALONE = {"name": "alone", "import_path": "tests.observe.loaded_graph:build_alone", "route_prefix": "/alone"}


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str | None]:
    """None where it is not installed."""
    if (programs := postgres.binaries()) is None:
        yield None
        return
    with postgres.running(programs) as folder:
        yield postgres.new_database(folder, "ledger")


@contextmanager
def beside(graph: Graph, *applications: dict[str, Any], url: str | None = None) -> Iterator[None]:
    """More applications; with `url` the graph's own ledger is another one too, for which all of it starts again."""
    config = yaml.safe_load(graph.config.read_text())
    config["applications"] += applications
    if url is not None:
        config["applications"][0]["args"]["ledger"]["url"] = url
    changed = graph.config.with_name("fed.yaml")
    changed.write_text(yaml.safe_dump(config))
    graph.run("serve", "deploy", str(changed))
    try:
        for application in applications:
            target = f"{graph.url}{application['route_prefix']}"
            wait_for(lambda target=target: httpx.get(target, timeout=10, trust_env=False).status_code == 200, 90, target)  # type: ignore[misc]
        yield
    finally:
        graph.run("serve", "deploy", str(graph.config))


@dataclass(frozen=True, slots=True)
class Fed:
    """What became of the fed records. `away_s`: from each kill until the next ledger had acknowledged some."""

    made: int
    dropped: int
    recorded: int
    tokens: tuple[int, int]
    away_s: list[float]

    def hold(self) -> None:
        """Every record is in the database or counted; none was dropped that the queue had place for, but for one batch."""
        assert self.made > ROWS
        assert self.recorded + self.dropped == self.made, self
        assert self.tokens == (OF_A_RECORD[0] * self.recorded, OF_A_RECORD[1] * self.recorded), self
        assert self.dropped <= sum(max(0.0, ROWS * away - QUEUE) + BATCH for away in self.away_s), self


@dataclass(frozen=True, slots=True)
class Fountain:
    """A feeder of `graph` at `path`, and the ledger of `application` that it feeds, whose rows are at `url`."""

    graph: Graph
    path: str
    application: str
    url: str

    def counts(self, **wanted: float) -> dict[str, Any]:
        answer = httpx.get(f"{self.graph.url}{self.path}", params=wanted, timeout=30, trust_env=False)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def ledger(self) -> int | None:
        """Its process."""
        for process in self.graph.processes():
            with suppress(psutil.Error):
                if f"ServeReplica:{self.application}:Ledger" in " ".join(process.cmdline()):
                    return process.pid
        return None

    def killed(self) -> float:
        """Seconds from the kill until the next ledger has acknowledged records."""
        old = self.ledger()
        assert old is not None
        kill(old)
        started, enough = time.monotonic(), self.counts()["acked"] + BATCH + 1  # one answer of the old one may be on its way

        def taken() -> bool:
            return bool(self.counts()["acked"] >= enough) and self.ledger() not in (None, old)

        wait_for(taken, BACK_S, "the next ledger to take records")
        return time.monotonic() - started

    def settled(self) -> bool:
        counts = self.counts()
        return bool(counts["acked"] + counts["dropped"] == counts["made"])

    def fed(self, *, kills: int, pause_s: float) -> Fed:
        """Feed, kill the ledger now and then, stop feeding, and wait until nothing is on its way."""
        away = []
        self.counts(rate=ROWS)
        for _ in range(kills):
            time.sleep(pause_s)
            away.append(self.killed())
        self.counts(rate=0)
        wait_for(self.settled, BACK_S, "every fed record to be written or dropped")
        counts = self.counts()
        ours = f"where d.key = '{MARK}' and d.id like '{counts['run']}-%'"
        recorded = query(self.url, f"select count(*) n from decisions d {ours}")[0]["n"]  # noqa: S608 - our own words
        return Fed(counts["made"], counts["dropped"], recorded, tokens(self.url, ours).get("large", (0, 0)), away)


def tokens(url: str, where: str) -> Counters:
    """Prompt and generated tokens by tier, as the ledger has them; tiers without any are left out."""
    text = "select a.tier, sum(a.prompt_tokens) p, sum(a.completion_tokens) g from attempts a join decisions d on d.id = a.decision_id"
    rows = query(url, f"{text} {where} group by a.tier")
    return {row["tier"]: (int(row["p"]), int(row["g"])) for row in rows if row["p"] or row["g"]}


async def under_requests(fountain: Fountain, name: str, *, kills: int, pause_s: float) -> tuple[Fed, list[Answer]]:
    """The same with requests beside it, whose records go to the ledger that is killed; their accounts must agree too."""
    books, since = Books(fountain.graph), time.time()
    before = await asyncio.to_thread(books.page)
    async with Traffic(fountain.graph.url, mixed(name), rate=RATE, deadline_s=DEADLINE_S) as traffic:
        seen = await asyncio.to_thread(fountain.fed, kills=kills, pause_s=pause_s)
    after = await asyncio.to_thread(books.page)
    answered = {answer.decision_id for answer in traffic.answers if answer.decision_id is not None}
    asked = f"where d.created >= {since} and (d.key is null or d.key <> '{MARK}')"

    def missing() -> int:
        return len(answered - {row["id"] for row in query(fountain.url, f"select d.id from decisions d {asked}")})  # noqa: S608

    dropped = after.dropped - before.dropped
    assert dropped <= BATCH
    await asyncio.to_thread(wait_for, lambda: missing() <= dropped, 20, "a record of every answer")
    grown = {tier: (p - before.engines[tier][0], g - before.engines[tier][1]) for tier, (p, g) in after.engines.items()}
    assert dropped or tokens(fountain.url, asked) == grown, "the ledger's tokens must be the engines' own"
    return seen, traffic.answers


def own(graph: Graph, url: str | None = None) -> Fountain:
    """The graph's own ledger, fed; where its rows are when it was not moved."""
    return Fountain(graph, "/feeder", "tierwise", url or f"sqlite:///{graph.log.parent}/tierwise.db")


@pytest.mark.timeout(150)
async def test_requests_do_not_notice_a_killed_ledger_and_every_record_is_accounted_for(fake: Graph, postgres_url: str | None) -> None:
    others = [] if postgres_url is None else [Fountain(fake, "/alone", "alone", postgres_url)]
    with beside(fake, FEEDER, *({**ALONE, "args": {"url": other.url}} for other in others)):
        (seen, answers), *more = await asyncio.gather(
            under_requests(own(fake), "short-ledger", kills=1, pause_s=2.0),
            *(asyncio.to_thread(other.fed, kills=1, pause_s=2.0) for other in others),
        )
    for one in (seen, *more):
        one.hold()
    told = figures(answers)
    assert (told["ok"], told["wrong"]) == (told["sent"], 0), told


@pytest.mark.chaos
@pytest.mark.timeout(400)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_a_ledger_killed_again_and_again_under_load(fake: Graph, report: Report, postgres_url: str | None, database: str) -> None:
    if database == "postgresql" and postgres_url is None:
        pytest.skip("PostgreSQL is not installed")
    url = postgres_url if database == "postgresql" else None
    with beside(fake, FEEDER, url=url):
        whole(fake, 120)
        seen, answers = await under_requests(own(fake, url), f"long-ledger-{database}", kills=3, pause_s=10.0)
    whole(fake, 120)
    seen.hold()
    told = figures(answers)
    counted = f"{seen.recorded} of {seen.made} fed records written, {seen.dropped} dropped and counted; tokens equal to the engines'"
    fault, back = f"`kill -9` of the Ledger on {database}, three times, 1,000 records a second", f"{max(seen.away_s):.1f} s"
    client = f"{told['ok']} of {told['sent']} answered"
    test = "test_a_ledger_killed_again_and_again_under_load"
    report.line(fault, "fake, default", test, client=client, counted=counted, recovery=back, **told, away_s=seen.away_s)
    assert (told["ok"], told["wrong"]) == (told["sent"], 0), told
