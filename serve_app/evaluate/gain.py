"""`tierwise calibrate` on outcome rows: one artefact of kind `gain`, its threshold, and what to expect of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.domain import Json, Usage
from serve_app.errors import CalibrationError
from serve_app.evaluate import fitting, knobs, questions
from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.corpus import Array, Corpus
from serve_app.evaluate.knobs import Knob, OperatingPoint
from serve_app.evaluate.routing_metrics import Outcomes, Vector
from serve_app.evaluate.rows import Rows, first_line, read
from serve_app.observe.cost import dollars
from serve_app.routing import drift
from serve_app.routing.heads import Heads, dump
from serve_app.routing.neighbours import excerpt
from serve_app.settings import Settings

__all__ = ["Asked", "as_lines", "calibrate", "dump", "is_outcomes", "refuse_knobs", "summary"]
BYTES_PER_TOKEN = 4
Embed = Callable[[Sequence[str]], Array]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants: at most one of the knobs. `budget_usd` is for 1,000 requests of `answer_tokens` each."""

    target_share: float | None = None
    keep_quality: float | None = None
    budget_usd: float | None = None
    threshold: float | None = None
    answer_tokens: int = 200

    @property
    def anything(self) -> bool:
        return any(one is not None for one in (self.target_share, self.keep_quality, self.budget_usd, self.threshold))


def is_outcomes(paths: Sequence[Path]) -> bool:
    """Whether the files hold scores of both models rather than labels. Raises `CalibrationError` when some do and some do not."""
    kinds = {_has_scores(first_line(path)) for path in paths}
    if len(kinds) > 1:
        raise CalibrationError("some files hold weak_score and strong_score, others expected_tier: one kind at a time")
    return kinds == {True}


def calibrate(
    paths: Sequence[Path], asked: Asked, settings: Settings, *, seed: int = 0, embed: Embed | None = None, embedder: str = ""
) -> Heads:
    """Fit on the rows of `paths`. Raises `CalibrationError` when they are too few, say nothing, or what is asked for cannot be had."""
    _check(asked)
    rows = read(paths)
    fitting.check(rows.prompts, rows.outcomes)
    corpus = Corpus.of(rows.prompts, None if embed is None else embed([excerpt(prompt) for prompt in rows.prompts]))
    groups = questions.groups_of(rows.prompts)
    source = ", ".join(path.name for path in paths)
    fitted = fitting.fit_corpus(corpus, rows.outcomes, groups=groups, seed=seed, embedder=embedder, source=source)
    weak, strong = costs(rows.prompts, asked.answer_tokens, settings)
    knob = Knob(asked.target_share, asked.keep_quality, _part(asked.budget_usd, strong), asked.threshold)
    point = knobs.operating_point(knob, fitted.scores, rows.outcomes, weak_price=weak, strong_price=strong)
    expected = _expected(point, fitted.scores, rows, seed=seed)
    all_large = round(1000 * strong, 6)
    money = {"all_large_usd_per_1000": all_large, "expected_usd_per_1000": round(all_large * (1 - point.saved), 6)}
    seen = drift.described(fitted.scores.tolist(), rows.prompts)
    description = {**fitted.heads.description, "dropped": rows.dropped, "asked": asdict(asked), **expected, **money, **seen}
    description["embedded_share"] = round(float(np.mean([not fitted.heads.clear(one, point.threshold) for one in fitted.alone])), 4)
    return replace(fitted.heads, threshold=point.threshold, large_share=point.share, description=description)


def refuse_knobs(asked: Asked, *, embed: bool) -> None:
    """Labels say nothing about quality. Raises `CalibrationError`."""
    if asked.anything or embed:
        raise CalibrationError("a share, quality, budget, threshold or --embed needs rows with weak_score and strong_score")


