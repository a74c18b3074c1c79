"""A second application that uses the handle side as an ingress does, on scripted engines of its own; a test asks it over HTTP.

`Pair` has two replicas, `Narrow` has one with a single place.
"""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from ray import serve
from ray.serve import Application
from starlette.requests import Request

from serve_app.deployments.clients import HandleEngine, ReplicaWatch, SystemClock
from serve_app.deployments.session_router import RESERVED, sticky
from serve_app.domain import Json
from serve_app.errors import TierwiseError
from tests.ray.fake_graph import FakeTier

REFRESH_S = 0.2
PLACES = 3


class Probe:
    """Each method is one scenario; its arguments are the query's."""

    def __init__(self, pair: Any, narrow: Any) -> None:
        self._handles = {"pair": pair, "narrow": narrow}
        self._asked = 0
        self._cancelled = asyncio.Event()

    async def __call__(self, request: Request) -> Json:
        scenario = getattr(self, request.url.path.rsplit("/", 1)[-1])
        async with self._watched(request.query_params.get("tier", "pair")) as (engine, watch):
            return await scenario(engine, watch, dict(request.query_params))

    @asynccontextmanager
    async def _watched(self, name: str) -> AsyncIterator[tuple[HandleEngine, ReplicaWatch]]:
        watch = ReplicaWatch(self._handles[name], SystemClock())
        await watch.refresh()
        refreshing = asyncio.create_task(self._refresh(watch))
        try:
            yield HandleEngine("m", self._handles[name], watch, connect_s=1.5), watch
        finally:
            refreshing.cancel()

    async def _refresh(self, watch: ReplicaWatch) -> None:
        while True:
            await watch.refresh(timeout_s=1.0)
            await asyncio.sleep(REFRESH_S)

    def _ask(self, engine: HandleEngine, text: str, *, stream: bool = False, session: str | None = None) -> AsyncGenerator[str | Json]:
        self._asked += 1
        body = {"messages": [{"role": "user", "content": text}], "stream": stream}
        return engine.generate("chat", body, request_id=self._last(), session=session)

    def _last(self) -> str:
        return f"probe-{self._asked}"

    async def pids(self, engine: HandleEngine, _: ReplicaWatch, query: dict[str, str]) -> Json:
        """Which replicas answer a row of plain requests."""
        return {"pids": [await self._pid(engine, query.get("session")) for _ in range(int(query["count"]))]}

    async def _pid(self, engine: HandleEngine, session: str | None) -> int:
        async with aclosing(self._ask(engine, "hello", session=session)) as items:
            answer = await anext(items)
        assert isinstance(answer, dict)
        return int(answer["pid"])

    async def spill(self, engine: HandleEngine, _: ReplicaWatch, query: dict[str, str]) -> Json:
        """A session whose replica is full, and then has a place again."""
        before = await self._pid(engine, query["session"])
        streams = [self._ask(engine, "small:endless", stream=True, session=query["session"]) for _ in range(PLACES)]
        for stream in streams:
            await anext(stream)
        while_full = await self._pid(engine, query["session"])
        for stream in streams:
            await stream.aclose()
        await asyncio.sleep(0.5)
        return {"before": before, "while_full": while_full, "after": await self._pid(engine, query["session"])}

    async def cut(self, engine: HandleEngine, watch: ReplicaWatch, query: dict[str, str]) -> Json:
        """A generation that is left after `items` items or `seconds` seconds: what it used, and by how much the counters moved."""
        before = await self._counters(watch)
        generation = self._ask(engine, query["text"], stream=query["stream"] == "yes")
        request_id = self._last()
        reading = asyncio.create_task(self._read(generation, int(query.get("items", 10**6))))
        await asyncio.wait({reading}, timeout=float(query.get("seconds", 30)))
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        used = await engine.settled(request_id)
        counted = await self._counters(watch)
        moved = [counted[name] - before[name] for name in ("prompt_tokens", "generation_tokens")]
        return {"used": None if used is None else [used.prompt_tokens, used.completion_tokens], "moved": moved}

    async def unknown(self, engine: HandleEngine, _: ReplicaWatch, query: dict[str, str]) -> Json:
        return {"used": await engine.settled("never-asked")}

    async def linger(self, *_: Any) -> Json:
        """Stays until it is cancelled."""
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self._cancelled.set()
            raise
        return {}

    async def lingered(self, *_: Any) -> Json:
        """Answers when one that stayed was cancelled."""
        async with asyncio.timeout(8):
            await self._cancelled.wait()
        return {"cancelled": True}

    async def _read(self, generation: AsyncGenerator[str | Json], items: int) -> None:
        async with aclosing(generation):
            async for _ in generation:
                items -= 1
                if items <= 0:
                    return

    async def _counters(self, watch: ReplicaWatch) -> dict[str, int]:
        await watch.refresh()
        load = watch.load()
        assert load is not None
        return dict(load.counters)

    async def busy(self, engine: HandleEngine, watch: ReplicaWatch, query: dict[str, str]) -> Json:
        """A replica that is filled up: what a request is told then, whether the replica still reports, and whether it recovers.

        Serve's router counts by a cache that may be off by one: it can take a stream more than there are places.
        """
        streams: list[AsyncGenerator[str | Json]] = []
        told = "answered"
        while told == "answered" and len(streams) <= RESERVED:
            streams.append(self._ask(engine, "small:endless", stream=True))
            told = await self._told(streams[-1])
        await watch.refresh()
        reports = watch.age() < 0.5
        for stream in streams:
            await stream.aclose()
        return {"told": told, "taken": len(streams) - 1, "reports": reports, "after": await self._told(self._ask(engine, "hello"))}

    async def stopped(self, engine: HandleEngine, watch: ReplicaWatch, query: dict[str, str]) -> Json:
        """A replica whose process does not run: an ingress that never had a report of it."""
        pid = await self._pid(engine, None)
        blind = HandleEngine("m", self._handles["narrow"], ReplicaWatch(self._handles["narrow"], SystemClock()), connect_s=1.0)
        os.kill(pid, signal.SIGSTOP)
        try:
            return {"told": await self._told(self._ask(blind, "hello"))}
        finally:
            os.kill(pid, signal.SIGCONT)

    async def _told(self, generation: AsyncGenerator[str | Json]) -> str:
        try:
            await anext(generation)
        except TierwiseError as error:
            return f"{type(error).__name__}: {error.message}"
        return "answered"


def build(_: dict[str, Any]) -> Application:
    actor = {"num_cpus": 0}
    tier = serve.deployment(FakeTier, ray_actor_options=actor, request_router_config=sticky(), graceful_shutdown_timeout_s=1.0)
    pair = tier.options(name="Pair", num_replicas=2, max_ongoing_requests=PLACES + RESERVED).bind("small", "m")
    narrow = tier.options(name="Narrow", max_ongoing_requests=1 + RESERVED).bind("small", "m")
    return serve.deployment(Probe, max_ongoing_requests=64, ray_actor_options=actor).bind(pair, narrow)
