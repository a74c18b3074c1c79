"""`tierwise golden --offline`, apart from its options; and the page of misses that it writes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.calibrations import named
from serve_app.domain import Tier
from serve_app.embedding import SentenceEmbedder, identity
from serve_app.evaluate import golden_offline, labelled
from serve_app.evaluate import robustness as robust
from serve_app.evaluate.golden import Miss, Report
from serve_app.evaluate.golden_offline import Array, Embed
from serve_app.evaluate.labelled import Labelled
from serve_app.evaluate.robustness import Flips
from serve_app.routing.score import Artefact
from serve_app.settings import Settings, parse

Progress = Callable[[list[Any], str], Iterator[Any]]
NEAR = 0.2  # of the threshold


@dataclass(frozen=True, slots=True)
class Found:
    rows: Sequence[Labelled]
    report: Report
    flips: tuple[Flips, ...]
    problems: list[str]
    calibration: str
    threshold: float


def run(
    calibration: Path | None,
    profile: str,
    *,
    robustness: bool,
    floor: float | None,
    seed: int,
    progress: Progress,
    limit: int | None = None,
) -> Found:
    """Raises `CalibrationError` or `SettingsError`. `floor` takes the place of the settings' accuracy."""
    settings = parse({"profile": profile})
    if floor is not None:
        golden = settings.golden.model_copy(update={"accuracy": floor, "gain_accuracy": floor})
        settings = settings.model_copy(update={"golden": golden})
    artefact = named("builtin" if calibration is None else str(calibration), identity(settings.embedder))
    rows, embed = golden_offline.rows()[:limit], embedder(settings, progress)
    report = golden_offline.accuracy(rows, artefact, settings, embed)
    flips = _flips(rows, artefact, settings, embed, seed) if robustness else ()
    problems = golden_offline.below(report, artefact, settings) + robust.problems(flips, settings.golden.flip_rate)
    return Found(rows, report, flips, problems, artefact.sha256, artefact.threshold)


def _flips(rows: Sequence[Labelled], artefact: Artefact, settings: Settings, embed: Embed, seed: int) -> tuple[Flips, ...]:
    return tuple(robust.measure([row.prompt for row in rows], artefact, settings, embed, seed=seed))


def embedder(settings: Settings, progress: Progress) -> Embed:
    """One that embeds each text once; the model is loaded when it is asked for the first time."""
    models: list[SentenceEmbedder] = []
    known: dict[str, Array] = {}

    def embed(texts: Sequence[str]) -> Array:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new and not models:
            models.append(SentenceEmbedder(settings.embedder))
        for text in progress(new, "embedding"):
            known[text] = models[0].encode([text])[0]
        return np.stack([known[text] for text in texts])

    return embed


def page(found: Found) -> str:
    """Every miss with its reason, first by category: Markdown."""
    rows = {row.id: row for row in found.rows}
    missed = {miss.id for miss in found.report.misses}
    lines = [
        "# Golden misses",
        "",
        "Written by `tierwise golden --offline --misses docs/golden-misses.md`. Nothing was fitted on these prompts.",
        "",
        _summary(found, missed),
        "",
        "| by | prompts | right |",
        "|---|---|---|",
        *_table(found.rows, missed),
        "",
        "| prompt | label and why | went | explanation |",
        "|---|---|---|---|",
    ]
    ordered = sorted(found.report.misses, key=lambda one: (rows[one.id].category, one.id))
    lines += [_line(miss, rows[miss.id], found.threshold) for miss in ordered]
    return "\n".join(lines) + "\n"


def _summary(found: Found, missed: set[str]) -> str:
    report, (low, high) = found.report, found.report.interval
    earlier = {row.id for row in labelled.first()}
    old = [row.id not in missed for row in found.rows if row.id in earlier]
    return (
        f"{report.correct} of {report.total} go where their label says: {report.accuracy:.3f} (95 % interval {low:.3f}-{high:.3f}); of the "
        f"{len(old)} of the first set {sum(old) / max(len(old), 1):.3f}. Calibration "
        f"`{found.calibration[:12]}`, threshold {found.threshold:g}."
    )


def _table(rows: Sequence[Labelled], missed: set[str]) -> list[str]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for row in rows:
        groups[f"category {row.category}"].append(row.id not in missed)
        groups[f"script {script(row.prompt)}"].append(row.id not in missed)
    return [f"| {name} | {len(right)} | {sum(right) / len(right):.3f} |" for name, right in sorted(groups.items())]


def script(text: str) -> str:
    """A coarse guess at the language by its letters: enough to see where the English embedder is weak."""
    kinds = Counter(_script(char) for char in text if char.isalpha())
    kinds["accented"] *= 12  # a few of them are enough to tell that it is not English
    return max(("accented", "cyrillic", "asian", "other", "plain"), key=lambda kind: kinds[kind]) if kinds else "plain"


def _script(char: str) -> str:
    if char < "\u0080":
        return "plain"
    if char < "\u0250":
        return "accented"
    if "\u0400" <= char <= "\u04ff":
        return "cyrillic"
    return "asian" if "\u3040" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7af" else "other"


def _line(miss: Miss, row: Labelled, threshold: float) -> str:
    prompt = " ".join(row.prompt.split()).replace("|", "\\|")
    shown = prompt if len(prompt) <= 110 else prompt[:109] + "…"
    score = "-" if miss.score is None else f"{miss.score:.3f}"
    return f"| {shown} | {miss.expected}: {row.why} | {miss.got}, {score} | {explained(miss, row, threshold)} |"


def explained(miss: Miss, row: Labelled, threshold: float) -> str:
    """Which part of the router was wrong, and by how much."""
    if miss.score is None:
        return "the rule for code and mathematics speaks before any score"
    near = "near the threshold" if abs(miss.score - threshold) < NEAR else "clearly on the wrong side"
    kind = script(row.prompt)
    tongue = "" if kind == "plain" else ", in a language that the embedder was not trained on"
    form = "asks like an easy one" if miss.got is Tier.SMALL else "reads like a hard one"
    size = "short" if len(row.prompt) < 80 else "long" if len(row.prompt) > 400 else "of usual length"
    return f"{near}: {size}, {form}{tongue}"
