"""What waits to be sent or written: bounded in items and in bytes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.domain import Feedback, MirrorPair, Record
from serve_app.observe.receipt import Row, held_bytes, id_of

MIB = 1024 * 1024
Item = TypeVar("Item", bound=Record | Row)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much waits. `text_bytes` are of clients' text alone: `queue_mib` of the settings bounds them."""

    records: int
    text_bytes: int


class Backlog(Generic[Item]):
    """Owns items in the order of their coming, by id; one that comes again replaces the first."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._items: dict[str, Item] = {}
        self._bytes: dict[str, int] = {}
        self._total = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def waiting(self) -> Waiting:
        return Waiting(len(self._items), self._total)

    def full(self, more: int = 1) -> bool:
        return len(self._items) + more > self._most

    def fits(self, items: Iterable[Item]) -> bool:
        """Whether all of them find place, by number and by bytes."""
        sizes = [held_bytes(item) for item in items]
        return not self.full(len(sizes)) and self._total + sum(sizes) <= self._most_bytes

    def add(self, item: Item) -> None:
        """Keep it; the caller has asked `fits`."""
        name, size = id_of(item), held_bytes(item)
        self._total += size - self._bytes.get(name, 0)
        self._items[name], self._bytes[name] = item, size

    def get(self, name: str) -> Item | None:
        return self._items.get(name)

    def first(self, most: int, most_bytes: int) -> Mapping[str, Item]:
        """The oldest items, one at least; a transport between replicas takes a few MiB at a time."""
        batch: dict[str, Item] = {}
        size = 0
        for name, item in self._items.items():
            size += self._bytes[name]
            if len(batch) >= most or (batch and size > most_bytes):
                break
            batch[name] = item
        return batch

    def remove(self, batch: Mapping[str, Item]) -> None:
        """Take out what was sent. What came anew under the same id meanwhile stays."""
        for name, item in batch.items():
            if self._items.get(name) is item:
                del self._items[name]
                self._total -= self._bytes.pop(name)


class Forgotten:
    """Owns which keys and sessions were deleted lately, and when.

    A record that waits in another ingress, or a mirror that still runs, comes after the deletion of what it belongs to: it must
    not bring back what was deleted. Bounded: the oldest entries give way.
    """

    def __init__(self, most: int = 10_000) -> None:
        self.most = most
        self._when: dict[tuple[str | None, str | None], float] = {}

    def add(self, key: str | None, session: str | None, until: float) -> None:
        """What was made up to `until` (Unix time) is to be forgotten."""
        self._when.pop((key, session), None)
        self._when[key, session] = until
        while len(self._when) > self.most:
            del self._when[next(iter(self._when))]

    def covers(self, row: Row) -> bool:
        """Whether the row was made before its key or session was deleted."""
        key, session, created = (
            (row.key, row.session, row.created)
            if isinstance(row, MirrorPair | Feedback)
            else (row.get("key"), row.get("session"), float(row.get("created", 0.0)))
        )
        named: list[tuple[str | None, str | None]] = [(key, None)] if key is not None else []
        if session is not None:
            named += [(key, session), (None, session)]
        if isinstance(row, Feedback) and row.by is not None:
            named.append((row.by, None))
        return any(created <= self._when.get(name, float("-inf")) for name in named)
