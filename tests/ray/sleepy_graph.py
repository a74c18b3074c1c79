"""The fake graph with a large tier that takes its time to start: for tests of a tier that sleeps."""

import asyncio
from typing import Any
from unittest import mock

import numpy as np
from ray import serve
from ray.serve import Application

from serve_app.app import wire
from serve_app.domain import Json
from serve_app.ports import Embedding
from serve_app.settings import parse
from tests.ray.fake_graph import FakeRouter, FakeTier

START_S = 3.0


class SleepyTier(FakeTier):
    """As slow to start as it says."""

    async def __init__(self, tier: str, model: str) -> None:  # type: ignore[misc]  # Serve awaits it
        super().__init__(tier, model)
        await asyncio.sleep(START_S)

    async def load_report(self) -> Json:
        return {**await super().load_report(), "cold_start_s": START_S}


class NoEmbedder:
    """Everything is equally hard: these tests name the tier. The real one takes most of a graph's start."""

    def __init__(self, *_: Any) -> None:
        self._embedding = np.zeros(384, dtype=np.float32)

    async def embed(self, text: str) -> Embedding:
        del text
        return self._embedding

    async def load_report(self) -> Json:
        return {"waiting": 0, "running": 0, "capacity": 0}


def build(args: dict[str, Any]) -> Application:
    settings = parse(args)
    actor = {"num_cpus": 0.1}
    options = {"max_ongoing_requests": 64, "ray_actor_options": actor}
    with mock.patch("serve_app.app.EmbedderServer", NoEmbedder):
        return wire(
            settings,
            router_llm=serve.deployment(FakeRouter, name="RouterLLM", **options).bind(),
            small=serve.deployment(FakeTier, name="SmallTier", **options).bind("small", settings.small.model.id),
            large=serve.deployment(SleepyTier, name="LargeTier", **options).bind("large", settings.large.model.id),
        )
