"""Rows to calibrate on and to evaluate with: prompts and what two models made of them, or the tier that a person expects."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve_app.domain import Json, Tier
from serve_app.errors import CalibrationError
from serve_app.evaluate.routing_metrics import Outcomes

NEEDED = "needs id, prompt, and weak_score and strong_score in [0, 1], or expected_tier (small or large)"


@dataclass(frozen=True, slots=True)
class Row:
    """A label is read as scores: 'large' says that the weak model fails where the strong one does not, 'small' that both do well."""

    id: str
    prompt: str
    weak: float
    strong: float
    benchmark: str = ""
    task: str = ""
    expected: Tier | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """`dropped` rows had no score: they are counted, never guessed."""

    rows: tuple[Row, ...]
    dropped: int = 0

    @property
    def outcomes(self) -> Outcomes:
        return Outcomes(np.array([row.weak for row in self.rows]), np.array([row.strong for row in self.rows]))

    @property
    def prompts(self) -> list[str]:
        return [row.prompt for row in self.rows]

    @property
    def benchmarks(self) -> list[str]:
        return [row.benchmark for row in self.rows]

    def select(self, index: Iterable[int]) -> "Rows":
        return Rows(tuple(self.rows[i] for i in index))


def read(paths: Sequence[Path]) -> Rows:
    """The rows of JSONL files, one after the other. Raises `CalibrationError` naming the file and line at fault."""
    parts = [parse_lines(_lines(path), path.name) for path in paths]
    return Rows(tuple(row for part in parts for row in part.rows), sum(part.dropped for part in parts))


def first_line(path: Path) -> str:
    """The first line that is not blank; empty where there is none. Raises `CalibrationError` when it cannot be read."""
    return next((line for line in _lines(path) if line.strip()), "")


def parse_lines(lines: Iterable[str], name: str) -> Rows:
    rows: list[Row] = []
    dropped = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _row(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise CalibrationError(f"{name}:{number}: {NEEDED}: {error}") from error
        if row is None:
            dropped += 1
        else:
            rows.append(row)
    return Rows(tuple(rows), dropped)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: cannot be read ({type(error).__name__})") from error


def _row(row: Json) -> Row | None:
    """None where a score is null."""
    if not isinstance(row["prompt"], str) or not row["prompt"].strip():
        raise ValueError("the prompt is no text")
    names = (str(row.get("benchmark") or ""), str(row.get("task") or ""))
    if "expected_tier" in row and "weak_score" not in row:
        tier = Tier(row["expected_tier"])
        return Row(str(row["id"]), row["prompt"], float(tier is Tier.SMALL), 1.0, *names, expected=tier)
    if row["weak_score"] is None or row["strong_score"] is None:
        return None
    return Row(str(row["id"]), row["prompt"], _score(row["weak_score"]), _score(row["strong_score"]), *names)


def _score(value: object) -> float:
    if isinstance(value, bool):
        return float(value)
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise ValueError(f"a score of {value!r}")
    return float(value)
