"""A ledger under load: records as other ingresses would send them, and a ledger that can be told to take nothing.

`build` is the graph of `tests/ray/fake_graph.py` with such a ledger, `build_feeder` a second application beside any graph,
`build_alone` one with a ledger of its own. The feeder sends through `HandleLedger`, the ingress's own client: the same batches, the
same calls, the same queue.
"""

import asyncio
import os
import random
import time
from dataclasses import replace
from typing import Any
from unittest import mock
from uuid import uuid4

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request

from serve_app import app
from serve_app.deployments.clients import HandleLedger
from serve_app.deployments.ledger import LedgerServer
from serve_app.domain import Json, Record
from serve_app.observe.receipt import Row
from serve_app.settings import LedgerSettings
from tests.observe.common import record
from tests.ray import fake_graph

TICK_S = 0.02
COMMIT_S = 0.1
ELSEWHERE = 19  # the feeder's niceness: it stands for ingress replicas on other machines
MARK = "feeder"  # the key of every record that nobody asked for
KINDS = 64


class SwitchedLedger(LedgerServer):
    """The ledger; switched off, it acknowledges what it gets, about when the database would have, and keeps nothing.

    Acknowledged at once, the same records would come in five times as many calls.
    """

    async def __init__(self, settings: LedgerSettings) -> None:  # type: ignore[misc]
        await super().__init__(settings)
        self._on = True

    async def record(self, rows: list[Row]) -> None:
        await (super().record(rows) if self._on else asyncio.sleep(COMMIT_S))

    async def switch(self, on: bool) -> None:
        self._on = on


class Feeder:
    """Makes records at a rate and counts what becomes of them. Its answer to any request is its counts; `rate` and `on` change it."""

    def __init__(self, ledger: str | DeploymentHandle[Any]) -> None:
        os.setpriority(os.PRIO_PROCESS, 0, ELSEWHERE)
        self._handle = serve.get_deployment_handle("Ledger", ledger) if isinstance(ledger, str) else ledger
        settings = LedgerSettings()
        self._client = HandleLedger(
            self._handle, queue=settings.queue, queue_mib=settings.queue_mib, batch=settings.batch, on_drop=self._lose, on_acked=self._ack
        )
        self._rate, self._made, self._dropped, self._acked = 0.0, 0, 0, 0
        self._chance = random.Random(5)
        self._run = f"feed-{uuid4().hex[:8]}"
        self._models = [replace(record("", score=round(self._chance.random(), 6)), key=MARK, session=f"s-{n}") for n in range(KINDS)]
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._client.run()), loop.create_task(self._feed())]

    async def __call__(self, request: Request) -> Json:
        wanted = request.query_params
        if "on" in wanted:
            await self._handle.switch.remote(wanted["on"] == "1")
        self._rate = float(wanted.get("rate", self._rate))
        return {"run": self._run, "made": self._made, "acked": self._acked, "dropped": self._dropped, "at": time.monotonic()}

    def _lose(self, records: int) -> None:
        self._dropped += records

    def _ack(self, _: Record) -> None:
        self._acked += 1

    async def _feed(self) -> None:
        """Evenly, and what a late wake-up owes at once; a change of the rate owes nothing."""
        due, last, rate = 0.0, time.monotonic(), self._rate
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            due = due + rate * (now - last) if rate == self._rate else 0.0
            last, rate = now, self._rate
            for _ in range(int(due)):
                self._made += 1
                self._client.record(replace(self._models[self._made % KINDS], id=f"{self._run}-{self._made}", created=time.time()))
            due -= int(due)


FEEDER = serve.deployment(Feeder, name="Feeder", ray_actor_options={"num_cpus": 0.1})


def build(args: dict[str, Any]) -> Application:
    with mock.patch.object(app, "LedgerServer", SwitchedLedger):
        return fake_graph.build(args)


def build_feeder(args: dict[str, Any]) -> Application:
    """`args`: `{application}`, the one whose ledger is fed."""
    return FEEDER.bind(args.get("application", "tierwise"))


def build_alone(args: dict[str, Any]) -> Application:
    """A ledger that nobody but its feeder knows. `args`: those of the ledger's settings."""
    options = {"max_ongoing_requests": 64, "health_check_period_s": app.LEDGER_CHECK_S, "ray_actor_options": {"num_cpus": 0.1}}
    ledger = serve.deployment(LedgerServer, name="Ledger", **options)
    return FEEDER.bind(ledger.bind(LedgerSettings(**args)))
