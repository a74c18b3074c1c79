"""Calibration artefacts in the ledger's database, by their hashes, and the history of what was put live.

An artefact is never changed: its name is the SHA-256 of its bytes. A replica fetches it part by part, since one message between
replicas takes a few MiB.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from serve_app.domain import Json
from serve_app.errors import CalibrationError, RequestError
from serve_app.observe.tables import artefacts, promotions

MOST_BYTES = 64 * 1024 * 1024
PART_BYTES = 2 * 1024 * 1024  # gRPC takes 4 MiB between replicas


@dataclass(frozen=True, slots=True)
class Part:
    """A run of an artefact's bytes; `size` is that of the whole."""

    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Promotion:
    """One line of the history. `at` is Unix time; a threshold of None is the artefact's own; `gate` is what the checks said.

    `calibration` and `previous` are hashes, or `profile`.
    """

    at: float
    application: str
    action: str  # promote, rollback
    calibration: str
    previous: str
    by: str
    threshold: float | None = None
    previous_threshold: float | None = None
    forced: bool = False
    gate: Json | None = None


class Artefacts:
    """The way to both tables; owns nothing. Blocking."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def put(self, blob: bytes, *, kind: str, embedder: str, report: Mapping[str, Any], created: float, forced: bool = False) -> str:
        """Keep an artefact; its name. One that is there already stays as it is, unless its bytes are not what its name says.

        Raises `RequestError` for more than `MOST_BYTES`.
        """
        if len(blob) > MOST_BYTES:
            raise RequestError(f"the artefact has {len(blob)} bytes, {MOST_BYTES} at most are kept")
        name = hashlib.sha256(blob).hexdigest()
        row = {"kind": kind, "embedder": embedder, "report": json.dumps(report), "created": created, "forced": forced}
        with self._engine.begin() as connection:
            there = connection.execute(sa.select(artefacts.c.blob).where(artefacts.c.sha256 == name)).scalar()
            if there is not None and bytes(there) != blob:
                connection.execute(artefacts.delete().where(artefacts.c.sha256 == name))
            if there is None or bytes(there) != blob:
                connection.execute(artefacts.insert().values(sha256=name, size=len(blob), blob=blob, **row))
        return name

    def part(self, name: str, start: int, most: int = PART_BYTES) -> Part | None:
        """Up to `most` bytes from byte `start` on; None when there is no such artefact."""
        cut = sa.func.substr(artefacts.c.blob, start + 1, most, type_=sa.LargeBinary)
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(artefacts.c.size, cut).where(artefacts.c.sha256 == name)).one_or_none()
        return None if row is None else Part(row[0], bytes(row[1]))

    def get(self, name: str) -> bytes | None:
        """All of it; None when there is no such artefact. Raises `CalibrationError` when the bytes are not what the name says."""
        with self._engine.connect() as connection:
            blob = connection.execute(sa.select(artefacts.c.blob).where(artefacts.c.sha256 == name)).scalar()
        if blob is not None and hashlib.sha256(blob).hexdigest() != name:
            raise CalibrationError(f"the artefact {name[:12]} in the ledger is damaged: promote its file again")
        return None if blob is None else bytes(blob)

    def promoted(self, promotion: Promotion) -> None:
        """Write a line of the history."""
        row = asdict(promotion)
        with self._engine.begin() as connection:
            connection.execute(promotions.insert().values({**row, "gate": None if row["gate"] is None else json.dumps(row["gate"])}))

    def history(self, application: str | None = None, most: int = 1000) -> list[Promotion]:
        """The last `most` lines of an application, or of all; oldest first."""
        wanted = sa.select(promotions).order_by(promotions.c.number.desc()).limit(most)
        if application is not None:
            wanted = wanted.where(promotions.c.application == application)
        with self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(wanted).mappings()]
        return [_promotion(row) for row in reversed(rows)]


def _promotion(row: Json) -> Promotion:
    gate = row["gate"]
    return Promotion(**{name: row[name] for name in row if name not in {"number", "gate"}}, gate=None if gate is None else json.loads(gate))
