"""What `deployments/vllm_server.py` takes from Ray's and vLLM's private parts, held against the installed versions.

Ray and vLLM move only as a pair; when this fails after an upgrade, `vllm_server.py` is the one module to look at.
"""

import dataclasses
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from ray.llm._internal.serve.engines.vllm import vllm_engine
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve._private.request_router.replica_wrapper import RunningReplica
from ray.serve._private.request_router.request_router import RequestRouter
from ray.serve._private.router import AsyncioRouter
from ray.serve.handle import DeploymentResponseGenerator
from ray.serve.llm import LLMServer
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server import app_state
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.v1.engine import EngineCoreRequest, core_client
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor, RequestState
from vllm.v1.engine.utils import CoreEngineProcManager
from vllm.v1.executor.abstract import Executor
from vllm.v1.metrics.loggers import StatLoggerManager
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from serve_app.deployments import vllm_server
from serve_app.deployments.session_router import SessionRouter
from serve_app.domain import Usage
from serve_app.gateway.openai import IGNORED, ROUTED, ChatBody, CompletionBody
from serve_app.settings import PROFILES, EngineSettings, Settings, parse


def engines() -> list[tuple[str, EngineSettings]]:
    found: list[tuple[str, EngineSettings]] = []
    for profile in PROFILES:
        settings: Settings = parse({"profile": profile})
        found += [(f"{profile}.{name}", engine) for name, engine in settings.engines.items()]
    return found


def test_rays_engine_starts_where_we_hook_in() -> None:
    assert list(inspect.signature(VLLMEngine._start_async_llm_engine).parameters) == [
        "self",
        "vllm_engine_args",
        "vllm_engine_config",
        "placement_group",
    ]
    assert "callback.ctx.run_init_node" in inspect.getsource(VLLMEngine.start)
    assert "self._engine_client" in inspect.getsource(VLLMEngine.start)
    assert "_default_engine_cls" in inspect.getsource(LLMServer._get_default_engine_class)
    assert inspect.iscoroutinefunction(LLMServer.start)
    assert next(iter(inspect.signature(LLMServer.sync_init).parameters)) == "llm_config"


def test_vllm_counts_tokens_under_the_name_that_we_hand_to_ray() -> None:
    assert "state.serving_tokenization =" in inspect.getsource(app_state)
    assert "self._app_state = state" in inspect.getsource(VLLMEngine.start)
    assert "self._oai_serving_tokenization.create_tokenize" in inspect.getsource(VLLMEngine.tokenize)


def test_vllms_stat_loggers_are_a_list_that_every_step_reports_to() -> None:
    assert "self.logger_manager" in inspect.getsource(AsyncLLM.__init__)
    assert "for stat_logger in self.stat_loggers" in inspect.getsource(StatLoggerManager.record)
    stats = SchedulerStats()
    assert (stats.num_waiting_reqs, stats.num_running_reqs) == (0, 0)
    counted = IterationStats()
    assert (counted.num_prompt_tokens, counted.num_generation_tokens) == (0, 0)


# What a cancelled generation used


class Processor:
    """vLLM's output processor, as far as `Meter` knows it."""

    def __init__(self) -> None:
        self.request_states: dict[str, Any] = {}

    def add_request(self, request: Any, prompt: str | None, parent: Any = None, index: int = 0, queue: Any = None) -> None:
        self.request_states[request.request_id] = request.state


def state(prompt: int, generated: int, *, cached: int = 0, prefilling: bool = False) -> Any:
    stats = SimpleNamespace(num_generation_tokens=generated)
    return SimpleNamespace(prompt_len=prompt, stats=stats, num_cached_tokens=cached, is_prefilling=prefilling)


def add(processor: Processor, external: str, internal: str, of: Any) -> None:
    of.request_id = internal
    processor.add_request(SimpleNamespace(external_req_id=external, request_id=internal, state=of), "text", None, 0, None)


def test_every_choice_and_prompt_of_a_generation_counts_once_it_has_begun() -> None:
    processor = Processor()
    meter = vllm_server.Meter(processor)
    with meter.generation("cmpl-tw-1-0") as states:
        add(processor, "cmpl-tw-1-0-0", "a", state(10, 5, cached=4))
        add(processor, "cmpl-tw-1-0-1", "b", state(7, 0, prefilling=True))
        add(processor, "cmpl-tw-1-1-0", "c", state(99, 99))
        add(processor, "chatcmpl-tw-1-0", "d", state(99, 99))
        del processor.request_states["a"]
        assert meter.running(states) == ["b"]
    assert meter.used(states) == Usage(10, 5, 4)
    add(processor, "cmpl-tw-1-0-0", "late", state(99, 99))
    assert meter.used(states) == Usage(10, 5, 4), "a generation that has ended takes nothing more"


