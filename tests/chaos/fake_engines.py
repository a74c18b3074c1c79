"""Engines with a fixed capacity and bad habits: the real graph around them is built without vLLM.

The prompt tells a tier what to do: `small:hang` hangs the small tier and means nothing to the large one. Everything else is
answered with `TIER: PROMPT`, word by word, so that a client can tell a right answer from a wrong one.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator
from typing import Any

from ray import serve
from ray.serve import Application

from serve_app.app import wire
from serve_app.deployments.scaled import Scaled
from serve_app.deployments.settlement import Settlements, Told
from serve_app.deployments.tier_engine import engine_options
from serve_app.domain import Json, Usage
from serve_app.settings import TierSettings, parse
from tests.ray.fake_graph import FakeRouter

FOR_EVER_S = 3600.0
SLOW_S = 3.0
CRAWL_S = 0.5  # of a `crawl`: with 8 sequences, 16 answers a second
ON_NODES = ("placement_group_bundles", "placement_group_strategy", "ray_actor_options")
GARBAGE = (
    "data: {not json\n\n",
    "garbage\n\n",
    "data: []\n\n",
    "data: 7\n\n",
    'data: {"choices":"none"}\n\n',
    "event: odd\n\n",
    "data: \n\n",
)


class ScriptedTier(Scaled):
    """Keeps the tiers' contract. Owns `sequences` places, each taken for `seconds` by one answer, and the counters of its tokens."""

    def __init__(self, tier: str, model: str, sequences: int, seconds: float) -> None:
        self._tier, self._model = tier, model
        self._sequences, self._seconds = sequences, seconds
        self._places = asyncio.Semaphore(sequences)
        self._inside = self._running = 0
        self._prompt_tokens = self._generated = 0
        self._used: dict[str, Usage] = {}
        self._settlements = Settlements()

    async def load_report(self) -> dict[str, int]:
        counters = {"prompt_tokens": self._prompt_tokens, "generation_tokens": self._generated}
        return {**self.queues(), **counters}

    def queues(self) -> dict[str, int]:
        return {"waiting": self._inside - self._running, "running": self._running, "capacity": self._sequences}

    async def count(self, kind: str, body: Json, *_: Any) -> Json:
        return {"tokens": len(_text(body).split())}

    async def settled(self, request_ids: list[str]) -> Told:
        """What generations that ended here had used."""
        return self._settlements.of(request_ids)

    async def generate(self, kind: str, body: Json, request_id: str, *_: Any) -> AsyncGenerator[str | Json]:
        self._inside += 1
        self._used[request_id] = Usage()
        try:
            async with self._places:
                self._running += 1
                try:
                    async for item in self._answer(_text(body), body, request_id):
                        yield item
                finally:
                    self._running -= 1
        finally:
            self._inside -= 1
            self._settlements.keep(request_id, self._used.pop(request_id))

    async def _answer(self, text: str, body: Json, request_id: str) -> AsyncGenerator[str | Json]:
        order = next(iter(re.findall(rf"{self._tier}:(\w+)", text)), "")
        await self._before(order)
        words = f"{self._tier}: {text}".split(" ")
        if body.get("stream"):
            async for event in self._stream(order, words, text, request_id):
                yield event
            return
        await asyncio.sleep(FOR_EVER_S if order == "endless" else self._takes(order))
        self._count(request_id, len(text.split()), len(words))
        if order == "garbage":
            yield {"nothing": "that anyone expects"}
        else:
            message = {"role": "assistant", "content": " ".join(words)}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            usage = _usage(len(text.split()), len(words))
            yield {"id": request_id, "object": "chat.completion", "created": 0, "model": self._model, "choices": choices, "usage": usage}

    def _takes(self, order: str) -> float:
        return CRAWL_S if order == "crawl" else self._seconds

    async def _before(self, order: str) -> None:
        if order == "hang":
            await asyncio.sleep(FOR_EVER_S)
        elif order == "slow":
            await asyncio.sleep(SLOW_S)
        elif order == "raise":
            raise ValueError("secret internal text")
        elif order == "die":
            os._exit(1)

    async def _stream(self, order: str, words: list[str], text: str, request_id: str) -> AsyncGenerator[str]:
        prompt = len(text.split())
        if order == "endless":
            words = ["on"] * 10_000
        for number, word in enumerate(words):
            if number == 2:
                await self._midway(order)
            if order == "garbage":
                yield GARBAGE[number % len(GARBAGE)]
            self._count(request_id, 0 if number else prompt, 1)
            content = word if number == 0 else f" {word}"
            yield self._chunk(request_id, [_choice({"content": content}, None)], prompt, number + 1)
            await asyncio.sleep(self._takes(order) / min(len(words), 100))
        if order == "short":
            return
        yield self._chunk(request_id, [_choice({}, "stop")], prompt, len(words))
        yield self._chunk(request_id, [], prompt, len(words))
        yield "data: [DONE]\n\n"

    async def _midway(self, order: str) -> None:
        if order == "diemid":
            os._exit(1)
        elif order == "hangmid":
            await asyncio.sleep(FOR_EVER_S)
        elif order == "raisemid":
            raise RuntimeError("secret internal text")

    def _count(self, request_id: str, prompt: int, generated: int) -> None:
        """As in a real engine, a prompt counts with its first token."""
        self._prompt_tokens += prompt
        self._generated += generated
        used = self._used[request_id]
        self._used[request_id] = Usage(used.prompt_tokens + prompt, used.completion_tokens + generated)

    def _chunk(self, request_id: str, choices: list[Json], prompt: int, generated: int) -> str:
        head = {"id": request_id, "object": "chat.completion.chunk", "created": 0, "model": self._model}
        return f"data: {json.dumps({**head, 'choices': choices, 'usage': _usage(prompt, generated)}, separators=(',', ':'))}\n\n"


def _text(body: Json) -> str:
    """The prompt as text; hostile requests send parts and lists, which nobody here has to understand."""
    given = body["messages"][-1].get("content") if "messages" in body else body["prompt"]
    return given if isinstance(given, str) else json.dumps(given)


def _choice(delta: Json, finish: str | None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _usage(prompt: int, generated: int) -> Json:
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


def build(args: dict[str, Any]) -> Application:
    """`args` as in deployments.yaml, and `engines: {sequences, seconds}`: the capacity of each tier."""
    engines = args.pop("engines", {})
    settings = parse(args)
    sequences, seconds = int(engines.get("sequences", 8)), float(engines.get("seconds", 0.2))

    def tier(name: str, word: str, of: TierSettings) -> Application:
        options = {key: value for key, value in engine_options(of).items() if key not in ON_NODES}
        deployment = serve.deployment(ScriptedTier, name=name, ray_actor_options={"num_cpus": 0.1}, **options)
        return deployment.bind(word, of.model.id, sequences, seconds)

    router = serve.deployment(FakeRouter, name="RouterLLM", max_ongoing_requests=64, ray_actor_options={"num_cpus": 0.1})
    small, large = tier("SmallTier", "small", settings.small), tier("LargeTier", "large", settings.large)
    return wire(settings, router_llm=router.bind(), small=small, large=large)
