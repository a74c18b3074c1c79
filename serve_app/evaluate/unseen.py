"""What the learned score says of rows that it was not fitted on: nested folds, other benchmarks, or a finished artefact."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from serve_app.errors import CalibrationError
from serve_app.evaluate import fitting
from serve_app.evaluate.corpus import Corpus, Index, Predicted, predict
from serve_app.evaluate.routing_metrics import Outcomes

MAX_ROWS = 2000  # to learn from where a whole benchmark is left out; drawn, so that twenty fits take minutes
Progress = Callable[[list[Any], str], Iterator[Any]]


@dataclass(frozen=True)
class Unseen:
    """`without_signal`: the folds or benchmarks whose training rows were refused, so that theirs is the base rate: a tie."""

    predicted: Predicted
    without_signal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Rows, read once; `groups` names the question of each, `embeddings` are in the corpus where they may be used."""

    corpus: Corpus
    outcomes: Outcomes
    groups: Sequence[str]
    benchmarks: Sequence[str]
    embedder: str = ""


def nested(table: Table, *, seed: int, progress: Progress) -> Unseen:
    """`fit_corpus` whole, with all that it chooses, inside each of five outer folds: what a user gets."""
    split = fitting.folds_of(table.groups, seed + 100)
    return _each(table, [(str(number), train, test) for number, (train, test) in enumerate(split, start=1)], seed, progress, "folds")


def elsewhere(table: Table, *, seed: int, progress: Progress, max_rows: int = MAX_ROWS) -> Unseen:
    """Each benchmark by what was fitted on all others, without the questions that it shares with them.

    Raises `CalibrationError` when there is one benchmark only.
    """
    names, groups = np.array(table.benchmarks, dtype=object), np.array(table.groups, dtype=object)
    distinct = sorted(set(names))
    if len(distinct) < 2:
        raise CalibrationError("to train elsewhere takes rows of two benchmarks at least: the field `benchmark` names them")
    random = np.random.default_rng(seed)
    parts = []
    for name in distinct:
        test = np.flatnonzero(names == name)
        train = np.flatnonzero((names != name) & ~np.isin(groups, groups[test]))
        parts.append((name, np.sort(random.permutation(train)[:max_rows]), test))
    return _each(table, parts, seed, progress, "benchmarks")


def _each(table: Table, parts: list[tuple[str, Index, Index]], seed: int, progress: Progress, label: str) -> Unseen:
    whole = Predicted(*(np.zeros(len(table.groups)) for _ in fields(Predicted)))
    refused = []
    for name, train, test in progress(parts, label):
        outcomes = table.outcomes.take(train)
        try:
            groups = [table.groups[i] for i in train]
            fitted = fitting.fit_corpus(table.corpus.take(train), outcomes, groups=groups, seed=seed, embedder=table.embedder)
            found = predict(fitted.heads, table.corpus.take(test))
        except CalibrationError:
            refused.append(name)
            found = _base_rate(outcomes, len(test))
        for one in fields(Predicted):
            getattr(whole, one.name)[test] = getattr(found, one.name)
    return Unseen(whole, tuple(refused))


def _base_rate(outcomes: Outcomes, rows: int) -> Predicted:
    weak, strong = (float(one.mean()) if len(one) else 0.5 for one in (outcomes.weak, outcomes.strong))
    tie = np.full(rows, 0.5)
    return Predicted(tie, np.full(rows, weak), np.full(rows, strong), np.ones(rows), tie, np.zeros(rows))