def test_a_chats_own_number_is_not_taken_for_that_of_a_prompt() -> None:
    processor = Processor()
    meter = vllm_server.Meter(processor)
    with meter.generation("chatcmpl-tw-1") as first, meter.generation("chatcmpl-tw-1-1") as second:
        add(processor, "chatcmpl-tw-1-1", "0_x", state(10, 5))
        add(processor, "chatcmpl-tw-1-1", "1_x", state(10, 6))
    assert (meter.used(first), meter.used(second)) == (Usage(), Usage(20, 11))


def test_vllm_counts_into_states_that_we_can_hold() -> None:
    assert list(inspect.signature(OutputProcessor.add_request).parameters)[:2] == ["self", "request"]
    assert "self.output_processor.add_request(" in inspect.getsource(AsyncLLM._add_request)
    assert "self.request_states[request_id] = req_state" in inspect.getsource(OutputProcessor.add_request)
    made = inspect.getsource(RequestState.__init__)
    for name in ("self.request_id", "self.prompt_len", "self.is_prefilling", "self.num_cached_tokens", "self.stats"):
        assert f"{name} = " in made
    assert "external_req_id" in EngineCoreRequest.__struct_fields__
    counting = inspect.getsource(IterationStats.update_from_output)
    assert "req_stats.num_generation_tokens += num_new_generation_tokens" in counting
    assert "if is_prefilling:" in counting, "a prompt counts with its first output"
    assert "Ignore output for already-aborted request" in inspect.getsource(OutputProcessor.process_outputs)


def test_vllm_puts_these_prefixes_before_our_request_id() -> None:
    chat, completion = inspect.getsource(OpenAIServingChat), inspect.getsource(OpenAIServingCompletion)
    assert 'f"chatcmpl-{self._base_request_id(' in chat
    assert 'f"cmpl-{self._base_request_id(' in completion
    assert 'request_id_item = f"{request_id}-{i}"' in completion
    assert vllm_server.ID_PREFIX == {"chat": "chatcmpl-", "completion": "cmpl-"}
    assert 'headers["x-request-id"] = str(rid)' in inspect.getsource(vllm_engine._canonicalize_request_id_header)


def test_what_is_left_in_the_engine_can_be_aborted_by_vllms_own_ids() -> None:
    assert list(inspect.signature(AsyncLLM.abort).parameters) == ["self", "request_id", "internal"]


def test_a_core_can_be_asked_for_a_sign_of_life_and_killed() -> None:
    assert inspect.iscoroutinefunction(AsyncLLM.is_sleeping)
    assert 'call_utility_async("is_sleeping")' in inspect.getsource(core_client.AsyncMPClient.is_sleeping_async)
    assert "self.resources.engine_manager = " in inspect.getsource(core_client.MPClient.__init__)
    assert "self.processes: list[BaseProcess] = []" in inspect.getsource(CoreEngineProcManager.__init__)


# Ray's routing of handle calls, which `clients.py` and `session_router.py` reach into


def test_a_handles_call_tells_when_a_replica_took_it() -> None:
    assert inspect.iscoroutinefunction(DeploymentResponseGenerator._fetch_future_result_async)
    assert "await self._fetch_future_result_async()" in inspect.getsource(DeploymentResponseGenerator.__anext__)
    assert "await result.get_rejection_response()" in inspect.getsource(AsyncioRouter._route_and_send_request_once)


def test_the_session_router_overrides_what_is_there() -> None:
    for name in ("choose_replicas", "create_replica_wrapper", "_fulfill_next_pending_request"):
        given, ours = getattr(RequestRouter, name), getattr(SessionRouter, name)
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(given).parameters), name
    assert "_get_pending_request_matching_internal_request_id" in inspect.getsource(RequestRouter._fulfill_next_pending_request)
    assert isinstance(inspect.getattr_static(RunningReplica, "max_ongoing_requests"), property)
    assert ">= r.max_ongoing_requests" in inspect.getsource(RequestRouter._select_from_candidate_replicas)


def test_the_in_process_executor_exists() -> None:
    source = inspect.getsource(Executor.get_class)
    assert '"uni"' in source


def test_all_ten_digits_can_be_asked_for() -> None:
    digits = list(range(10, 20))
    params = SamplingParams(max_tokens=1, temperature=0.0, allowed_token_ids=digits, logprob_token_ids=digits, detokenize=False)
    assert params.logprob_token_ids == digits


@pytest.mark.parametrize(("name", "settings"), engines())
def test_every_engine_argument_of_the_profiles_is_known(name: str, settings: EngineSettings) -> None:
    known = {field.name for cls in (AsyncEngineArgs, FrontendArgs) for field in dataclasses.fields(cls)}
    assert set(settings.engine_kwargs) <= known, name
    config = vllm_server.llm_config(settings)
    assert config.get_engine_config().engine_kwargs["max_model_len"] == settings.max_model_len


@pytest.mark.parametrize(("kind", "body"), [("chat", ChatBody), ("completion", CompletionBody)])
def test_every_field_that_passes_is_one_that_the_engine_reads(kind: str, body: type[ChatBody] | type[CompletionBody]) -> None:
    passed = set(body.model_fields) - IGNORED - ROUTED
    assert passed <= set(vllm_server.REQUEST_MODELS[kind].model_fields)
