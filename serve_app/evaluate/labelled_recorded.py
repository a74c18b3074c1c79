"""What a ledger knows of both models, as rows for `calibrate`: judged mirrors, and where nobody judged, feedback and early exits.

| evidence | small model's score | large model's score |
|---|---|---|
| a mirrored pair that `tierwise judge --write` judged | the last judgement's | the same judgement's |
| feedback on an answer | its mean, where the small tier gave it | its mean, where the large tier gave it |
| an early exit | 0: it doubted itself so much that the large model answered | not known by that alone |

Feedback and early exits are joined by the prompt's own text. A row has both scores where there is evidence of both, and null where
there is none: nothing is invented, and the reader of rows drops what has a null. A judged pair stands alone: its two scores are
of one measure.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa

from serve_app.domain import Json, Reason, Tier
from serve_app.errors import CalibrationError
from serve_app.evaluate import fitting, recorded
from serve_app.observe import reader
from serve_app.observe.tables import decisions, feedback, judgements, mirrors, prompts
from serve_app.routing import features

AT_ONCE = 100  # a prompt may have 256 KiB
FILE = "ledger.jsonl"


@dataclass
class _Sides:
    """What is known of one prompt, score by score."""

    id: str
    evidence: set[str] = field(default_factory=set)
    scores: dict[Tier, list[float]] = field(default_factory=lambda: {tier: [] for tier in Tier})

    def row(self, prompt: str) -> Json:
        return _row(self.id, prompt, _mean(self.scores[Tier.SMALL]), _mean(self.scores[Tier.LARGE]), " and ".join(sorted(self.evidence)))


def rows(url: str, since: float | None = None, until: float | None = None) -> list[Json]:
    """{"id", "prompt", "weak_score", "strong_score", "evidence"} of what was decided in [since, until), Unix time.

    Raises `TierwiseError` when the ledger cannot be read.
    """
    with reader.reading(url) as connection:
        if not sa.inspect(connection).has_table(judgements.name):
            return []
        judged = _judged(connection, since, until)
        sides = _sides(connection, since, until, set(judged))
    return [*judged.values(), *(one.row(prompt) for prompt, one in sides.items())]


@contextmanager
def with_ledger(data: list[Path] | None, ledger: str, since: str = "", *, config: bool = False) -> Iterator[list[Path]]:
    """The files of `data` and one of a ledger's rows: of the ledger that is named, or that of deployments.yaml where `config`.

    Raises `CalibrationError` when the ledger alone has too few rows that are whole.
    """
    if not ledger and not config:
        yield data or []
        return
    source = recorded.Source(Path("deployments.yaml"), ledger)
    found = rows(recorded.url(source), recorded.moment(since))
    if not data:
        check(found)
    if not found:
        yield data or []
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
        yield [*(data or []), path]


def check(found: list[Json]) -> None:
    """Raises `CalibrationError` in one line when too little is known of both models."""
    whole = [row for row in found if row["weak_score"] is not None and row["strong_score"] is not None]
    if len(whole) >= fitting.MIN_ROWS:
        return
    judged = sum(row["evidence"] == "judged" for row in whole)
    known = f"{judged} judged, {len(whole) - judged} by feedback; of one model's only: {len(found) - len(whole)}"
    needed = f"{fitting.MIN_ROWS} are needed, and `tierwise judge --write` judges mirrored answers"
    raise CalibrationError(f"the ledger has {len(whole)} prompts with scores of both models ({known}): {needed}")


def _judged(connection: sa.Connection, since: float | None, until: float | None) -> dict[str, Json]:
    """The last judgement of each pair, by decision."""
    wanted = sa.select(judgements, mirrors.c.body).join(mirrors, mirrors.c.decision_id == judgements.c.decision_id)
    wanted = wanted.where(*_inside(mirrors, since, until), judgements.c.fault.is_(None)).order_by(judgements.c.created)
    found = {}
    for batch in reader.rows(connection, wanted, AT_ONCE):
        for row in batch:
            if prompt := _text(row["body"]):
                found[row["decision_id"]] = _row(row["decision_id"], prompt, row["weak_score"], row["strong_score"], "judged")
    return found


def _sides(connection: sa.Connection, since: float | None, until: float | None, but: set[str]) -> dict[str, _Sides]:
    """By prompt, oldest first: what people say, and the early exits, of decisions that nobody judged."""
    found: dict[str, _Sides] = {}
    said = sa.select(feedback.c.decision_id, feedback.c.tier, feedback.c.score, prompts.c.body)
    said = said.join(prompts, prompts.c.decision_id == feedback.c.decision_id).where(*_inside(prompts, since, until))
    doubted = (sa.literal(Tier.SMALL.value).label("tier"), sa.literal(0.0).label("score"))
    left = sa.select(decisions.c.id.label("decision_id"), *doubted, prompts.c.body)
    left = left.join(prompts, prompts.c.decision_id == decisions.c.id)
    left = left.where(*_inside(prompts, since, until), decisions.c.reason == Reason.ESCALATED_LOW_CONFIDENCE.value)
    for evidence, wanted in (("feedback", said), ("early exit", left)):
        for batch in reader.rows(connection, wanted.order_by(prompts.c.created, prompts.c.decision_id), AT_ONCE):
            for row in batch:
                if row["decision_id"] not in but and (prompt := _text(row["body"])):
                    one = found.setdefault(prompt, _Sides(row["decision_id"]))
                    one.scores[Tier(row["tier"])].append(float(row["score"]))
                    one.evidence.add(evidence)
    return found


def _inside(table: sa.Table, since: float | None, until: float | None) -> list[sa.ColumnElement[bool]]:
    bounds = ((table.c.created.__ge__, since), (table.c.created.__lt__, until))
    return [compare(moment) for compare, moment in bounds if moment is not None]


def _row(name: str, prompt: str, weak: float | None, strong: float | None, evidence: str) -> Json:
    return {"id": name, "prompt": prompt, "weak_score": weak, "strong_score": strong, "evidence": evidence}


def _text(body: str) -> str:
    """What is scored; empty where there is none."""
    text = features.scored_text(json.loads(body))
    return text if text.strip() else ""


def _mean(scores: list[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None
