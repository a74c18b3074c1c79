"""What `make quality` measures on the development data: which rows, by which command, and what was aimed at."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import serve_app
from serve_app import offline
from serve_app.domain import Json

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
    embed: bool = False
    quick: bool = False

    def command(self, *, centroids: bool) -> str:
        flags = {"--train-elsewhere": self.train_elsewhere, "--centroids": self.centroids and centroids, "--embed": self.embed}
        data = " ".join(f"--data $DATA/{name}.jsonl" for name in self.files)
        return " ".join(["tierwise evaluate", data, *(flag for flag, on in flags.items() if on)])


STUDIES = (
    Study("mmlu", "MMLU, Mixtral / GPT-4", (MMLU,), Goal(0.68, 0.58, ".603, .716"), (0, 1, 2), centroids=True, quick=True),
    Study("gsm8k", "GSM8K, Mixtral / GPT-4", (GSM8K,), Goal(0.66, None, ".622, .633"), (0, 1, 2), centroids=True, quick=True),
    Study("mixed", "MMLU-Pro + ZeroEval, Llama-3.1 8B / 70B", (MMLU_PRO, ZEROEVAL), Goal(0.57)),
    Study("ulab", "14 tasks (ulab), Llama-3.1 8B / Nemotron-51B", (ULAB,), Goal(0.79)),
    Study("ulab-embedding", "the same, may use MiniLM", (ULAB,), Goal(0.79), centroids=True, embed=True),
    Study(
        "elsewhere",
        "a benchmark never seen",
        (MMLU, GSM8K, MMLU_PRO, ZEROEVAL, ULAB, ROUTERBENCH, BBH),
        Goal(0.57),
        train_elsewhere=True,
    ),
)


def folder() -> Path:
    return Path(os.environ.get(FOLDER_ENV) or Path(serve_app.__file__).parents[2] / "shared" / "data" / "routing")


def absent(data: Path, study: Study) -> list[str]:
    return [name for name in study.files if not (data / f"{name}.jsonl").is_file()]


def run(study: Study, data: Path, *, quick: bool) -> list[Json]:
    """The report of each seed; the reduced form takes the first one only and embeds nothing."""
    return [
        offline.evaluate(
            [data / f"{name}.jsonl" for name in study.files],
            calibration=None,
            train_elsewhere=study.train_elsewhere,
            centroids=study.centroids and not quick,
            embed=study.embed,
            profile="local",
            seed=seed,
            progress=_silently,
        )
        for seed in (study.seeds[:1] if quick else study.seeds)
    ]


def _silently(items: Iterable[Any], _: str) -> Iterator[Any]:
    return iter(items)
