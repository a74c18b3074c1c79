"""What `make quality` measures on the development data: which rows, by which command, and what was aimed at."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import serve_app
from serve_app import offline
from serve_app.domain import Json
from serve_app.evaluate import gain
from serve_app.evaluate.corpus import Array
from serve_app.settings import parse

FOLDER_ENV = "TIERWISE_ROUTING_DATA"
MMLU, GSM8K = "routellm_mmlu_mixtral_gpt4", "routellm_gsm8k_mixtral_gpt4"
MMLU_PRO, ZEROEVAL = "mmlu_pro_llama31_8b_70b", "zeroeval_llama31_8b_70b"
ULAB, ROUTERBENCH, BBH = "ulab_llmrouter_llama31_8b_nemotron51b", "routerbench_part_mixtral_gpt4", "ollv2_qwen25_7b_72b"


@dataclass(frozen=True, slots=True)
class Goal:
    """`published` is RouteLLM's best in arXiv 2406.18665v4 (APGR, CPT80), where there is one."""

    apgr: float
    cpt_80: float | None = None
    published: str = "-"


@dataclass(frozen=True, slots=True)
class Study:
    """`seeds`: of the outer folds; the interval is the first one's, the mean is over all."""

    name: str
    title: str
    files: tuple[str, ...]
    goal: Goal
    seeds: tuple[int, ...] = (0,)
    train_elsewhere: bool = False
    centroids: bool = False
    embed: bool = True
    quick: bool = False

    def command(self, *, centroids: bool) -> str:
        flags = {"--train-elsewhere": self.train_elsewhere, "--centroids": self.centroids and centroids, "--no-embed": not self.embed}
        data = " ".join(f"--data $DATA/{name}.jsonl" for name in self.files)
        return " ".join(["tierwise evaluate", data, *(flag for flag, on in flags.items() if on)])


STUDIES = (
    Study("mmlu", "MMLU, Mixtral / GPT-4", (MMLU,), Goal(0.68, 0.58, ".603, .716"), (0, 1, 2), centroids=True, quick=True),
    Study("gsm8k", "GSM8K, Mixtral / GPT-4", (GSM8K,), Goal(0.66, None, ".622, .633"), (0, 1, 2), centroids=True, quick=True),
    Study("mixed", "MMLU-Pro + ZeroEval, Llama-3.1 8B / 70B", (MMLU_PRO, ZEROEVAL), Goal(0.57), embed=False),
    Study("ulab", "14 tasks (ulab), Llama-3.1 8B / Nemotron-51B", (ULAB,), Goal(0.79), centroids=True),
    Study(
        "elsewhere",
        "a benchmark never seen",
        (MMLU, GSM8K, MMLU_PRO, ZEROEVAL, ULAB, ROUTERBENCH, BBH),
        Goal(0.57),
        train_elsewhere=True,
        embed=False,
    ),
)


def folder() -> Path:
    return Path(os.environ.get(FOLDER_ENV) or Path(serve_app.__file__).parents[2] / "shared" / "data" / "routing")


def absent(data: Path, study: Study) -> list[str]:
    return [name for name in study.files if not (data / f"{name}.jsonl").is_file()]


def run(study: Study, data: Path, *, quick: bool) -> list[Json]:
    """The report of each seed; the reduced form takes the first one only and embeds nothing.

    A text is embedded once for all seeds. Each report says how many minutes it took.
    """
    embedded, reports = _remembering(offline.embed_with(parse({"profile": "local"}), _silently)), []
    for seed in study.seeds[:1] if quick else study.seeds:
        started = time.monotonic()
        report = offline.evaluate(
            [data / f"{name}.jsonl" for name in study.files],
            calibration=None,
            train_elsewhere=study.train_elsewhere,
            centroids=study.centroids and not quick,
            embed=study.embed and not quick,
            profile="local",
            seed=seed,
            progress=_silently,
            embedded=embedded,
        )
        reports.append({**report, "minutes": round((time.monotonic() - started) / 60, 2)})
    return reports


def _remembering(embed: gain.Embed) -> gain.Embed:
    """Holds the embeddings of one study's texts."""
    known: dict[str, Array] = {}

    def embedded(prompts: Sequence[str]) -> Array:
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        known.update(zip(missing, embed(missing), strict=True) if missing else ())
        return np.stack([known[prompt] for prompt in prompts])

    return embedded


def _silently(items: Iterable[Any], _: str) -> Iterator[Any]:
    return iter(items)
