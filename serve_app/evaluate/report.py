"""`tierwise evaluate`: how good a score is for routing on given rows, beside what needs no fitting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve_app.domain import Json
from serve_app.errors import CalibrationError
from serve_app.evaluate import comparison, gain, questions, unseen
from serve_app.evaluate.comparison import OURS, Ranking
from serve_app.evaluate.corpus import Array, Corpus, predict
from serve_app.evaluate.routing_metrics import Vector
from serve_app.evaluate.rows import Rows, read
from serve_app.evaluate.unseen import Progress, Table
from serve_app.routing.heads import Heads
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
    vectors = embed(rows.prompts) if _needs_embeddings(wanted) else None
    rankings, said = _ours(rows, wanted, vectors, progress)
    rankings |= comparison.baselines(rows.prompts, rows.outcomes)
    if wanted.centroids is not None and vectors is not None:
        rankings["centroids"] = _by_centroids(wanted.centroids, vectors)
    weak, strong = gain.costs(rows.prompts, ANSWER_TOKENS, settings)
    figures = comparison.compare(rankings, rows.outcomes, rows.benchmarks, price_ratio=weak / strong, seed=wanted.seed)
    return {"rows": len(rows.rows), "dropped": rows.dropped, "seed": wanted.seed, **said, **figures, "warnings": _warnings(paths, wanted)}


def as_lines(report: Json) -> list[str]:
    """Tables for a person: pooled first, then the mean over benchmarks, then each."""
    lines = [f"rows {report['rows']}, dropped {report['dropped']}; ours: {report['how']}"]
    if report["without_signal"]:
        lines.append(f"nothing was learned in {', '.join(report['without_signal'])}: the base rate stands for it, a tie")
    lines += [f"warning: {one}" for one in report["warnings"]]
    lines += _table("pooled", report["pooled"])
    lines.append("  requested share -> realised: " + ", ".join(f"{a} -> {b:.3f}" for a, b in report["pooled"]["realised_shares"].items()))
    if len(report["benchmarks"]) > 1:
        lines += _table(f"mean of {report['macro'].get('benchmarks', 0)} benchmarks with a gap", report["macro"]) if report["macro"] else []
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


def _needs_embeddings(wanted: Wanted) -> bool:
    one = wanted.calibration
    by_artefact = isinstance(one, Calibration) or (isinstance(one, Heads) and one.view.dim > 0)
    return by_artefact or wanted.centroids is not None or (one is None and wanted.with_embedding)


def _ours(rows: Rows, wanted: Wanted, vectors: Array | None, progress: Progress) -> tuple[dict[str, Ranking], Json]:
    one = wanted.calibration
    if isinstance(one, Calibration) and vectors is not None:
        return {OURS: _by_centroids(one, vectors)}, {"how": f"calibration {one.sha256[:12]}", "without_signal": []}
    if isinstance(one, Heads):
        found = predict(one, Corpus.of(rows.prompts, vectors if one.view.dim else None))
        said = {"how": f"calibration {one.sha256[:12]}", "without_signal": [], "unfamiliar": _unfamiliar(found.novelty)}
        return {OURS: Ranking(found.score, found.weak, found.strong)}, said
    corpus = Corpus.of(rows.prompts, vectors if wanted.with_embedding else None)
    table = Table(corpus, rows.outcomes, questions.groups_of(rows.prompts), rows.benchmarks, wanted.embedder)
    way, how = (unseen.elsewhere, "fitted on all other benchmarks") if wanted.train_elsewhere else (unseen.nested, "nested five-fold")
    result = way(table, seed=wanted.seed, progress=progress)
    found = result.predicted
    said = {"how": how, "without_signal": list(result.without_signal), "unfamiliar": _unfamiliar(found.novelty)}
    return {OURS: Ranking(found.score, found.weak, found.strong)}, said


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
