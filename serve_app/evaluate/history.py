"""Recorded decisions as arrays: what `replay` and `report` compute on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from serve_app.domain import Json, Reason, Tier
from serve_app.errors import RequestError
from serve_app.evaluate import sources
from serve_app.observe import opinions, reader
from serve_app.observe.tables import decisions

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Words = npt.NDArray[np.str_]
NUMBERS = (
    "created",
    "score",
    "threshold",
    "prompt_tokens",
    "completion_tokens",
    "cost_usd",
    "all_large_usd",
    "overhead_seconds",
    "total_seconds",
)
WORDS = ("id", "tier", "reason", "outcome", "mode", "calibration")
MAYBE = ("chosen", "own_threshold")
COUNTED = ("prompt_tokens", "completion_tokens", "cost_usd", "all_large_usd")
NEEDED = ("score", "tier", *COUNTED)
JUDGED = ("weak_score", "strong_score", "expected_tier")


@dataclass(frozen=True)
class History:
    """One element a decision, oldest first where it is known when they were made. A missing number is NaN, a missing word empty.

    `large`: the large tier answered. `chosen_large`: the router chose it, whoever answered in shadow or canary mode.
    `weak`, `strong`: how good either tier's answer was judged, in [0, 1]; `expected`: 1 where the label says large, 0 where small.
    `feedback`: how good people found the answer that was given.
    """

    numbers: Mapping[str, Floats]
    words: Mapping[str, Words]
    large: Flags
    chosen_large: Flags
    own_threshold: Flags
    weak: Floats
    strong: Floats
    expected: Floats
    feedback: Floats

    def __len__(self) -> int:
        return len(self.large)

    @property
    def by_threshold(self) -> Flags:
        """Whom the threshold in force decides. Not: guards, explicit choices, rules, conversations, faults, thresholds of one's own.

        In a tool loop the turn counts whose tier is the one of its score; otherwise a conversation held it.
        """
        reason, score = self.words["reason"], self.numbers["score"]
        scored = np.isin(reason, [Reason.SCORE_ABOVE, Reason.SCORE_BELOW, Reason.CAPACITY])
        looped = (reason == Reason.TOOL_LOOP) & (self.chosen_large == (score >= self.numbers["threshold"]))
        movable: Flags = (scored | looped) & ~np.isnan(score) & ~self.own_threshold
        return movable


def from_ledger(url: str, since: float | None = None, until: float | None = None, outcomes: Mapping[str, Json] | None = None) -> History:
    """With the ledger's own judgements and feedback, unless `outcomes` knows better.

    Raises `TierwiseError` when the ledger cannot be read, `RequestError` when nothing is in it.
    """
    wanted = sa.select(*(decisions.c[name] for name in (*WORDS, *NUMBERS, *MAYBE))).where(*reader.between(since, until))
    with reader.reading(url) as connection:
        known = opinions.outcomes(connection, since, until)
        known |= {name: {**known.get(name, {}), **row} for name, row in (outcomes or {}).items()}
        return _history(reader.rows(connection, wanted.order_by(decisions.c.created, decisions.c.id)), known)


def from_file(path: Path, since: float | None = None, until: float | None = None, outcomes: Mapping[str, Json] | None = None) -> History:
    """An exported file; rows may carry outcomes themselves. Raises `RequestError` for a file or row that cannot be read."""

    def inside(row: Mapping[Any, Any]) -> bool:
        created = row.get("created")
        if not isinstance(created, int | float):  # none, or what is refused further on
            return True
        return (since is None or created >= since) and (until is None or created < until)

    return _history(([row for row in batch if inside(row)] for batch in sources.exported(path)), outcomes or {})


def read_outcomes(path: Path) -> dict[str, Json]:
    """By decision id: rows {"id", "weak_score", "strong_score"} or {"id", "expected_tier"}. Raises `RequestError`."""
    found = {str(row.get("id")): row for batch in sources.exported(path) for row in batch}
    if not any(name in row for row in found.values() for name in JUDGED):
        raise RequestError(f"{path}: no row has weak_score and strong_score, or expected_tier")
    return found


def _history(batches: Iterable[Iterable[Mapping[Any, Any]]], outcomes: Mapping[str, Json]) -> History:
    """Columns grow batch by batch, as arrays: a row as Python objects is twenty times as large."""
    parts = [_columns(list(batch), outcomes) for batch in batches]
    parts = [part for part in parts if len(part["tier"])]
    if not parts:
        raise RequestError("there are no decisions in that time")
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(whole["created"], kind="stable")  # a file may hold pages of `/v1/decisions`, newest first
    whole = {name: column[order] for name, column in whole.items()}
    tier, chosen = whole["tier"], np.where(whole["chosen"] == "", whole["tier"], whole["chosen"])
    return History(
        numbers={name: whole[name] for name in NUMBERS},
        words={name: whole[name] for name in WORDS},
        large=tier == Tier.LARGE,
        chosen_large=chosen == Tier.LARGE,
        own_threshold=whole["own_threshold"],
        weak=whole["weak_score"],
        strong=whole["strong_score"],
        expected=whole["expected"],
        feedback=whole["feedback"],
    )


def _columns(batch: list[Mapping[Any, Any]], outcomes: Mapping[str, Json]) -> dict[str, npt.NDArray[Any]]:
    if missing := [name for name in NEEDED if batch and name not in batch[0]]:
        raise RequestError(f"the rows have no {', '.join(missing)}: is this a file of `tierwise export`?")
    try:
        found: dict[str, npt.NDArray[Any]] = {name: _floats(row.get(name) for row in batch) for name in NUMBERS}
        found |= {name: np.array([str(row.get(name) or "") for row in batch], dtype=np.str_) for name in (*WORDS, "chosen")}
        found["own_threshold"] = np.array([bool(row.get("own_threshold")) for row in batch], dtype=np.bool_)
        judged = [outcomes.get(str(row.get("id")), row) for row in batch]
        found |= {name: _floats(row.get(name) for row in judged) for name in ("weak_score", "strong_score", "feedback")}
        found["expected"] = _floats(_label(row.get("expected_tier")) for row in judged)
    except (ValueError, TypeError, OverflowError):
        raise RequestError("a row holds something else than a number where one is needed") from None
    if missing := [name for name in COUNTED if not np.isfinite(found[name]).all()]:
        raise RequestError(f"a row has no {', '.join(missing)}")
    return found


def _floats(values: Iterable[Any]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _label(tier: object) -> float | None:
    return None if tier not in (Tier.SMALL, Tier.LARGE) else float(tier == Tier.LARGE)
