"""The engines' deployments: light shells around `vllm_server`, which is imported in the replica.

The graph is built without importing vLLM, which takes 10-20 s; so the placement group that `ray.serve.llm` would ask
for is asked for here.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from serve_app.deployments.prewarm import Prewarm, process_began
from serve_app.deployments.scaled import Scaled
from serve_app.deployments.session_router import RESERVED, sticky
from serve_app.deployments.settlement import Told
from serve_app.domain import Json, Kind, SelfAssessment
from serve_app.settings import EngineSettings

A_TRACE = 0.001  # of a resource that names a kind of node: asks for the kind and uses nothing up
WARM_UP: Json = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4, "stream": False}


class EngineReplica(Scaled):
    """What every engine replica answers besides its work."""

    _server: Any
    _prewarm: Prewarm
    _begun = 0  # generations, probes among them

    async def _warm(self, settings: EngineSettings, began: float) -> None:
        """The first answer; see `Prewarm.start`."""
        self._prewarm = Prewarm(
            settings.model.id, settings.prewarm, time.time, probe=self._probe, used=self._server.settlements.of, idle=self._idle
        )
        await self._prewarm.start(began)

    async def _probe(self, request_id: str) -> None:
        """A short answer for nobody. Raises when it is none."""
        raise NotImplementedError

    def _idle(self) -> bool:
        queues = self._server.queues()
        return bool(queues["waiting"] + queues["running"] == 0)

    async def load_report(self) -> Json:
        """This replica's queues: waiting, running, capacity and the engine's token counters; and what `Prewarm` knows."""
        return self._prewarm.report(self._server.queues())

    def queues(self) -> dict[str, int]:
        """A probe is no load."""
        queues = self._server.queues()
        return {**queues, "running": max(0, queues["running"] - self._prewarm.probing), "served": self._begun - self._prewarm.probes}

    async def __del__(self) -> None:
        """Serve awaits it when the replica leaves, also one that never got as far as its first answer."""
        if (prewarm := getattr(self, "_prewarm", None)) is not None:
            await prewarm.close()

    async def check_health(self) -> None:
        """Raises when the engine is dead or hangs: Serve then replaces the replica."""
        await self._server.check_health()


class TierEngine(EngineReplica):
    """One tier: `SmallTier` or `LargeTier` by its deployment's name. Ready when a first answer has been generated."""

    async def __init__(self, settings: EngineSettings) -> None:  # type: ignore[misc]  # Serve awaits it in the replica's loop
        began, self._model = process_began(time.time()), settings.model.id
        from serve_app.deployments.vllm_server import TierServer  # noqa: PLC0415 - imports vLLM, which is part of the start's time

        self._server = await TierServer.started(settings)
        await self._warm(settings, began)

    async def _probe(self, request_id: str) -> None:
        answers = [answer async for answer in self.generate("chat", {**WARM_UP, "model": self._model}, request_id)]
        if len(answers) != 1 or not isinstance(answers[0], dict) or not answers[0].get("choices"):
            raise RuntimeError(f"the engine gave no answer: {answers!s:.200}")

    async def generate(self, kind: Kind, body: Json, request_id: str, trace: str | None = None) -> AsyncGenerator[str | Json]:
        """See `ports.Engine.generate`; a refusal by the engine is one dict `{"error": {...}}`."""
        self._begun += 1
        async with aclosing(self._server.generate(kind, body, request_id, trace)) as items:
            async for item in items:
                yield item

    async def settled(self, request_ids: list[str]) -> Told:
        """What those of these generations used that ended here; see `ports.Engine.settled`."""
        return self._server.settlements.of(request_ids)  # type: ignore[no-any-return]

    async def count(self, kind: Kind, body: Json) -> Json:
        """`{"tokens": int}`, or a refusal as in `generate`. See `ports.Engine.count`."""
        return await self._server.count(kind, body)  # type: ignore[no-any-return]


class RouterLLM(EngineReplica):
    """The self-assessment. Ready when a first rating has been made."""

    async def __init__(self, settings: EngineSettings, max_tokens: int) -> None:  # type: ignore[misc]  # as above
        began = process_began(time.time())
        from serve_app.deployments.vllm_server import RouterServer  # noqa: PLC0415 - as above

        self._server = await RouterServer.started(settings)
        await self._server.prepare(max_tokens)
        await self._warm(settings, began)

    async def _probe(self, request_id: str) -> None:  # noqa: ARG002 - as the tiers have it
        """A rating has an id of the engine's own: its tokens are not told apart, and nobody pays for ratings."""
        await self.assess("Is this engine up?")

    async def assess(self, text: str) -> SelfAssessment:
        """See `ports.SelfAssessor.assess`."""
        self._begun += 1
        return await self._server.assess(text)  # type: ignore[no-any-return]


def engine_options(settings: EngineSettings) -> dict[str, Any]:
    """Serve's options of an engine deployment; deployments.yaml may override each."""
    return {
        "max_ongoing_requests": settings.max_ongoing_requests + RESERVED,
        "request_router_config": sticky(),
        "max_queued_requests": settings.max_queued_requests,
        "health_check_period_s": settings.health_check_period_s,
        "health_check_timeout_s": settings.health_check_timeout_s,
        "graceful_shutdown_timeout_s": settings.graceful_shutdown_timeout_s,
        "max_surge_percent": settings.max_surge_percent,
        "ray_actor_options": {"num_cpus": settings.num_cpus / 2, "runtime_env": {"env_vars": dict(settings.env)}},
        "placement_group_bundles": bundles(settings),
        "placement_group_strategy": settings.placement_strategy,
        # The ingress asks every replica for its queues each second; an access log would hold nothing else.
        "logging_config": {"enable_access_log": False},
    }


def bundles(settings: EngineSettings) -> list[dict[str, float]]:
    """One bundle per GPU. The replica actor lies in the first one with half of the CPUs, the workers share the other half."""
    replica, workers = settings.num_cpus / 2, settings.num_cpus / 2
    kept = {} if settings.instance is None else {f"instance:{settings.instance}": A_TRACE}
    if settings.gpus == 0:
        return [{"CPU": replica + workers, **kept}]
    gpu = {"GPU": 1.0, f"accelerator_type:{settings.accelerator_type}": A_TRACE, **kept}
    each = [{"CPU": workers / settings.gpus, **gpu} for _ in range(settings.gpus)]
    each[0]["CPU"] += replica
    return each
