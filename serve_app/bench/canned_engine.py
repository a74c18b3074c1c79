"""The canned generator as an engine of `ray.serve.llm`: what `RAYLLM_VLLM_ENGINE_CLS` names, for tierwise and for Ray's own app.

It keeps the contract of `deployments/vllm_server.py` (queues, meter, client) without starting vLLM.
"""

import itertools
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from ray.llm._internal.serve.core.engine.protocol import LLMEngine
from ray.serve.llm.openai_api_models import ChatCompletionResponse

from serve_app.bench import canned
from serve_app.domain import Usage

CAPACITY = 256
PREFIX = "chatcmpl-"


class CannedQueues:
    """As `vllm_server.Queues`."""

    def __init__(self) -> None:
        self.capacity, self.waiting, self.running = CAPACITY, 0, 0
        self.prompt_tokens, self.generation_tokens = 0, 0


class CannedMeter:
    """As `vllm_server.Meter`: a generation's state is what it has been given so far."""

    def __init__(self) -> None:
        self.open: dict[str, list[Usage]] = {}

    @contextmanager
    def generation(self, name: str) -> Iterator[list[Usage]]:
        states: list[Usage] = []
        self.open[name] = states
        try:
            yield states
        finally:
            del self.open[name]

    def running(self, _states: list[Usage]) -> list[str]:
        return []

    @staticmethod
    def used(states: list[Usage]) -> Usage:
        return states[-1] if states else Usage()


class CannedClient:
    """The little of vLLM's client that the router and the pulse ask for: every digit is equally likely."""

    def __init__(self, source: str) -> None:
        self._source = source

    async def is_sleeping(self) -> bool:
        return False

    async def abort(self, *_: Any, **__: Any) -> None:
        """Nothing runs that could be aborted."""

    def get_tokenizer(self) -> Any:
        from transformers import AutoTokenizer  # noqa: PLC0415 - the tiers need none

        return AutoTokenizer.from_pretrained(self._source)

    async def generate(self, _prompt: Any, sampling: Any, request_id: str) -> AsyncGenerator[Any]:
        del request_id
        logprobs = {token: SimpleNamespace(logprob=-2.3) for token in sampling.allowed_token_ids}
        yield SimpleNamespace(outputs=[SimpleNamespace(logprobs=[logprobs])])


class CannedEngine(LLMEngine):  # type: ignore[misc]
    """Says what `canned` says."""

    def __init__(self, llm_config: Any) -> None:
        self.llm_config = llm_config
        self.queues, self.meter = CannedQueues(), CannedMeter()
        self._engine_client = CannedClient(str(llm_config.model_loading_config.model_source))
        self._numbers = itertools.count()

    async def start(self) -> None:
        """There is nothing to start."""

    def routing_stats(self) -> dict[str, Any]:
        return {}

    async def check_health(self) -> None:
        """It cannot break."""

    def kill(self) -> None:
        """There is no process behind it."""

    async def reset_prefix_cache(self) -> None:
        """It has none."""

    async def resolve_lora(self, lora_model: Any) -> None:
        raise NotImplementedError

    async def chat(self, request: Any, raw_request_info: Any = None) -> AsyncGenerator[Any]:
        del raw_request_info
        tokens = request.max_completion_tokens or request.max_tokens or canned.DEFAULT_TOKENS
        request_id = f"{PREFIX}{request.request_id or next(self._numbers)}"
        self._count(request_id, tokens)
        self.queues.running += 1
        try:
            if request.stream:
                async for event in canned.paced(canned.events(request_id, request.model, tokens), canned.INTERVAL_S):
                    yield event
            else:
                yield ChatCompletionResponse(**canned.answer(request_id, request.model, tokens))
        finally:
            self.queues.running -= 1

    def _count(self, request_id: str, tokens: int) -> None:
        self.queues.prompt_tokens += canned.PROMPT_TOKENS
        self.queues.generation_tokens += tokens
        if (states := self.meter.open.get(request_id)) is not None:
            states.append(Usage(canned.PROMPT_TOKENS, tokens))

    async def completions(self, *_: Any) -> AsyncGenerator[Any]:
        raise NotImplementedError
        yield

    async def embeddings(self, *_: Any) -> AsyncGenerator[Any]:
        raise NotImplementedError
        yield

    async def transcriptions(self, *_: Any) -> AsyncGenerator[Any]:
        raise NotImplementedError
        yield

    async def tokenize(self, request: Any, raw_request_info: Any = None) -> AsyncGenerator[Any]:
        del raw_request_info
        yield SimpleNamespace(model_dump=lambda **_: {"count": len(str(request.messages)) // 4})