def costs(prompts: Sequence[str], answer_tokens: int, settings: Settings) -> tuple[float, float]:
    """(small, large): dollars of a mean request; a token is taken to be four bytes."""
    prompt_tokens = round(float(np.mean([len(prompt.encode("utf-8", "surrogatepass")) for prompt in prompts])) / BYTES_PER_TOKEN)
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=answer_tokens)
    return dollars(usage, settings.small.price), dollars(usage, settings.large.price)


def as_lines(heads: Heads) -> list[str]:
    """What a person reads of a fresh artefact."""
    said = heads.description
    dropped = f" ({said['dropped']} dropped: a score was null)" if said["dropped"] else ""
    kept = f"{said['quality_kept']:.1%} [{said['quality_kept_low']:.1%}, {said['quality_kept_high']:.1%}]"
    saved = f"{said['saved']:.1%}"
    usd = f"{said['expected_usd_per_1000']:.4g} USD, all large {said['all_large_usd_per_1000']:.4g}"
    return [
        f"rows {said['rows']}{dropped}; small model {said['weak_score']:.3f}, large model {said['strong_score']:.3f}",
        f"APGR {_interval(said, 'apgr')}, random 0.5",
        f"CPT(50 %) {_interval(said, 'cpt_50')}, CPT(80 %) {_interval(said, 'cpt_80')}: share to large for so much of the gap",
        f"calibration error: p(small right) {said['calibration_error_weak']:.3f}, p(large right) {said['calibration_error_strong']:.3f}",
        f"threshold {heads.threshold:g}: {heads.large_share:.1%} to large, keeps {kept} of the large model's quality, saves {saved}",
        f"1,000 requests of {said['asked']['answer_tokens']} answer tokens: {usd}",
        f"embedder {_embedder(heads)}; source {said['source']}; seed {said['seed']}",
    ]


def _embedder(heads: Heads) -> str:
    """By which one, and how often: the text alone decides the rest."""
    said = heads.description
    if heads.evidence is None:
        return "none needed"
    return f"{heads.embedder} (without it APGR {said['apgr_text_alone']:.3f}; asked for {said['embedded_share']:.1%} of such requests)"


def summary(heads: Heads) -> Json:
    return {
        "kind": heads.kind,
        "threshold": heads.threshold,
        "large_share": heads.large_share,
        "embedder": heads.embedder,
        **heads.description,
    }


def _check(asked: Asked) -> None:
    """Before the minutes of fitting, not after."""
    knobs.check(Knob(asked.target_share, asked.keep_quality, None if asked.budget_usd is None else 0.0, asked.threshold))
    if asked.answer_tokens < 1:
        raise CalibrationError("an answer has at least one token")
    if asked.budget_usd is not None and not 0.0 < asked.budget_usd < float("inf"):
        raise CalibrationError(f"a budget of {asked.budget_usd:g} USD")


def _part(budget_usd: float | None, strong: float) -> float | None:
    """The budget as a part of what the large model alone would cost; more than that is that."""
    return None if budget_usd is None else min(1.0, budget_usd / (1000 * strong))


def _expected(point: OperatingPoint, scores: Vector, rows: Rows, *, seed: int) -> Json:
    def kept(some: Vector, out: Outcomes) -> float:
        return float(np.where(some >= point.threshold, out.strong, out.weak).mean()) / max(float(out.strong.mean()), metrics.EPSILON)

    interval = metrics.resampled({"kept": kept}, scores, rows.outcomes, seed=seed)["kept"]
    return {
        "quality_kept": point.quality,
        "quality_kept_low": round(interval.low, 4),
        "quality_kept_high": round(interval.high, 4),
        "saved": point.saved,
    }


def _has_scores(line: str) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False  # the reader of labels says what is wrong with it
    return isinstance(row, dict) and ("weak_score" in row or "strong_score" in row)


def _interval(said: dict[str, Any], name: str) -> str:
    return f"{said[name]:.3f} [{said[f'{name}_low']:.3f}, {said[f'{name}_high']:.3f}]"
