"""The real graph with the real profile's placement, around engines that need no GPU: what Ray places is what the fleet would get."""

import asyncio
import hashlib
from typing import Any
from unittest import mock

import numpy as np
from ray import serve
from ray.serve import Application

from serve_app.app import wire
from serve_app.deployments.scaled import Scaled
from serve_app.deployments.tier_engine import engine_options
from serve_app.domain import SelfAssessment
from serve_app.ports import Embedding
from serve_app.settings import EmbedderSettings, TierSettings, parse
from tests.chaos.fake_engines import ScriptedTier

DIMENSION = 384
TICK_S = 0.25


class FleetTier(ScriptedTier):
    """Ready after `cold` seconds, as a model that loads. `tick` streams a word each quarter of a second, for 100 words and more."""

    async def __init__(self, tier: str, model: str, sequences: int, seconds: float, cold: float) -> None:  # type: ignore[misc]
        super().__init__(tier, model, sequences, seconds)
        await asyncio.sleep(cold)

    def _takes(self, order: str) -> float:
        return 100 * TICK_S if order == "tick" else super()._takes(order)


class Idle(Scaled):
    def queues(self) -> dict[str, int]:
        return {"waiting": 0, "running": 0, "capacity": 16}

    async def load_report(self) -> dict[str, int]:
        return {**self.queues(), "prompt_tokens": 0, "generation_tokens": 0}


class FleetRouter(Idle):
    """Rates everything the same."""

    async def assess(self, text: str) -> SelfAssessment:
        return SelfAssessment(rating=0.5, probs=(0.1,) * 10)


class FleetEmbedder(Idle):
    """A vector of the text's hash: nothing to load, so that a node is taken into use in seconds."""

    def __init__(self, settings: EmbedderSettings) -> None:
        del settings

    async def embed(self, text: str) -> Embedding:
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
        vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
        return vector / np.linalg.norm(vector)


def build(args: dict[str, Any]) -> Application:
    """`args` as in deployments.yaml, and `engines: {sequences, seconds, cold}`: the capacity of a tier's replica, and its start."""
    given = {"sequences": 8, "seconds": 0.2, "cold": 0.0} | args.pop("engines", {})
    settings = parse(args)

    def tier(name: str, word: str, of: TierSettings) -> Application:
        deployment = serve.deployment(FleetTier, name=name, **engine_options(of))
        return deployment.bind(word, of.model.id, int(given["sequences"]), float(given["seconds"]), float(given["cold"]))

    router = serve.deployment(FleetRouter, name="RouterLLM", **engine_options(settings.router_llm))
    with mock.patch("serve_app.app.EmbedderServer", FleetEmbedder):
        return wire(
            settings,
            router_llm=router.bind(),
            small=tier("SmallTier", "small", settings.small),
            large=tier("LargeTier", "large", settings.large),
        )
