"""How much a key may ask: requests and tokens a minute, dollars a month. Pure: time comes as an argument, in Unix seconds.

A minute's load is that of the current window and, of the one before, the part that still lies within the last sixty seconds:
a burst at a window's edge is not let through twice. Several replicas count one key: each counts its own and knows the others'
totals, which `QuotaBook` exchanges. All that is sent are totals, so that a lost or repeated message counts nothing twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from serve_app.domain import Json, Record
from serve_app.errors import BudgetSpent, RateLimited
from serve_app.keys import Key

WINDOW_S = 60.0
LONGEST_RETRY_S = 24 * 3600.0  # of a budget: nobody sleeps for weeks on one header
UNKNOWN_ANSWER_TOKENS = 256
CHARS_PER_TOKEN = 4
Row = list[str | int]  # key, window, requests, tokens


@dataclass(slots=True)
class Count:
    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reserved:
    """What was taken for a request that runs, and from which window."""

    key: str
    window: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Meter:
    """One limit of a key at one moment: units of the current window and of the one before, of both seconds since it began."""

    limit: int
    current: float
    previous: float
    into_s: float

    @property
    def load(self) -> float:
        return self.current + self.previous * (1.0 - self.into_s / WINDOW_S)

    @property
    def remaining(self) -> int:
        return max(0, int(self.limit - self.load))

    @property
    def reset_s(self) -> float:
        """Seconds until nothing of what was used counts any more."""
        if self.current > 0:
            return 2 * WINDOW_S - self.into_s
        return WINDOW_S - self.into_s if self.previous > 0 else 0.0

    def wait_s(self, need: float) -> float:
        """Seconds until `need` units more are allowed, if nobody else asks; 0 when they are now. At most the limit is needed."""
        need = min(need, self.limit)
        if self.load + need <= self.limit:
            return 0.0
        rest = WINDOW_S - self.into_s
        if self.current + need <= self.limit:  # the window before only has to slide out far enough
            return WINDOW_S * (1.0 - (self.limit - need - self.current) / self.previous) - self.into_s
        return rest + WINDOW_S * (1.0 - (self.limit - need) / self.current)


def month_start(now: float) -> float:
    """The first second of the month, in UTC."""
    return datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()


def month_left_s(now: float) -> float:
    start = datetime.fromtimestamp(month_start(now), UTC)
    following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return following.timestamp() - now


def estimate(chars: int, answer_tokens: int | None, choices: int = 1) -> int:
    """Tokens that a request may take, before anything has counted them."""
    return chars // CHARS_PER_TOKEN + 1 + choices * (answer_tokens or UNKNOWN_ANSWER_TOKENS)


@dataclass
class Quotas:
    """Owns what this replica counted in the last two minutes, what it knows of the others, and the reservations of what runs."""

    _mine: dict[tuple[str, int], Count] = field(default_factory=dict)
    _others: dict[tuple[str, int], Count] = field(default_factory=dict)
    _running: dict[str, Reserved] = field(default_factory=dict)
    _spent: dict[str, float] = field(default_factory=dict)  # this month, as the ledger knows it
    _unseen: dict[str, float] = field(default_factory=dict)  # dollars that ended here and are not surely in that sum
    _acked: dict[str, float] = field(default_factory=dict)  # those of them whose record the ledger has committed
    _asked: dict[str, float] = field(default_factory=dict)  # those of these that it had committed when it was last asked
    _window: int = 0
    _month: float = 0.0

    def admit(self, key: Key, request_id: str, tokens: int, now: float) -> None:
        """Count a request and reserve its tokens. Raises `BudgetSpent` or `RateLimited`, and then counts nothing."""
        self._move_to(now)
        budget = key.monthly_budget_usd
        if budget is not None and self.spent(key.id) >= budget:
            retry = min(month_left_s(now), LONGEST_RETRY_S)
            raise BudgetSpent(f"The key's budget of ${budget:g} for this month is spent.", retry_after=retry)
        for unit, meter in self.meters(key, now).items():
            need = 1 if unit == "requests" else tokens
            if (wait := meter.wait_s(need)) > 0:
                raise RateLimited(f"The key's limit of {meter.limit} {unit} per minute is reached.", retry_after=wait)
        if key.tokens_per_minute is not None:  # an estimate must not shut out for ever what fits an idle key
            tokens = min(tokens, key.tokens_per_minute)
        count = self._count(key.id)
        count.requests += 1
        count.tokens += tokens
        self._running[request_id] = Reserved(key.id, self._window, tokens)

    def release(self, request_id: str, now: float) -> None:
        """The request ended without a record: its tokens are given back. Does nothing where a record came."""
        self._move_to(now)
        self._replace(self._running.pop(request_id, None), 0)

    def settle(self, record: Record, now: float) -> None:
        """Put what a request really used in the place of its reservation."""
        self._move_to(now)
        reserved = self._running.pop(record.id, None)
        if record.key is None:
            return
        self._replace(reserved or Reserved(record.key, self._window, 0), record.usage.total_tokens)
        if self._of_this_month(record):
            self._unseen[record.key] = self._unseen.get(record.key, 0.0) + record.cost_usd

    def acked(self, record: Record) -> None:
        """The ledger has committed the record: its next sum holds it. Until then its dollars count here, however long that takes."""
        if record.key is not None and self._of_this_month(record):
            self._acked[record.key] = self._acked.get(record.key, 0.0) + record.cost_usd

    def meters(self, key: Key, now: float) -> dict[str, Meter]:
        """The key's limits by the minute, as they stand now."""
        self._move_to(now)
        into = now % WINDOW_S
        found: dict[str, Meter] = {}
        for unit, limit in (("requests", key.requests_per_minute), ("tokens", key.tokens_per_minute)):
            if limit is not None:
                current, previous = (self._used(key.id, window, unit) for window in (self._window, self._window - 1))
                found[unit] = Meter(limit, current, previous, into)
        return found

    def spent(self, key_id: str) -> float:
        """Dollars of this month: the ledger's sum and what ended here and may not be in it. For a second both may hold a record."""
        return self._spent.get(key_id, 0.0) + self._unseen.get(key_id, 0.0)

    def report(self, now: float) -> list[Row]:
        """This replica's own totals, for the ledger."""
        self._move_to(now)
        self._asked = dict(self._acked)
        return [[key, window, count.requests, count.tokens] for (key, window), count in self._mine.items()]

    def merge(self, answer: Mapping[str, object], now: float) -> None:
        """Take over the ledger's answer to the last `report`: the others' totals, and the month's dollars by key."""
        self._move_to(now)
        self._others = counts(answer["others"])  # type: ignore[arg-type]
        if answer["month"] != self._month:
            return
        spent: dict[str, float] = answer["spent"]  # type: ignore[assignment]
        for key, dollars in spent.items():
            self._spent[key] = dollars
            known = self._asked.pop(key, 0.0)
            for table in (self._unseen, self._acked):
                table[key] = max(0.0, table.get(key, 0.0) - known)

    def keep(self, key_ids: Iterable[str]) -> None:
        """Forget the dollars of keys that are gone; their minutes go by themselves, so that one that comes back finds them."""
        known = set(key_ids)
        self._spent = {key: dollars for key, dollars in self._spent.items() if key in known}
        self._unseen = {key: dollars for key, dollars in self._unseen.items() if key in known and dollars > 0}
        self._acked = {key: dollars for key, dollars in self._acked.items() if key in known and dollars > 0}

    def _move_to(self, now: float) -> None:
        """Let go of windows and months that are over. A clock that is set back keeps counting in the newest window."""
        if (window := int(now // WINDOW_S)) > self._window:
            self._window = window
            for table in (self._mine, self._others):
                for old in [place for place in table if place[1] < window - 1]:
                    del table[old]
            if (month := month_start(now)) > self._month:
                self._month = month
                self._spent, self._unseen, self._acked, self._asked = {}, {}, {}, {}

    def _of_this_month(self, record: Record) -> bool:
        """A month is that of a request's begin, as in the ledger's sum: one that is still on its way when it ends is no longer counted."""
        return record.cost_usd > 0 and record.created >= self._month

    def _count(self, key_id: str) -> Count:
        return self._mine.setdefault((key_id, self._window), Count())

    def _used(self, key_id: str, window: int, unit: str) -> int:
        tables = (table.get((key_id, window)) for table in (self._mine, self._others))
        return sum(getattr(count, unit) for count in tables if count is not None)

    def _replace(self, reserved: Reserved | None, tokens: int) -> None:
        """More than was reserved is used now; less is given back where it was taken, unless that window is over."""
        if reserved is None:
            return
        difference = tokens - reserved.tokens
        if difference >= 0:
            if difference:
                self._count(reserved.key).tokens += difference
        elif (count := self._mine.get((reserved.key, reserved.window))) is not None:
            count.tokens += difference


def counts(rows: Sequence[Row]) -> dict[tuple[str, int], Count]:
    return {(str(key), int(window)): Count(int(requests), int(tokens)) for key, window, requests, tokens in rows}


class QuotaBook:
    """The ledger's part. Owns every replica's totals of the live windows, and the dollars of this month by key.

    Dollars come from the records that were committed. What was spent before is read from the database once per key and month
    (`unread`, `read`); the caller sees to it that nothing is committed between that sum and the first record counted on top of it.
    """

    def __init__(self) -> None:
        self._replicas: dict[tuple[str, int], dict[str, Count]] = {}  # by key and window
        self._month = 0.0
        self._before: dict[str, float] = {}
        self._since: dict[str, float] = {}

    @property
    def month(self) -> float:
        return self._month

    def exchange(self, replica: str, rows: Sequence[Row], now: float) -> list[Row]:
        """Keep a replica's totals, answer the sum of all others'."""
        self._move_to(now)
        for place, count in counts(rows).items():
            self._replicas.setdefault(place, {})[replica] = count
        summed: list[Row] = []
        for (key, window), by_replica in self._replicas.items():
            others = [count for name, count in by_replica.items() if name != replica]
            if others:
                summed.append([key, window, sum(count.requests for count in others), sum(count.tokens for count in others)])
        return summed

    def spend(self, receipts: Iterable[Json], now: float) -> None:
        """Count records that were committed now, each once: `Store.write` tells which were new."""
        self._move_to(now)
        for receipt in receipts:
            key = receipt.get("key")
            if key in self._since and receipt["created"] >= self._month:
                self._since[key] += receipt["cost_usd"]

    def unread(self, keys: Iterable[str], now: float) -> list[str]:
        """Keys whose earlier dollars are not known."""
        self._move_to(now)
        return [key for key in keys if key not in self._before]

    def read(self, spent: Mapping[str, float], keys: Iterable[str], month: float) -> None:
        """What the database holds of `keys` since `month`; from here on their records are counted on top."""
        if month == self._month:
            for key in keys:
                self._before[key], self._since[key] = spent.get(key, 0.0), 0.0

    def doubt(self) -> None:
        """The database may hold more than was counted: a commit whose answer was lost. All sums are read anew."""
        self._before, self._since = {}, {}

    def spent(self, keys: Iterable[str]) -> dict[str, float]:
        """Dollars of this month, of those keys of which all is known."""
        return {key: self._before[key] + self._since.get(key, 0.0) for key in keys if key in self._before}

    def _move_to(self, now: float) -> None:
        oldest = int(now // WINDOW_S) - 2  # one more than a replica looks at: clocks differ a little
        for place in [place for place in self._replicas if place[1] < oldest]:
            del self._replicas[place]
        if (month := month_start(now)) > self._month:
            self._month = month
            self._before, self._since = {}, {}
