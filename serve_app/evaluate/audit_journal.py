"""What an audit has scored already, one JSON line a prompt, so that one that was stopped goes on where it was.

It is read beside the input, prompt by prompt, and holds for as long as both say the same: any other memory of a large file
would be as large. It holds no text, only a digest of it.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from serve_app.domain import Json

FLUSH = 50  # rows
DIGITS = 16  # of the digest


class Journal:
    """Owns the file. `say` is told, in one line, when earlier results do not hold any more."""

    def __init__(self, path: Path, made_with: Json, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._replaying = self._opens_with(made_with)
        self.resumed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def known(self, key: str) -> Json | None:
        """What was found of this prompt, the next of the input. None from the first one on that is not there or another."""
        if not self._replaying:
            return None
        place = self._file.tell()
        row = _row(self._file.readline())
        if row is not None and row.get("key") == key:
            self.resumed += 1
            return row
        if row is not None:
            self._say(f"the input is another one from prompt {self.resumed + 1} on: scored anew from there")
        self._cut(place)
        return None

    def add(self, row: Json) -> None:
        self._file.write(json.dumps(row, ensure_ascii=True).encode() + b"\n")
        self._written += 1
        if self._written % FLUSH == 0:
            self._file.flush()

    def _opens_with(self, made_with: Json) -> bool:
        """Whether there are results made in the same way; else the file begins anew."""
        self._written = 0
        found = _row(self._file.readline())
        if found == made_with:
            return True
        if found is not None:
            changed = sorted(name for name in made_with if found.get(name) != made_with[name])
            self._say(f"{self._path.name}: made with another {', '.join(changed) or 'version'}: everything is scored anew")
        self._cut(0)
        self.add(made_with)
        return False

    def _cut(self, place: int) -> None:
        self._replaying = False
        self._file.seek(place)
        self._file.truncate()


def key_of(body: Json) -> str:
    """Names a prompt by what it says."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _row(line: bytes) -> Json | None:
    """None at the end, and for a line that was not finished."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
