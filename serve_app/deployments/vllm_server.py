"""vLLM through `ray.serve.llm`: the only module that imports either. Import it inside a replica, never in the builder.

`ray.serve.llm` gives the engine's life and the OpenAI semantics. What is private to Ray or vLLM and used all the same
stands in this module only, and `tests/vllm/test_contract.py` holds it against the installed versions.
"""

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from ray.llm._internal.serve.core.protocol import RawRequestInfo
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm import LLMConfig, LLMServer
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from vllm import SamplingParams
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest, TokenizeCompletionRequest
from vllm.exceptions import VLLMClientError
from vllm.v1.metrics.loggers import StatLoggerBase

from serve_app.demo import resolve
from serve_app.deployments.coalesce import coalesce
from serve_app.deployments.pulse import Pulse
from serve_app.deployments.settlement import Settlements
from serve_app.domain import Json, Kind, SelfAssessment, Usage
from serve_app.routing import self_assessment
from serve_app.settings import EngineSettings

HOLD_S = 0.025
FIELD = re.compile(r"[a-z_]+")
# What a body that the engine cannot read raises while its request is made: the client's fault, never the engine's.
MALFORMED = (ValidationError, VLLMClientError, ValueError, TypeError)
# What vLLM's OpenAI layer puts before our request id; behind it a completion gets the number of its prompt.
ID_PREFIX = {"chat": "chatcmpl-", "completion": "cmpl-"}
REQUEST_MODELS = {"chat": ChatCompletionRequest, "completion": CompletionRequest}


class Queues(StatLoggerBase):  # type: ignore[misc]
    """The engine's own queues and token counters, as its scheduler reports them after every step."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.capacity = int(vllm_config.scheduler_config.max_num_seqs)
        self.engine_index = engine_index
        self.waiting = 0
        self.running = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0) -> None:
        del mm_cache_stats, engine_idx
        if scheduler_stats is not None:
            self.waiting = scheduler_stats.num_waiting_reqs
            self.running = scheduler_stats.num_running_reqs
        if iteration_stats is not None:
            self.prompt_tokens += iteration_stats.num_prompt_tokens
            self.generation_tokens += iteration_stats.num_generation_tokens

    def log_engine_initialized(self) -> None:
        """Nothing to say: vLLM's own logger does."""


class Meter:
    """Keeps hold of vLLM's own states of the open generations, one for each choice and prompt.

    vLLM counts into a state exactly what it reports to its stat loggers, and forgets the state when it ends. Kept here,
    it still says what was counted: for a generation that was cancelled, and for one whose end nobody read.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._open: dict[str, list[Any]] = {}
        self._add_request = processor.add_request
        processor.add_request = self._added

    def _added(self, request: Any, *args: Any, **kwargs: Any) -> None:
        self._add_request(request, *args, **kwargs)
        name = request.external_req_id
        states = self._open.get(name, self._open.get(name.rpartition("-")[0]))
        if states is not None:
            states.append(self._processor.request_states[request.request_id])

    @contextmanager
    def generation(self, name: str) -> Iterator[list[Any]]:
        """The states of one generation as they come; `name` is what vLLM makes of our request id."""
        states: list[Any] = []
        self._open[name] = states
        try:
            yield states
        finally:
            del self._open[name]

    def running(self, states: list[Any]) -> list[str]:
        """vLLM's ids of those that have not ended."""
        return [state.request_id for state in states if state.request_id in self._processor.request_states]

    @staticmethod
    def used(states: list[Any]) -> Usage:
        """As the engine's counters have it: a prompt counts with its first token, and once for each of its choices."""
        begun = [state for state in states if not state.is_prefilling]
        return Usage(
            prompt_tokens=sum(state.prompt_len for state in begun),
            completion_tokens=sum(state.stats.num_generation_tokens for state in begun),
            cached_tokens=sum(state.num_cached_tokens for state in begun),
        )


