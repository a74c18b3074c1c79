"""Fit the learned score on outcome rows. scikit-learn here, arrays out: serving needs none of it. Seeded, the same bytes every time.

Both heads are ridge regressions on the same features with the same strength, so that their difference is the ridge
regression of the gain itself. Three ways to weigh the views are averaged, which costs nothing in serving since the mean of
linear models is one, and which chooses nothing by chance; what is routed on is chosen by cross-validation. What is counted on
texts is counted on the training part of each fold. Prompts that are the same question stay in one fold. A held-out prediction
is what a fold says above its own mean: otherwise folds with a low mean would predict low and hold high outcomes, which speaks
against every strong regularisation.
What an embedding adds is in `fitting_embedded`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve
from sklearn.linear_model import Ridge

from serve_app.errors import CalibrationError
from serve_app.evaluate import fitting_embedded
from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.corpus import Array, Corpus, Index, features_of, ranks
from serve_app.evaluate.routing_metrics import Outcomes
from serve_app.routing import lexical
from serve_app.routing.heads import Heads, Mix, View, routed

FloatMatrix = npt.NDArray[np.float64]
Split = list[tuple[Index, Index]]
MIN_ROWS = 150
FOLDS = 5
REPEATS = 2  # of the folds: one split of a thousand rows moves APGR by 0.01 to 0.02
REPEATED_UP_TO = 1000
FOURIER = 1024  # of the hand features: 384 cost about .01 of APGR against the kernel itself
DUAL_ROWS = 3000  # up to here a system of rows is solved, beyond it one of features: the same solution
WIDTH = 2.0  # of the hand features' kernel, in units of their number; half and double give the same
STRENGTH = 30.0  # the mean over 10, 30 and 100 was no better
DIFFICULTIES = (0.0, 0.5, 2.0)
UNFAMILIAR = 2.0  # percent of held-out rows that count as less than familiar


@dataclass(frozen=True, slots=True)
class Blocks:
    """How much each view counts: the weight of its part of the kernel. 0 leaves it out."""

    hand: float = 1.0
    words: float = 1.0
    runs: float = 1.0


BLOCKS = (Blocks(1.0, 0.0, 0.0), Blocks(1.0, 0.3, 0.3), Blocks(1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Fitted:
    """`scores`: of the rows that it was fitted on, each from folds that did not see it. Shape (rows,). `alone`: of their texts."""

    heads: Heads
    scores: npt.NDArray[np.float64]
    alone: npt.NDArray[np.float64]


def fit(
    texts: Sequence[str],
    outcomes: Outcomes,
    *,
    seed: int = 0,
    embeddings: Array | None = None,
    embedder: str = "",
    source: str = "",
    groups: Sequence[str] | None = None,
) -> Heads:
    """Fit both heads; the threshold sends half of such traffic to the large tier, see `knobs` for others.

    `embeddings`, where given, may be used or not: cross-validation decides. `groups` names the question of each row.
    Raises `CalibrationError` when there are too few rows, no gap between the models, or no signal.
    """
    check(texts, outcomes)
    names = list(texts) if groups is None else groups
    return fit_corpus(Corpus.of(texts, embeddings), outcomes, groups=names, seed=seed, embedder=embedder, source=source).heads


def fit_corpus(corpus: Corpus, outcomes: Outcomes, *, groups: Sequence[str], seed: int = 0, embedder: str = "", source: str = "") -> Fitted:
    """As `fit`, for texts that were read before."""
    check(groups, outcomes)
    repeats = REPEATS if len(groups) <= REPEATED_UP_TO else 1
    splits = [folds_of(groups, seed + repeat) for repeat in range(repeats)]
    held_out = [_held_out(corpus, outcomes, split, seed) for split in splits]
    difficulty = _difficulty(held_out, outcomes)
    plan, whole = None, held_out[0]
    if corpus.embeddings is not None:
        plan = fitting_embedded.plan(corpus.embeddings, outcomes, splits, held_out, difficulty=difficulty, seed=seed)
        whole = whole if plan is None else plan.held_out
    report = _report(routed(whole, Mix(difficulty)), whole, outcomes, splits[0], seed=seed)
    if report["apgr_low"] <= 0.5:
        found = f"APGR {report['apgr']} with interval [{report['apgr_low']}, {report['apgr_high']}]"
        raise CalibrationError(f"no signal: cross-validated {found} is not above 0.5")
    description = {"source": source, "seed": seed, "difficulty": difficulty, **report}
    mix = Mix(difficulty, *_familiarity(corpus, splits[0], seed))
    heads = _assemble(corpus, outcomes, mix, held_out[0], seed)
    alone = ranks(routed(held_out[0], heads.mix), heads.knots)
    if plan is None or corpus.embeddings is None:
        return Fitted(replace(heads, description=description), alone, alone)
    evidence, scores = fitting_embedded.assemble(plan, corpus.embeddings, outcomes, alone, seed=seed)
    added = fitting_embedded.summary(plan, outcomes, held_out[0])
    return Fitted(replace(heads, description={**description, **added}, embedder=embedder, evidence=evidence), scores, alone)


def _assemble(corpus: Corpus, outcomes: Outcomes, mix: Mix, held_out: FloatMatrix, seed: int) -> Heads:
    """Fit on all rows; curves and ranks come from the held-out predictions."""
    view = _view(corpus, seed)
    features, targets, fourier = features_of(corpus, view), _targets(outcomes), len(view.phase)
    weights = _weights(features, targets).astype(np.float32)
    return Heads(
        view=view,
        dense=weights[:fourier],
        sparse=weights[fourier:],
        intercept=targets.mean(axis=0).astype(np.float32),
        knots=fitting_embedded.knots_of(routed(held_out, mix)),
        weak_curve=fitting_embedded.curve(held_out[:, 0], outcomes.weak),
        strong_curve=fitting_embedded.curve(held_out[:, 1], outcomes.strong),
        mix=mix,
        threshold=0.5,
    )


def folds_of(groups: Sequence[str], seed: int, count: int = FOLDS) -> Split:
    """(train, test) rows of each fold; rows of one group are never on both sides."""
    names, group = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(len(names)) % count)[group]
    return [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(count)]


def check(texts: Sequence[str], outcomes: Outcomes) -> None:
    """Whether there is enough to learn from. Raises `CalibrationError`."""
    if not len(texts) == len(outcomes.weak) == len(outcomes.strong):
        raise CalibrationError(f"{len(texts)} prompts, {len(outcomes.weak)} and {len(outcomes.strong)} scores")
    if len(texts) < MIN_ROWS:
        raise CalibrationError(f"too few rows: {len(texts)}, at least {MIN_ROWS} with both scores are needed")
    if (gap := float(outcomes.gain.mean())) <= 0.0:
        raise CalibrationError(f"nothing to gain: the large model scores {gap:+.3f} against the small one on these rows")


def _targets(outcomes: Outcomes) -> FloatMatrix:
    return np.stack([outcomes.weak, outcomes.strong], axis=1)


def _difficulty(held_out: list[FloatMatrix], outcomes: Outcomes) -> float:
    """The share of difficulty beside the gain that cross-validation prefers."""
    areas = [np.mean([metrics.apgr(routed(one, Mix(share)), outcomes) for one in held_out]) for share in DIFFICULTIES]
    return DIFFICULTIES[int(np.argmax(np.round(areas, 6)))]


def _held_out(corpus: Corpus, outcomes: Outcomes, split: Split, seed: int) -> FloatMatrix:
    """Held-out predictions of both heads, above the mean of all rows."""
    targets = _targets(outcomes)
    whole = np.zeros_like(targets)
    for train, test in split:
        view = _view(corpus.take(train), seed)
        weights = _weights(features_of(corpus.take(train), view), targets[train], STRENGTH * len(train) / len(targets))
        whole[test] = features_of(corpus.take(test), view) @ weights + targets.mean(axis=0)
    return whole


def _view(corpus: Corpus, seed: int) -> View:
    """Count on the texts of `corpus`, draw the Fourier features from `seed`."""
    random = np.random.default_rng(seed)
    width = corpus.hand.shape[1]
    omega = _directions(random, width) * np.sqrt(2.0 / (width * WIDTH))
    spread = corpus.hand.std(axis=0)
    view = View(
        mean=corpus.hand.mean(axis=0).astype(np.float32),
        scale=np.where(spread > 1e-6, spread, 1.0).astype(np.float32),
        omega=omega.astype(np.float32),
        phase=random.uniform(0.0, 2 * np.pi, FOURIER).astype(np.float32),
        idf=_idf(corpus.counts),
        centre=np.zeros(FOURIER, dtype=np.float32),
    )
    return replace(view, centre=view.dense(corpus.hand).mean(axis=0))


def _idf(counts: sp.csr_matrix) -> Array:
    """As `lexical.idf_of`."""
    seen, rows = np.bincount(counts.indices, minlength=lexical.BUCKETS), counts.shape[0]
    return np.where(seen >= 2, np.log((1.0 + rows) / (1.0 + seen)) + 1.0, 0.0).astype(np.float32)


def _directions(random: np.random.Generator, width: int) -> FloatMatrix:
    """Normal vectors, shape (width, FOURIER), at right angles within each block: they vary less than independent ones."""
    blocks = [np.linalg.qr(random.normal(size=(width, width)))[0] for _ in range(-(-FOURIER // width))]
    lengths = np.linalg.norm(random.normal(size=(FOURIER, width)), axis=1)
    directions: FloatMatrix = np.hstack(blocks)[:, :FOURIER] * lengths
    return directions


def _weights(x: sp.csr_matrix, targets: FloatMatrix, strength: float = STRENGTH) -> FloatMatrix:
    """The mean over `BLOCKS`, shape (features, 2), of what the targets are above their means: no evidence leads to the base rate."""
    edges = np.cumsum([0, FOURIER, 1 << lexical.WORD_BITS, lexical.BUCKETS - (1 << lexical.WORD_BITS)])
    above = targets - targets.mean(axis=0)
    if x.shape[0] > DUAL_ROWS:
        found = [_by_features(x, above, one, np.diff(edges), strength) for one in BLOCKS]
    else:
        parts: list[Any] = [x[:, a:b] for a, b in itertools.pairwise(edges)]
        parts[0] = parts[0].toarray()
        products = [parts[0] @ parts[0].T, *((one @ one.T).toarray() for one in parts[1:])]
        found = [_by_rows(parts, products, above, one, strength) for one in BLOCKS]
    weights: FloatMatrix = np.mean(found, axis=0)
    return weights


def _by_rows(parts: list[Any], products: list[Any], above: FloatMatrix, one: Blocks, strength: float) -> FloatMatrix:
    system = sum(share * product for share, product in zip(astuple(one), products, strict=True)).astype(np.float64)
    system[np.diag_indices_from(system)] += strength
    dual = cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), above)
    return np.vstack([share * (part.T @ dual) for share, part in zip(astuple(one), parts, strict=True)])


def _by_features(x: sp.csr_matrix, above: FloatMatrix, one: Blocks, sizes: npt.NDArray[np.integer], strength: float) -> FloatMatrix:
    scale = np.sqrt(np.repeat(astuple(one), sizes)).astype(np.float32)
    model = Ridge(alpha=strength, fit_intercept=False, solver="sparse_cg", tol=1e-4)
    weights: FloatMatrix = model.fit((x @ sp.diags_array(scale)).tocsr(), above).coef_.T * scale[:, None]
    return weights


def _familiarity(corpus: Corpus, split: Split, seed: int) -> tuple[float, float]:
    """The low percentile of how much of a held-out row is known, and of how dense the fitted rows are there."""
    known: list[float] = []
    density: list[float] = []
    for train, test in split:
        view, unseen = _view(corpus.take(train), seed), corpus.take(test)
        starts = unseen.counts.indptr
        rows = [unseen.counts.indices[a:b] for a, b in itertools.pairwise(starts)]
        known += [view.known(lexical.Grams(row.astype(np.int64), np.ones(len(row), dtype=np.float32))) for row in rows]
        density += [view.density(row) for row in view.dense(unseen.hand)]
    return float(np.percentile(known, UNFAMILIAR)), float(np.percentile(density, UNFAMILIAR))


def _calibrated(raw: npt.NDArray[np.float64], outcome: npt.NDArray[np.float64], split: Split) -> npt.NDArray[np.float64]:
    """Each fold by the curve of the other folds."""
    whole = np.zeros(len(raw))
    for train, test in split:
        whole[test] = np.interp(raw[test], *fitting_embedded.curve(raw[train], outcome[train]))
    return whole


def _report(values: npt.NDArray[np.float64], raw: FloatMatrix, outcomes: Outcomes, split: Split, *, seed: int) -> dict[str, Any]:
    """What to expect on such traffic, from held-out predictions. The choice was made on them too: it is a little high."""
    measures = {f"cpt_{gap}": partial(metrics.cpt, gap=gap / 100) for gap in (50, 80)}
    drawn = metrics.resampled(measures, values, outcomes, seed=seed)
    area = metrics.interval(metrics.apgr(values, outcomes), metrics.bootstrap({"ours": values}, outcomes, seed=seed)["ours"])
    errors = [
        metrics.calibration_error(_calibrated(raw[:, head], outcome, split), outcome)
        for head, outcome in enumerate((outcomes.weak, outcomes.strong))
    ]
    report = {
        "rows": len(values),
        "weak_score": float(outcomes.weak.mean()),
        "strong_score": float(outcomes.strong.mean()),
        "apgr": area.value,
        "apgr_low": area.low,
        "apgr_high": area.high,
        **{name: one.value for name, one in drawn.items()},
        **{f"{name}_low": one.low for name, one in drawn.items()},
        **{f"{name}_high": one.high for name, one in drawn.items()},
        "calibration_error_weak": errors[0],
        "calibration_error_strong": errors[1],
        "share_for_95": metrics.share_for_quality(values, outcomes, 0.95),
    }
    return {name: value if isinstance(value, int) else round(value, 4) for name, value in report.items()}
