"""The engines' deployments: light shells around `vllm_server`, which is imported in the replica.

The graph is built without importing vLLM, which takes 10-20 s; so the placement group that `ray.serve.llm` would ask
for is asked for here.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from serve_app.deployments.session_router import RESERVED, sticky
from serve_app.deployments.settlement import Told
from serve_app.domain import Json, Kind, SelfAssessment
from serve_app.settings import EngineSettings

WARM_UP: Json = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4, "stream": False}


class EngineReplica:
    """What every engine replica answers besides its work."""

    _server: Any

    async def load_report(self) -> dict[str, int]:
        """This replica's queues: waiting, running, capacity and the engine's token counters."""
        return self._server.queues()  # type: ignore[no-any-return]

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve asks every replica for these and hands them to the autoscaling policy."""
        queues = self._server.queues()
        return {"num_requests_waiting": float(queues["waiting"]), "num_requests_running": float(queues["running"])}

    async def check_health(self) -> None:
        """Raises when the engine is dead or hangs: Serve then replaces the replica."""
        await self._server.check_health()


class TierEngine(EngineReplica):
    """One tier: `SmallTier` or `LargeTier` by its deployment's name. Ready when a first answer has been generated."""

    async def __init__(self, settings: EngineSettings) -> None:  # type: ignore[misc]  # Serve awaits it in the replica's loop
        from serve_app.deployments.vllm_server import TierServer  # noqa: PLC0415 - imports vLLM

        self._server = await TierServer.started(settings)
        async for answer in self.generate("chat", {**WARM_UP, "model": settings.model.id}, "warm-up"):
            if not isinstance(answer, dict) or "error" in answer:
                raise RuntimeError(f"the engine's first answer failed: {answer}")

    async def generate(self, kind: Kind, body: Json, request_id: str) -> AsyncGenerator[str | Json]:
        """See `ports.Engine.generate`; a refusal by the engine is one dict `{"error": {...}}`."""
        async with aclosing(self._server.generate(kind, body, request_id)) as items:
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
        from serve_app.deployments.vllm_server import RouterServer  # noqa: PLC0415 - imports vLLM

        self._server = await RouterServer.started(settings)
        await self._server.prepare(max_tokens)
        await self.assess("Is this engine up?")

    async def assess(self, text: str) -> SelfAssessment:
        """See `ports.SelfAssessor.assess`."""
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
        "ray_actor_options": {"num_cpus": settings.num_cpus / 2, "runtime_env": {"env_vars": dict(settings.env)}},
        "placement_group_bundles": bundles(settings),
        "placement_group_strategy": settings.placement_strategy,
        # The ingress asks every replica for its queues each second; an access log would hold nothing else.
        "logging_config": {"enable_access_log": False},
    }


def bundles(settings: EngineSettings) -> list[dict[str, float]]:
    """One bundle per GPU. The replica actor lies in the first one with half of the CPUs, the workers share the other half."""
    replica, workers = settings.num_cpus / 2, settings.num_cpus / 2
    if settings.gpus == 0:
        return [{"CPU": replica + workers}]
    gpu = {"GPU": 1.0, f"accelerator_type:{settings.accelerator_type}": 0.001}
    each = [{"CPU": workers / settings.gpus, **gpu} for _ in range(settings.gpus)]
    each[0]["CPU"] += replica
    return each