class CountingEngine(VLLMEngine):  # type: ignore[misc]
    """Ray's vLLM engine with our counters beside vLLM's, and two processes less for a packaged model on CPU."""

    queues: Queues
    meter: Meter

    async def start(self) -> None:
        if self._has_local_model():
            # Nothing to download: the task that would do it imports vLLM once more on every node.
            self.llm_config.get_or_create_callback().ctx.run_init_node = False
        await super().start()
        # vLLM 0.29 keeps its tokenizer service under a name that Ray 2.60 does not look for.
        self._oai_serving_tokenization: Any = self._app_state.serving_tokenization

    def _has_local_model(self) -> bool:
        return Path(self.llm_config.get_engine_config().actual_hf_model_id).is_dir()

    def _start_async_llm_engine(self, engine_args: Any, engine_config: Any, placement_group: Any) -> Any:
        if self.llm_config.accelerator_type is None:
            # Ray sets `mp` on CPU: a worker process that imports vLLM a third time for one rank. In-process does the same work.
            engine_config.parallel_config.distributed_executor_backend = "uni"
        client = super()._start_async_llm_engine(engine_args, engine_config, placement_group)
        self.queues = Queues(engine_config)
        client.logger_manager.stat_loggers.append(self.queues)
        self.meter = Meter(client.output_processor)
        return client

    def kill(self) -> None:
        """Kill the core's processes, which also ends one that is stopped; every open request then fails."""
        for process in self._engine_client.engine_core.resources.engine_manager.processes:
            process.kill()


class EngineServer(LLMServer):  # type: ignore[misc]
    """One started engine, its queues and its pulse."""

    _default_engine_cls = CountingEngine
    pulse: Pulse
    beating: asyncio.Task[None]
    settlements: Settlements

    @classmethod
    async def started(cls, settings: EngineSettings) -> Self:
        server: Self = cls.sync_init(llm_config(settings))
        await server.start()
        server.pulse = Pulse(server._client.is_sleeping, server.engine.kill, stall_s=settings.stall_s)
        server.beating = asyncio.create_task(server.pulse.run())
        server.settlements = Settlements()
        return server

    async def check_health(self) -> None:
        await super().check_health()
        self.pulse.check()

    def queues(self) -> dict[str, int]:
        """waiting and running requests, capacity in sequences, and the engine's token counters."""
        queues = self.engine.queues
        names = ("waiting", "running", "capacity", "prompt_tokens", "generation_tokens")
        return {name: getattr(queues, name) for name in names}

    @property
    def _client(self) -> Any:
        return self.engine._engine_client  # noqa: SLF001 - Ray keeps vLLM's client private; held by the contract test


class TierServer(EngineServer):
    """Generates behind the tiers' contract: JSON in, server-sent events or one dict out."""

    async def generate(self, kind: Kind, body: Json, request_id: str, trace: str | None = None) -> AsyncGenerator[str | Json]:
        """Yield SSE strings (`stream`) or one dict. A refusal by the engine is one dict `{"error": {...}}`.

        vLLM makes spans of its own below `trace` where `otlp_traces_endpoint` is among its arguments.
        """
        try:
            request = REQUEST_MODELS[kind](**body, request_id=request_id)
        except MALFORMED as error:
            yield {"error": {"code": 400, "message": _problem(error)}}
            return
        method = self.engine.chat if kind == "chat" else self.engine.completions
        async with self._settling(kind, request_id), aclosing(coalesce(method(request, _headers(trace)), HOLD_S)) as items:
            async for item in items:
                yield item if isinstance(item, str) else item.model_dump(mode="json", exclude_none=True)

    @asynccontextmanager
    async def _settling(self, kind: Kind, request_id: str) -> AsyncGenerator[None]:
        """Keep what the generation used, however it ends, and leave nothing of it in the engine."""
        meter = self.engine.meter
        with meter.generation(ID_PREFIX[kind] + request_id) as states:
            try:
                yield
            finally:
                try:
                    # One that is cancelled while vLLM is still handing it to the core is not aborted by vLLM itself.
                    if left := meter.running(states):
                        await self._client.abort(left, internal=True)
                finally:
                    self.settlements.keep(request_id, meter.used(states))

    async def count(self, kind: Kind, body: Json) -> Json:
        """The prompt's tokens by the engine's own renderer, so that template and tools are part of it."""
        try:
            request = _tokenize_request(kind, body)
        except MALFORMED as error:
            return {"error": {"code": 400, "message": _problem(error)}}
        answers = [answer async for answer in self.engine.tokenize(request)]
        answer = answers[-1].model_dump(mode="json")
        return {"error": answer["error"]} if answer.get("error") else {"tokens": answer["count"]}


