"""Measure the checkpoints in vLLM on one CPU thread: `python -m serve_app.demo.measure NAME...` prints one JSON line for each.

Each name is best measured in a run of its own: an engine's memory is only surely free when its process has ended.
"""

import json
import math
import os
import sys
import time
from typing import Any

from serve_app.demo import path
from serve_app.demo.rating import Prompter

TOKENS = 128
EASY, HARD = "What is the capital of Kenya?", "Prove that vertex cover is NP-complete and derive an approximation bound."


def engine(name: str) -> Any:
    """A vLLM engine of a packaged checkpoint: eager, bf16, one thread."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    from vllm import LLM  # noqa: PLC0415 - reads the environment above, and takes seconds

    return LLM(model=str(path(name)), enforce_eager=True, dtype="bfloat16", max_model_len=2048)


def speed(llm: Any, rows: int) -> float:
    """Tokens per second of `rows` simultaneous answers of `TOKENS` tokens; the best of three runs."""
    from vllm import SamplingParams  # noqa: PLC0415

    params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, temperature=0)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        llm.generate(["Hello there, how are you today?"] * rows, params, use_tqdm=False)
        times.append(time.perf_counter() - started)
    return rows * TOKENS / min(times)


def chat(llm: Any) -> str:
    """One greedy answer through the chat template."""
    from vllm import SamplingParams  # noqa: PLC0415

    messages = [{"role": "user", "content": "What is the capital of Kenya?"}]
    return str(llm.chat(messages, SamplingParams(max_tokens=40, temperature=0), use_tqdm=False)[0].outputs[0].text)


def digits(llm: Any, text: str) -> dict[str, float]:
    """Each digit's probability as the router's next token, asked for as serving does."""
    from vllm import SamplingParams  # noqa: PLC0415

    prompter = Prompter(llm.get_tokenizer())
    ids = prompter.digit_ids
    params = SamplingParams(max_tokens=1, temperature=0, allowed_token_ids=ids, logprob_token_ids=ids)
    output = llm.generate([{"prompt_token_ids": prompter(text)}], params, use_tqdm=False)[0].outputs[0]
    return {str(digit): round(math.exp(output.logprobs[0][token].logprob), 4) for digit, token in enumerate(ids)}


def measure(name: str) -> dict[str, Any]:
    """What the README states about a checkpoint."""
    llm = engine(name)
    found: dict[str, Any] = {"name": name, "tokens_per_s": round(speed(llm, 1)), "tokens_per_s_8_rows": round(speed(llm, 8))}
    if name == "tiny-qwen-router":
        return found | {"easy": digits(llm, EASY), "hard": digits(llm, HARD)}
    return found | {"answer": chat(llm)}


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(json.dumps(measure(argument)), flush=True)
