"""Load by vLLM's own generator (`vllm bench serve`), in this process: its import takes ten seconds, and there are many runs.

Only the plain, not streamed, request is ours: vLLM's generator streams always. It is given to vLLM as one more backend.
"""

import asyncio
import contextlib
import io
import json
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

UNARY, STREAM = "tierwise-unary", "openai-chat"


@dataclass(frozen=True, slots=True)
class Load:
    """`requests` of `tokens` each. Closed loop: `concurrency` at a time. Open loop: `rate` a second, Poisson; burstier below 1."""

    requests: int
    tokens: int
    stream: bool
    concurrency: int | None = None
    rate: float = float("inf")
    burstiness: float = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run: seconds on the clock, requests a second, milliseconds to the first token and to the end, and how many failed."""

    seconds: float
    requests_s: float
    tokens_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    e2e_mean_ms: float
    e2e_p50_ms: float
    e2e_p99_ms: float
    failed: int


def run(url: str, model: str, prompts: list[str], load: Load, headers: dict[str, str] | None = None) -> Figures:
    """Put `load` on `url` and wait for its end. `prompts` are used in turn."""
    serve, sample, task = _vllm()
    wanted = [sample(prompt=prompts[i % len(prompts)], prompt_len=0, expected_output_len=load.tokens) for i in range(load.requests)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        found = asyncio.run(
            serve.benchmark(
                task_type=task.GENERATION,
                endpoint_type=STREAM if load.stream else UNARY,
                api_url=f"{url}/v1/chat/completions",
                base_url=url,
                model_id=model,
                model_name=model,
                tokenizer=None,
                input_requests=wanted,
                logprobs=None,
                request_rate=load.rate,
                burstiness=load.burstiness,
                disable_tqdm=True,
                num_warmups=0,
                profile=False,
                selected_percentile_metrics=["ttft", "e2el"],
                selected_percentiles=[50.0, 99.0],
                ignore_eos=False,
                goodput_config_dict={},
                max_concurrency=load.concurrency,
                lora_modules=None,
                extra_headers=headers,
                extra_body={"temperature": 0.0},
                ready_check_timeout_sec=0,
            )
        )
    return _figures(found, load)


def _figures(found: dict[str, Any], load: Load) -> Figures:
    first = np.array(found["ttfts"], dtype=np.float64) * 1000
    return Figures(
        seconds=float(found["duration"]),
        requests_s=float(found["request_throughput"]),
        tokens_s=float(found["output_throughput"]),
        ttft_p50_ms=float(np.percentile(first, 50)),
        ttft_p99_ms=float(np.percentile(first, 99)),
        e2e_mean_ms=float(found["mean_e2el_ms"]),
        e2e_p50_ms=float(found["median_e2el_ms"]),
        e2e_p99_ms=float(found["p99_e2el_ms"]),
        failed=load.requests - int(found["completed"]),
    )


@cache
def _vllm() -> tuple[Any, Any, Any]:
    from vllm.benchmarks import serve  # noqa: PLC0415 - takes ten seconds
    from vllm.benchmarks.datasets import SampleRequest  # noqa: PLC0415
    from vllm.benchmarks.lib import endpoint_request_func  # noqa: PLC0415

    endpoint_request_func.ASYNC_REQUEST_FUNCS[UNARY] = _unary
    return serve, SampleRequest, serve.TaskType


async def _unary(request_func_input: Any, session: Any, pbar: Any = None, **_: Any) -> Any:
    """One plain answer, by the contract of vLLM's request functions: the first token comes with the last."""
    from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput  # noqa: PLC0415

    del pbar
    request = request_func_input
    output = RequestFuncOutput(prompt_len=request.prompt_len, start_time=time.perf_counter())
    body = {"model": request.model_name, "messages": [{"role": "user", "content": request.prompt}], "max_tokens": request.output_len}
    try:
        async with session.post(request.api_url, json={**body, **(request.extra_body or {})}, headers=request.extra_headers) as response:
            answer = json.loads(await response.read())
            output.success = response.status == 200
            output.latency = output.ttft = time.perf_counter() - output.start_time
            if output.success:
                output.output_tokens = answer["usage"]["completion_tokens"]
                output.generated_text = answer["choices"][0]["message"]["content"]
            else:
                output.error = f"HTTP {response.status}"
    except Exception as error:  # noqa: BLE001 - whatever it is counts as a failed request and is shown
        output.error = str(error)
    return output
