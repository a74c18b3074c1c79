"""What `deployments/vllm_server.py` takes from Ray's and vLLM's private parts, held against the installed versions.

Ray and vLLM move only as a pair; when this fails after an upgrade, `vllm_server.py` is the one module to look at.
"""

import dataclasses
import inspect

import pytest
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm import LLMServer
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server import app_state
from vllm.entrypoints.launchers.cli_args import FrontendArgs
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.executor.abstract import Executor
from vllm.v1.metrics.loggers import StatLoggerManager
from vllm.v1.metrics.stats import IterationStats, SchedulerStats

from serve_app.deployments import vllm_server
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