class RouterServer(EngineServer):
    """Rates requests. The template and the digits' token ids live here, where the tokenizer is."""

    async def prepare(self, max_tokens: int) -> None:
        tokenizer = self._client.get_tokenizer()
        self._encode = tokenizer.encode
        self._prefix = tokenizer.encode(self_assessment.PREFIX, add_special_tokens=False)
        self._suffix = tokenizer.encode(self_assessment.SUFFIX, add_special_tokens=False)
        self._digits = [_only_token(tokenizer, digit) for digit in self_assessment.DIGITS]
        self._max_tokens = max_tokens
        self._calls = itertools.count()
        self._sampling = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            allowed_token_ids=self._digits,
            logprob_token_ids=self._digits,
            detokenize=False,
        )

    async def assess(self, text: str) -> SelfAssessment:
        """Rate `text`. The text's special tokens are split up, so that it cannot leave its place in the prompt."""
        ids = self._encode(text, add_special_tokens=False, split_special_tokens=True)
        prompt = {"prompt_token_ids": self_assessment.build_prompt(self._prefix, ids, self._suffix, self._max_tokens)}
        answers = [answer async for answer in self._client.generate(prompt, self._sampling, request_id=f"assess-{next(self._calls)}")]
        if not answers or not answers[-1].outputs[0].logprobs:
            raise RuntimeError("the router engine gave no log-probabilities")
        logprobs = {token: entry.logprob for token, entry in answers[-1].outputs[0].logprobs[0].items()}
        return self_assessment.read_rating(logprobs, self._digits)


def _headers(trace: str | None) -> RawRequestInfo | None:
    return None if trace is None else RawRequestInfo(headers={"traceparent": trace})


def _tokenize_request(kind: Kind, body: Json) -> Any:
    if kind == "chat":
        return TokenizeChatRequest(messages=body["messages"], tools=body.get("tools"))
    prompt = body["prompt"]
    return TokenizeCompletionRequest(prompt=prompt if isinstance(prompt, str) else max(prompt, key=len))


def _only_token(tokenizer: Any, digit: str) -> int:
    ids = tokenizer.encode(digit, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(f"the digit {digit} is {len(ids)} tokens in this router model: it cannot rate in one step")
    return int(ids[0])


def _problem(error: Exception) -> str:
    """One sentence for the client: the field of pydantic's report and what is wrong with it, or vLLM's own message."""
    if isinstance(error, VLLMClientError):
        return str(error).splitlines()[0]
    if not isinstance(error, ValidationError):
        return "The model's engine cannot read this request."
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or FIELD.fullmatch(part))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def llm_config(settings: EngineSettings) -> LLMConfig:
    """Ray's configuration of one engine. Placement and replicas are the deployment's (see `tier_engine.py`)."""
    kwargs = dict(settings.engine_kwargs)
    if settings.model.revision is not None:
        kwargs["revision"] = settings.model.revision
        kwargs["tokenizer_revision"] = settings.model.revision
    return LLMConfig(
        model_loading_config={"model_id": settings.model.id, "model_source": resolve(settings.model.source)},
        engine_kwargs=kwargs,
        accelerator_type=settings.accelerator_type,
        accelerator_config=None if settings.accelerator_type else {"kind": "cpu"},
        runtime_env={"env_vars": dict(settings.env)},
        log_engine_metrics=True,
    )
