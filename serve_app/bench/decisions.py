"""Decisions alone: how many a CPU-second buys, at batch 1 and 16, on short and long prompts.

RouteLLM's own weights cannot be fetched without a network: its BERT router (`AutoModelForSequenceClassification`, three labels,
an XLM-RoBERTa of base size) is built with random weights and given as many tokens as the text would have. What it costs does not
depend on what it knows; its quality is taken from the paper (arXiv 2406.18665v4).
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.bench.contenders import LITELLM_ENV
from serve_app.errors import RequestError
from serve_app.evaluate import labelled
from serve_app.evaluate.routing_metrics import Outcomes

LENGTHS = {"short": 160, "long": 2_000}  # characters
BATCHES = (1, 16)
TOKENS_PER_CHAR = 0.25
LEAST_S = 1.0  # of CPU that a figure is measured over
MAX_CHARS = 2_048  # of a prompt that are embedded, as `router.max_chars` has it
Texts = list[str]


@dataclass(frozen=True, slots=True)
class Speed:
    """Decisions in one CPU-second."""

    what: str
    length: str
    batch: int
    per_cpu_second: float


def measure(say: Callable[[str], None]) -> list[Speed]:
    """All that run in this process, then LiteLLM's heuristic in its own."""
    found = []
    for name, decide in {**_ours(), "RouteLLM BERT (architecture)": _bert()}.items():
        for length, chars in LENGTHS.items():
            for batch in BATCHES:
                speed = Speed(name, length, batch, _rate(decide, texts(chars, 64), batch))
                say(f"{name}, {length}, batch {batch}: {speed.per_cpu_second:,.0f} per CPU-second")
                found.append(speed)
    for length, chars in LENGTHS.items():
        prompts = texts(chars, 2_000)
        _, spent = heuristic(prompts)
        found.append(Speed("LiteLLM's heuristic", length, 1, len(prompts) / spent))
    return found


def texts(chars: int, count: int) -> Texts:
    """Prompts of about `chars` characters out of the packaged ones, each another one."""
    whole = " ".join(row.prompt for row in labelled.packaged())
    step = max(1, (len(whole) - chars) // count)
    return [whole[i * step : i * step + chars] for i in range(count)]


def _rate(decide: Callable[[Texts], object], prompts: Texts, batch: int) -> float:
    """Decisions per CPU-second of this process, over at least `LEAST_S` of them."""
    decide(prompts[:batch])
    begun, done = time.process_time(), 0
    while (spent := time.process_time() - begun) < LEAST_S:
        start = done % (len(prompts) - batch + 1)
        decide(prompts[start : start + batch])
        done += batch
    return done / spent


def _ours() -> dict[str, Callable[[Texts], object]]:
    from serve_app.calibrations import builtin  # noqa: PLC0415
    from serve_app.embedding import SentenceEmbedder, identity  # noqa: PLC0415
    from serve_app.routing import features  # noqa: PLC0415
    from serve_app.settings import parse  # noqa: PLC0415

    settings = parse({"profile": "local"})
    embedder, label = SentenceEmbedder(settings.embedder), builtin(identity(settings.embedder))
    heads = _text_heads()
    return {
        "tierwise: rules": lambda some: [features.from_text(text) for text in some],
        "tierwise: learned heads, no embedding": lambda some: [heads.judge(text) for text in some],
        "tierwise: embedding": embedder.encode,
        "tierwise: packaged score": lambda some: _packaged(label, some, embedder.encode),
        "tierwise: packaged score, no embedding": lambda some: _packaged(label, some, None),
    }


def _packaged(label: Any, some: Texts, encode: Callable[[Texts], Sequence[Any]] | None) -> list[float | None]:
    """As serving scores it: every reading of a text, and all that is to be embedded of a batch at once."""
    readings = [label.read(text, MAX_CHARS) for text in some]
    found = iter(encode([one.embedded for mine in readings for one in mine])) if encode is not None else None
    return [label.highest(mine, None if found is None else [next(found) for _ in mine]) for mine in readings]


def _text_heads() -> Any:
    """Heads of the usual size; what they were fitted on does not matter for their speed."""
    from serve_app.domain import Tier  # noqa: PLC0415
    from serve_app.evaluate import fitting  # noqa: PLC0415

    rows = labelled.packaged()
    large = np.array([row.expected_tier is Tier.LARGE for row in rows], dtype=np.float64)
    return fitting.fit([row.prompt for row in rows], Outcomes(weak=1.0 - large, strong=np.ones(len(rows))))


def _bert() -> Callable[[Texts], object]:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForSequenceClassification, XLMRobertaConfig  # noqa: PLC0415

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=250_002, max_position_embeddings=514, type_vocab_size=1, num_labels=3)
    model = AutoModelForSequenceClassification.from_config(config).eval()

    def decide(some: Texts) -> object:
        tokens = min(512, max(8, round(max(map(len, some)) * TOKENS_PER_CHAR)))
        ids = torch.randint(10, 250_000, (len(some), tokens))
        with torch.no_grad():
            return model(ids).logits.softmax(-1)

    return decide


def heuristic(prompts: Sequence[str]) -> tuple[np.ndarray[Any, Any], float]:
    """LiteLLM's scores of `prompts`, and the CPU seconds that they took. Raises `RequestError` when LiteLLM is not there."""
    python = Path(os.environ.get(LITELLM_ENV, ".bench/litellm")) / "bin" / "python"
    if not python.is_file():
        raise RequestError(f"{python}: not there; `make bench` installs LiteLLM, {LITELLM_ENV} names another environment")
    script = Path(__file__).with_name("litellm_heuristic.py")
    lines = "".join(json.dumps(prompt) + "\n" for prompt in prompts)
    done = subprocess.run([str(python), str(script)], input=lines, capture_output=True, text=True, check=True, timeout=300)  # noqa: S603 - our own script
    *scores, last = done.stdout.splitlines()
    return np.array([float(score) for score in scores]), float(json.loads(last)["cpu_s"])
