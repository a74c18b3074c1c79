"""`tierwise evaluate`: how good a score is for routing on given rows, beside what needs no fitting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve_app.domain import Json
from serve_app.errors import CalibrationError
from serve_app.evaluate import comparison, gain, quality_plots, questions, unseen
from serve_app.evaluate.comparison import OURS, Ranking
from serve_app.evaluate.corpus import HALF, Array, Corpus, Predicted, predict
from serve_app.evaluate.routing_metrics import Vector
from serve_app.evaluate.rows import Rows, read
from serve_app.evaluate.unseen import Progress, Table
from serve_app.routing.heads import Heads
from serve_app.routing.neighbours import excerpt
from serve_app.routing.score import Artefact, Calibration
from serve_app.settings import Settings

Embed = Callable[[Sequence[str]], Array]
ANSWER_TOKENS = 200
COLUMNS = ("apgr", "cpt_50", "cpt_80", "auc_strong_wins", "auc_weak_wrong", "saved_95", "saved_99", "ece_small", "ece_large", "ours_minus")
TITLES = ("APGR", "CPT50", "CPT80", "AUC wins", "AUC wrong", "saved@95", "saved@99", "ECE small", "ECE large", "ours minus it")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`calibration` is judged as it is; without one the score is fitted on the rows themselves, or on the other benchmarks.

    `centroids` is the label artefact that is compared with; `embed` may be used by ours where `with_embedding` is set.
    """

    calibration: Artefact | None = None
    train_elsewhere: bool = False
    centroids: Calibration | None = None
    with_embedding: bool = False
    embedder: str = ""
    seed: int = 0


def evaluate(paths: Sequence[Path], wanted: Wanted, settings: Settings, *, embed: Embed, progress: Progress) -> Json:
    """Raises `CalibrationError` when rows cannot be read, are too few to fit on, or the options contradict each other."""
    if wanted.calibration is not None and wanted.train_elsewhere:
        raise CalibrationError("a finished calibration cannot be trained elsewhere: one of the two")
    rows = read(paths)
    if not rows.rows:
        raise CalibrationError("there are no rows to evaluate on")
    parts, whole = _embedded(rows, wanted, embed)
    rankings, said = _ours(rows, wanted, parts, whole, progress)
    rankings |= comparison.baselines(rows.prompts, rows.outcomes)
    if wanted.centroids is not None and whole is not None:
        rankings["centroids"] = _by_centroids(wanted.centroids, whole)
    weak, strong = gain.costs(rows.prompts, ANSWER_TOKENS, settings)
    figures = comparison.compare(rankings, rows.outcomes, rows.benchmarks, price_ratio=weak / strong, seed=wanted.seed)
    return {
        "rows": len(rows.rows),
        "dropped": rows.dropped,
        "seed": wanted.seed,
        **said,
        **figures,
        "series": quality_plots.series(rankings, rows.outcomes),
        "warnings": _warnings(paths, wanted),
    }


def as_lines(report: Json) -> list[str]:
    """Tables for a person: pooled first, then the mean over benchmarks, then each."""
    lines = [f"rows {report['rows']}, dropped {report['dropped']}; ours: {report['how']}"]
    if report["without_signal"]:
        lines.append(f"nothing was learned in {', '.join(report['without_signal'])}: the base rate stands for it, a tie")
    if report.get("embedded"):
        lines.append(
            f"embedding asked for {report['embedded']:.1%} of the rows; asking for all changes {report['otherwise']:.1%} of decisions"
        )
    lines += [f"warning: {one}" for one in report["warnings"]]
    lines += _table("pooled", report["pooled"])
    lines.append("  requested share -> realised: " + ", ".join(f"{a} -> {b:.3f}" for a, b in report["pooled"]["realised_shares"].items()))
    if len(report["benchmarks"]) > 1:
        lines += _table(f"mean of {report['macro'].get('benchmarks', 0)} benchmarks with a gap", report["macro"]) if report["macro"] else []
        lines += _table(comparison.MEANINGFUL, report["macro_meaningful"]) if report["macro_meaningful"] else []
        lines += [line for name, part in report["benchmarks"].items() for line in _table(f"{name} ({part['rows']} rows)", part)]
    return lines


def cell(value: float | Json | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return "-" if value["value"] is None else f"{value['value']:.3f} [{cell(value['low'])}, {cell(value['high'])}]"
    return f"{value:.3f}"


def _table(title: str, part: Json) -> list[str]:
    rows = [["", *TITLES]] + [[name, *(cell(found.get(key)) for key in COLUMNS)] for name, found in part["methods"].items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["", title, *("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)]


def _embedded(rows: Rows, wanted: Wanted, embed: Embed) -> tuple[Array | None, Array | None]:
    """(What ours may see, what centroids see), each only where it is needed."""
    one = wanted.calibration
    ours = one.dim > 0 if isinstance(one, Heads) else one is None and wanted.with_embedding
    whole = isinstance(one, Calibration) or wanted.centroids is not None
    parts = embed([excerpt(prompt) for prompt in rows.prompts]) if ours else None
    return parts, embed(rows.prompts) if whole else None


def _ours(rows: Rows, wanted: Wanted, parts: Array | None, whole: Array | None, progress: Progress) -> tuple[dict[str, Ranking], Json]:
    one = wanted.calibration
    if isinstance(one, Calibration) and whole is not None:
        return {OURS: _by_centroids(one, whole)}, {"how": f"calibration {one.sha256[:12]}", "without_signal": []}
    corpus = Corpus.of(rows.prompts, parts)
    if isinstance(one, Heads):
        return _described(predict(one, corpus), f"calibration {one.sha256[:12]}", ())
    table = Table(corpus, rows.outcomes, questions.groups_of(rows.prompts), rows.benchmarks, wanted.embedder)
    way, how = (unseen.elsewhere, "fitted on all other benchmarks") if wanted.train_elsewhere else (unseen.nested, "nested five-fold")
    result = way(table, seed=wanted.seed, progress=progress)
    return _described(result.predicted, how, result.without_signal)


def _described(found: Predicted, how: str, without_signal: Sequence[str]) -> tuple[dict[str, Ranking], Json]:
    """`embedded`: the share of rows whose embedding is asked for; `otherwise`: of decisions that asking for all would change."""
    served = np.where(found.asked > 0, found.score, found.alone)
    said = {
        "how": how,
        "without_signal": list(without_signal),
        "unfamiliar": _unfamiliar(found.novelty),
        "embedded": round(float(found.asked.mean()), 4),
        "otherwise": round(float(((served >= HALF) != (found.score >= HALF)).mean()), 4),
    }
    rankings = {OURS: Ranking(found.score, found.weak, found.strong)}
    if (found.alone != found.score).any():
        rankings["text alone"] = Ranking(found.alone)
    return rankings, said


def _unfamiliar(novelty: Vector) -> float:
    """The share of rows that were drawn to the base rate."""
    return round(float((novelty > 0).mean()), 4)


def _by_centroids(calibration: Calibration, vectors: Array) -> Ranking:
    return Ranking(np.array([calibration.embedding_score(vector) for vector in vectors]))


def _warnings(paths: Sequence[Path], wanted: Wanted) -> list[str]:
    if wanted.calibration is None:
        return []
    fitted_on = {name.strip() for name in str(wanted.calibration.description.get("source", "")).split(",")}
    same = [path.name for path in paths if path.name in fitted_on]
    return [f"the calibration was fitted on a file named {name}: if that is this one, nothing here is new to it" for name in same]
