"""The labelled prompts that ship with the package, and their committed split. Nothing here is fitted on golden prompts."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from serve_app.domain import Tier
from serve_app.errors import CalibrationError

FIT_SIZE = 400
PACKAGED = "labelled.jsonl"


@dataclass(frozen=True, slots=True)
class Labelled:
    id: str
    prompt: str
    expected_tier: Tier
    category: str = ""
    why: str = ""


def packaged() -> list[Labelled]:
    """All prompts that ship with the package."""
    text = files("serve_app.evaluate.data").joinpath(PACKAGED).read_text(encoding="utf-8")
    return parse_lines(text.splitlines(), PACKAGED)


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


def split(rows: Sequence[Labelled], fit_size: int = FIT_SIZE) -> tuple[list[Labelled], list[Labelled]]:
    """(fit, golden): the first `fit_size` rows in the order of their ids' SHA-256, and the rest."""
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).hexdigest())
    return ordered[:fit_size], ordered[fit_size:]
