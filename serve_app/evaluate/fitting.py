"""Fit the learned score on outcome rows. scikit-learn here, arrays out: serving needs none of it. Seeded, the same bytes every time.

Both heads are ridge regressions on the same features with the same strength, so that their difference is the ridge
regression of the gain itself. How much each view counts, how strong the regularisation is and what is routed on are
chosen by cross-validation. The best nine candidates are averaged, which costs nothing in serving since the mean of linear
models is one, and which chooses less by chance. What is counted on texts is counted on the training part of each fold.
Prompts that are the same question stay in one fold.
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import Ridge

from serve_app.errors import CalibrationError
from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.corpus import Array, Corpus, Index, dense_of, features_of
from serve_app.evaluate.routing_metrics import Outcomes
from serve_app.routing import lexical
from serve_app.routing.heads import Heads, Mix, View, routed

FloatMatrix = npt.NDArray[np.float64]
Split = list[tuple[Index, Index]]
MIN_ROWS = 150
FOLDS = 5
REPEATS = 2  # of the folds: one split of a thousand rows moves APGR by 0.01 to 0.02
REPEATED_UP_TO = 3000
FOURIER = 384
WIDTH = 2.0  # of the hand features' kernel, in units of their number; half and double give the same
WIDTH_EMBEDDING = 0.5
STRENGTHS = (10.0, 30.0, 100.0)
DIFFICULTIES = (0.0, 0.5, 2.0)
UNFAMILIAR = 2.0  # percent of held-out rows that count as less than familiar
STEPS = 200  # of the rank
AVERAGED = 9  # candidates: all that are without an embedding; choosing fewer was never better


@dataclass(frozen=True, slots=True)
class Blocks:
    """How much each view counts: the weight of its part of the kernel. 0 leaves it out."""

    hand: float = 1.0
    words: float = 1.0
    runs: float = 1.0
    embedding: float = 0.0


BLOCKS = (Blocks(1.0, 0.0, 0.0), Blocks(1.0, 0.3, 0.3), Blocks(1.0, 1.0, 1.0))
BLOCKS_EMBEDDING = (Blocks(1.0, 0.3, 0.3, 1.0), Blocks(1.0, 1.0, 1.0, 1.0), Blocks(0.3, 0.3, 0.3, 2.0))


@dataclass(frozen=True, slots=True)
class Candidate:
    blocks: Blocks
    strength: float


@dataclass(frozen=True)
class Fitted:
    """`scores`: of the rows that it was fitted on, each from folds that did not see it. Shape (rows,)."""

    heads: Heads
    scores: npt.NDArray[np.float64]


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
    chosen, difficulty, held_out = _choose(corpus, outcomes, splits, seed)
    values = routed(held_out, Mix(difficulty))
    report = _report(values, held_out, outcomes, splits[0], seed=seed)
    if report["apgr_low"] <= 0.5:
        found = f"APGR {report['apgr']} with interval [{report['apgr_low']}, {report['apgr_high']}]"
        raise CalibrationError(f"no signal: cross-validated {found} is not above 0.5")
    description = {"source": source, "seed": seed, "difficulty": difficulty, "averaged": [asdict(one) for one in chosen], **report}
    if not any(one.blocks.embedding for one in chosen):
        corpus, embedder = replace(corpus, embeddings=None), ""
    mix = Mix(difficulty, *_familiarity(corpus, splits[0], seed))
    heads = _assemble(corpus, outcomes, chosen=chosen, mix=mix, held_out=held_out, seed=seed, embedder=embedder, description=description)
    return Fitted(heads, np.interp(values, heads.knots, np.linspace(0.0, 1.0, len(heads.knots))))


def _assemble(
    corpus: Corpus,
    outcomes: Outcomes,
    *,
    chosen: Sequence[Candidate],
    mix: Mix,
    held_out: FloatMatrix,
    seed: int,
    embedder: str,
    description: dict[str, Any],
) -> Heads:
    """Fit `chosen` on all rows; curves and ranks come from the held-out predictions."""
    view = _view(corpus, seed)
    features, targets, fourier = features_of(corpus, view), _targets(outcomes), len(view.phase)
    weights = np.mean([_ridge(features, targets, one, fourier) for one in chosen], axis=0).astype(np.float32)
    return Heads(
        view=view,
        dense=weights[:fourier],
        sparse=weights[fourier:],
        intercept=targets.mean(axis=0).astype(np.float32),
        knots=np.quantile(routed(held_out, mix), np.linspace(0.0, 1.0, STEPS + 1)).astype(np.float32),
        weak_curve=_curve(held_out[:, 0], outcomes.weak),
        strong_curve=_curve(held_out[:, 1], outcomes.strong),
        mix=mix,
        threshold=0.5,
        embedder=embedder,
        description=description,
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


def _choose(corpus: Corpus, outcomes: Outcomes, splits: list[Split], seed: int) -> tuple[list[Candidate], float, FloatMatrix]:
    """The best candidates by cross-validated APGR, the share of difficulty that suits them, their mean held-out predictions."""
    blocks = BLOCKS if corpus.embeddings is None else (*BLOCKS, *BLOCKS_EMBEDDING)
    candidates = [Candidate(one, strength) for one in blocks for strength in STRENGTHS]
    raw = [_held_out(corpus, outcomes, split, candidates, seed) for split in splits]
    best: list[tuple[float, float, list[int]]] = []
    for difficulty in DIFFICULTIES:
        areas = [np.mean([metrics.apgr(routed(one[i], Mix(difficulty)), outcomes) for one in raw]) for i in range(len(candidates))]
        order = [int(i) for i in np.argsort(-np.round(areas, 6), kind="stable")[:AVERAGED]]
        means = [np.mean([one[i] for i in order], axis=0) for one in raw]
        best.append((float(np.mean([metrics.apgr(routed(one, Mix(difficulty)), outcomes) for one in means])), difficulty, order))
    _, difficulty, order = max(best, key=lambda one: round(one[0], 6))
    return [candidates[i] for i in order], difficulty, np.mean([raw[0][i] for i in order], axis=0)


def _held_out(corpus: Corpus, outcomes: Outcomes, split: Split, candidates: list[Candidate], seed: int) -> list[FloatMatrix]:
    """Held-out predictions of both heads by each candidate."""
    targets = _targets(outcomes)
    whole = [np.zeros_like(targets) for _ in candidates]
    for train, test in split:
        view = _view(corpus.take(train), seed)
        x, unseen = features_of(corpus.take(train), view), features_of(corpus.take(test), view)
        for part, one in zip(whole, candidates, strict=True):
            part[test] = unseen @ _ridge(x, targets[train], one, len(view.phase)) + targets[train].mean(axis=0)
    return whole


def _view(corpus: Corpus, seed: int) -> View:
    """Count on the texts of `corpus`, draw the Fourier features from `seed`."""
    random = np.random.default_rng(seed)
    width = corpus.hand.shape[1]
    dim = 0 if corpus.embeddings is None else corpus.embeddings.shape[1]
    omega = np.zeros((width + dim, FOURIER * (2 if dim else 1)))
    omega[:width, :FOURIER] = random.normal(size=(width, FOURIER)) * np.sqrt(2.0 / (width * WIDTH))
    if dim:
        omega[width:, FOURIER:] = random.normal(size=(dim, FOURIER)) * np.sqrt(2.0 / WIDTH_EMBEDDING)
    spread = corpus.hand.std(axis=0)
    view = View(
        mean=corpus.hand.mean(axis=0).astype(np.float32),
        scale=np.where(spread > 1e-6, spread, 1.0).astype(np.float32),
        omega=omega.astype(np.float32),
        phase=random.uniform(0.0, 2 * np.pi, omega.shape[1]).astype(np.float32),
        idf=_idf(corpus.counts),
        centre=np.zeros(FOURIER, dtype=np.float32),
    )
    return replace(view, centre=dense_of(corpus, view)[:, :FOURIER].mean(axis=0))


def _idf(counts: sp.csr_matrix) -> Array:
    """As `lexical.idf_of`."""
    seen, rows = np.bincount(counts.indices, minlength=lexical.BUCKETS), counts.shape[0]
    return np.where(seen >= 2, np.log((1.0 + rows) / (1.0 + seen)) + 1.0, 0.0).astype(np.float32)


def _ridge(x: sp.csr_matrix, targets: FloatMatrix, by: Candidate, fourier: int) -> FloatMatrix:
    """Weights, shape (features, 2), of what the targets are above their means: no evidence leads back to the base rate."""
    runs = lexical.BUCKETS - (1 << lexical.WORD_BITS)
    sizes = (FOURIER, fourier - FOURIER, 1 << lexical.WORD_BITS, runs)
    shares = (by.blocks.hand, by.blocks.embedding, by.blocks.words, by.blocks.runs)
    scale = np.sqrt(np.repeat(shares, sizes)).astype(np.float32)
    model = Ridge(alpha=by.strength, fit_intercept=False, solver="sparse_cg", tol=1e-4)
    weights: FloatMatrix = model.fit((x @ sp.diags_array(scale)).tocsr(), targets - targets.mean(axis=0)).coef_.T
    scaled: FloatMatrix = weights * scale[:, None]
    return scaled


def _familiarity(corpus: Corpus, split: Split, seed: int) -> tuple[float, float]:
    """The low percentile of how much of a held-out row is known, and of how dense the fitted rows are there."""
    known: list[float] = []
    density: list[float] = []
    for train, test in split:
        view, unseen = _view(corpus.take(train), seed), corpus.take(test)
        starts = unseen.counts.indptr
        rows = [unseen.counts.indices[a:b] for a, b in itertools.pairwise(starts)]
        known += [view.known(lexical.Grams(row.astype(np.int64), np.ones(len(row), dtype=np.float32))) for row in rows]
        density += [view.density(row) for row in dense_of(unseen, view)]
    return float(np.percentile(known, UNFAMILIAR)), float(np.percentile(density, UNFAMILIAR))


def _curve(raw: npt.NDArray[np.float64], outcome: npt.NDArray[np.float64]) -> Array:
    """Isotonic regression of the outcome on a held-out prediction, as (2, n) points."""
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(raw, outcome)
    return np.stack([model.X_thresholds_, model.y_thresholds_]).astype(np.float32)


def _calibrated(raw: npt.NDArray[np.float64], outcome: npt.NDArray[np.float64], split: Split) -> npt.NDArray[np.float64]:
    """Each fold by the curve of the other folds."""
    whole = np.zeros(len(raw))
    for train, test in split:
        whole[test] = np.interp(raw[test], *_curve(raw[train], outcome[train]))
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
