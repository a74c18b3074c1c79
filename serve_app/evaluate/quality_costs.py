"""What a decision costs, and whether random orders give what RouteLLM's paper has: measured for docs/routing-quality.md."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from serve_app import offline
from serve_app.evaluate import fitting, rows, studies
from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.studies import Study
from serve_app.routing import neighbours
from serve_app.routing.heads import Heads, dump
from serve_app.settings import parse

LENGTHS = (512, 2_048, 20_000)  # characters; 512 are about 128 tokens
REPEATS, EMBEDDED = 200, 30
ENOUGH = 1_500  # rows, for an artefact whose speed is measured
SCORED = 5_000
ORDERS = 200
DIM = 384
PAPER = {studies.MMLU: ("MMLU", 0.500, 0.5007, 0.7993), studies.GSM8K: ("GSM8K", 0.497, 0.5000, 0.8008)}


@dataclass(frozen=True, slots=True)
class Timing:
    """Thread time of one step of a decision, in milliseconds."""

    path: str
    chars: int
    median: float
    p99: float


@dataclass(frozen=True)
class Costs:
    """`per_second`: prompts that `tierwise score` gets through by the text alone, of `scored` ones, in wall time."""

    timings: list[Timing]
    per_second: float
    scored: int = SCORED


def measured(data: Path, study: Study, *, embedder: bool) -> Costs:
    """By an artefact that is fitted on some of the study's rows; `embedder` loads the model, seconds of import."""
    read = rows.read([data / f"{name}.jsonl" for name in study.files])
    table = read.select(range(min(len(read.rows), ENOUGH)))
    heads, text = fitting.fit(table.prompts, table.outcomes), " ".join(table.prompts)
    found = [_timed("text alone", chars, heads.judge, _parts(text, chars, REPEATS)) for chars in LENGTHS]
    found.append(_with_evidence())
    if embedder:
        embed = offline.LazyEmbedder(parse({"profile": "local"}).embedder)
        parts = [neighbours.excerpt(part) for part in _parts(text, LENGTHS[0], EMBEDDED)]
        embed.encode(parts[:1])
        found.append(_timed("the embedder", LENGTHS[0], lambda part: embed.encode([part]), iter(parts)))
    return Costs(found, _per_second(heads, table.prompts))


def reproduced(data: Path) -> list[list[str]]:
    """Random orders of RouteLLM's rows against its paper, a table row of each that is there."""
    random, found = np.random.default_rng(0), []
    for name, (title, *paper) in PAPER.items():
        if (data / f"{name}.jsonl").is_file():
            outcomes = rows.read([data / f"{name}.jsonl"]).outcomes
            orders = [random.random(len(outcomes.weak)) for _ in range(ORDERS)]
            ours = [np.mean([metrics.apgr(one, outcomes) for one in orders])]
            ours += [np.mean([metrics.cpt(one, outcomes, gap) for one in orders]) for gap in (0.5, 0.8)]
            oracle = metrics.apgr(metrics.oracle_scores(outcomes), outcomes)
            found.append([title, *(f"{a:.3f} / {b:.3f}" for a, b in zip(ours, paper, strict=True)), f"{oracle:.3f}"])
    return found


def _parts(text: str, chars: int, count: int) -> Iterator[str]:
    return (text[start * 97 : start * 97 + chars] for start in range(count))


def _timed(path: str, chars: int, step: Callable[[Any], object], parts: Iterator[Any]) -> Timing:
    spent = []
    for part in parts:
        begun = time.thread_time()
        step(part)
        spent.append((time.thread_time() - begun) * 1000)
    return Timing(path, chars, float(np.median(spent)), float(np.quantile(spent, 0.99)))


def _per_second(heads: Heads, prompts: list[str]) -> float:
    lines = [json.dumps({"id": i, "prompt": prompt}) for i, prompt in zip(range(SCORED), itertools.cycle(prompts), strict=False)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "gain.npz"
        path.write_bytes(dump(heads))
        started = time.monotonic()
        count = sum(1 for _ in offline.score_lines(lines, calibration=path, profile="local"))
    return count / (time.monotonic() - started)


def _with_evidence() -> Timing:
    """The most rows that an artefact holds. Any unit vectors cost the same."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(neighbours.MAX_ROWS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    one = neighbours.Evidence(
        rows=vectors,
        above=np.zeros((len(vectors), 2), dtype=np.float32),
        pull=np.zeros((len(vectors), 2), dtype=np.float32),
        parts=np.ones(3, dtype=np.float32),
        knots=np.zeros(2, dtype=np.float32),
        weak_curve=np.zeros((2, 2), dtype=np.float32),
        strong_curve=np.zeros((2, 2), dtype=np.float32),
        margins=np.zeros(len(neighbours.GRID), dtype=np.float32),
    )
    above = np.zeros(2, dtype=np.float32)
    path = f"an embedding against {len(vectors):,} rows"
    return _timed(path, 0, lambda vector: one.add(above, vector), (vectors[i] for i in range(REPEATS // 4)))
