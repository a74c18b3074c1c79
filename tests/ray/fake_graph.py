"""The real graph around engines that answer from a script: `serve run` builds it in seconds and without vLLM.

The prompt tells a fake engine what to do: words such as `die` and `refuse` are acted on by the tier that they name
(`small:die`), everything else is echoed token by token.
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
from serve_app.domain import Json, Kind, SelfAssessment, Usage
from serve_app.settings import parse

CHUNK_S = 0.02
LONG_CHUNK_S = 0.1  # of a `long` stream
PROMPT_TOKENS = 5


class FakeTier(Scaled):
    """Keeps the tiers' contract. `running` counts generators that are open: a cancelled one must come back to 0.

    As in a real engine, a prompt counts with its first token. `_used` holds what each open generation has counted so far.
    """

    def __init__(self, tier: str, model: str) -> None:
        self._tier = tier
        self._model = model
        self._running = 0
        self._counted = Usage()
        self._used: dict[str, Usage] = {}
        self._settlements = Settlements()

    async def load_report(self) -> dict[str, int]:
        counters = {"prompt_tokens": self._counted.prompt_tokens, "generation_tokens": self._counted.completion_tokens}
        return {**self.queues(), **counters}

    def queues(self) -> dict[str, int]:
        return {"waiting": 0, "running": self._running, "capacity": 16}

    async def settled(self, request_ids: list[str]) -> Told:
        return self._settlements.of(request_ids)

    async def generate(self, kind: Kind, body: Json, request_id: str, *_: Any) -> AsyncGenerator[str | Json]:
        self._running += 1
        self._used[request_id] = Usage()
        try:
            text = body["messages"][-1]["content"] if kind == "chat" else body["prompt"]
            order = next(iter(re.findall(rf"{self._tier}:(\w+)", text)), "echo")
            async for item in self._obey(order, text, body, request_id):
                yield item
        finally:
            self._running -= 1
            self._settlements.keep(request_id, self._used.pop(request_id))

    def _count(self, request_id: str) -> None:
        """One more token of this generation."""
        prompt = 0 if self._used[request_id].completion_tokens else PROMPT_TOKENS
        self._counted = _more(self._counted, prompt)
        self._used[request_id] = _more(self._used[request_id], prompt)

    async def count(self, kind: Kind, body: Json) -> Json:
        text = body["messages"][-1]["content"] if kind == "chat" else body["prompt"]
        return {"tokens": len(text.split())}

    async def _obey(self, order: str, text: str, body: Json, request_id: str) -> AsyncGenerator[str | Json]:
        if order == "refuse":
            yield {"error": {"code": 400, "message": "temperature: the engine does not like it", "param": "temperature"}}
        elif order == "raise":
            raise ValueError("secret internal text")
        elif order == "die":
            os._exit(1)
        elif order == "prefill":
            await asyncio.sleep(60)
        elif not body.get("stream"):
            for _ in range(2000 if order == "endless" else len(text.split())):
                self._count(request_id)
                if order == "endless":
                    await asyncio.sleep(CHUNK_S)
            yield {"id": request_id, "object": "chat.completion", "model": self._model, "pid": os.getpid(), **_message(text)}
        else:
            count = 2000 if order == "endless" else len(text.split())
            async for event in self._stream(order, count, request_id):
                yield event

    async def _stream(self, order: str, count: int, request_id: str) -> AsyncGenerator[str]:
        for number in range(count):
            if order == "break" and number == 3:
                raise RuntimeError("secret internal text")
            self._count(request_id)
            yield self._chunk(request_id, [_choice({"content": f"t{number} "}, None)], number + 1)
            await asyncio.sleep(LONG_CHUNK_S if order == "long" else CHUNK_S)
        yield self._chunk(request_id, [_choice({}, "stop")], count)
        yield self._chunk(request_id, [], count)
        yield "data: [DONE]\n\n"

    def _chunk(self, request_id: str, choices: list[Json], tokens: int) -> str:
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens, "total_tokens": PROMPT_TOKENS + tokens}
        head = {"id": request_id, "object": "chat.completion.chunk", "model": self._model, "pid": os.getpid()}
        data = {**head, "choices": choices, "usage": usage}
        return f"data: {json.dumps(data, separators=(',', ':'))}\n\n"


def _more(used: Usage, prompt: int) -> Usage:
    return Usage(used.prompt_tokens + prompt, used.completion_tokens + 1)


def _choice(delta: Json, finish: str | None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _message(text: str) -> Json:
    message = {"role": "assistant", "content": text}
    words = len(text.split())
    usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": words, "total_tokens": PROMPT_TOKENS + words}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}


class FakeRouter(Scaled):
    async def load_report(self) -> dict[str, int]:
        return {**self.queues(), "prompt_tokens": 0, "generation_tokens": 0}

    def queues(self) -> dict[str, int]:
        return {"waiting": 0, "running": 0, "capacity": 16}

    async def assess(self, text: str) -> SelfAssessment:
        if "router:late" in text:
            await asyncio.sleep(5)
        if "router:raise" in text:
            raise ValueError("no rating")
        return SelfAssessment(rating=0.5, probs=(0.1,) * 10)


def build(args: dict[str, Any]) -> Application:
    settings = parse(args)
    actor = {"num_cpus": 0.1}
    tier = serve.deployment(FakeTier, max_ongoing_requests=64, ray_actor_options=actor)
    return wire(
        settings,
        router_llm=serve.deployment(FakeRouter, name="RouterLLM", max_ongoing_requests=64, ray_actor_options=actor).bind(),
        small=tier.options(name="SmallTier").bind("small", settings.small.model.id),
        large=tier.options(name="LargeTier").bind("large", settings.large.model.id),
    )
