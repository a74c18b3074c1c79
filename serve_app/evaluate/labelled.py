"""The labelled prompts that ship with the package, and their committed split. Nothing here is fitted on golden prompts."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from serve_app.domain import Tier
from serve_app.errors import CalibrationError

PACKAGED = ("labelled.jsonl", "labelled_more.jsonl")
# The parts depend on the ids only. Of the first 720 rows the 400 whose ids have the lowest SHA-256 are fitted on, and of the rows
# that came later, whose ids name their writer, about four of five.
LAST_FITTED = "8f0b9b7092d52cd746844e3a73e22b6a1e3afa1355f332e1eb64f64d2ee63490"
LATER = re.compile(r"W\d-")
LATER_GOLDEN = 0.2


@dataclass(frozen=True, slots=True)
class Labelled:
    id: str
    prompt: str
    expected_tier: Tier
    category: str = ""
    why: str = ""


def packaged() -> list[Labelled]:
    """All prompts that ship with the package."""
    return [row for name in PACKAGED for row in _of_file(name)]


def first() -> list[Labelled]:
    """The first 720 of them: the packaged router model was trained on their fit part."""
    return _of_file(PACKAGED[0])


def _of_file(name: str) -> list[Labelled]:
    text = files("serve_app.evaluate.data").joinpath(name).read_text(encoding="utf-8")
    return parse_lines(text.splitlines(), name)


def read(path: Path) -> list[Labelled]:
    """Rows of a JSONL file. Raises `CalibrationError` naming the file and line of the first bad row."""
    try:
        return parse_lines(path.read_text(encoding="utf-8").splitlines(), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: cannot be read ({type(error).__name__})") from error


def parse_lines(lines: Iterable[str], name: str) -> list[Labelled]:
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            rows.append(
                Labelled(
                    str(row["id"]),
                    str(row["prompt"]),
                    Tier(row["expected_tier"]),
                    str(row.get("category", "")),
                    str(row.get("why", "")),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CalibrationError(f"{name}:{number}: needs id, prompt and expected_tier (small or large): {error}") from error
    return rows


def split(rows: Sequence[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """(fit, golden), each in the order of the ids' SHA-256."""
    ordered = sorted(rows, key=lambda row: _digest(row.id))
    return [row for row in ordered if not is_golden(row.id)], [row for row in ordered if is_golden(row.id)]


def is_golden(row_id: str) -> bool:
    """Whether a packaged row is kept out of every fit."""
    digest = _digest(row_id)
    return int(digest[:8], 16) / 2**32 < LATER_GOLDEN if LATER.match(row_id) else digest > LAST_FITTED


def _digest(row_id: str) -> str:
    return hashlib.sha256(row_id.encode()).hexdigest()
