"""The sums of the cost exporter: what counters grew by, what the fleet costs, and both against the same traffic all large.

Two views in the same dollars. `tokens`: the settings' token prices, as in every receipt. `fleet`: instance-hours, with idle time,
router and mirrors itemised. Pure but for the file in which the sums survive a restart. Times are Unix seconds.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from serve_app.observe.exporter_nodes import Node, Prices, Reserve, node, rates
from serve_app.observe.exporter_scrape import COUNTERS, Reading, Sample
from serve_app.settings import Settings

HOUR_S = 3600.0
TIERS = ("small", "large")
FLEET_ITEMS = ("small", "large", "small_idle", "large_idle", "router", "mirrors", "gateway", "unused")
TOKEN_ITEMS = ("small", "large", "mirrors")
MAX_SERIES = 50_000
FORGET_AFTER = 360  # readings without a series, an hour: Ray does not bring back what a dead worker had
FORMAT = 1
PREFIX = 12  # of a series' key: its address
Grown: TypeAlias = Mapping[tuple[str, str, str], float]  # by name, tier or model, kind
Loads: TypeAlias = Mapping[str, Mapping[str, float]]  # running, replicas, capacity; by tier


@dataclass
class State:
    """What survives a restart. `sums` only ever grow; `day` and `midnight` are the date of today and the sums at its begin.

    `series` holds, by a hash of address, name and labels, the last value and for how many readings it was not there.
    """

    sums: dict[str, float] = field(default_factory=dict)
    day: str = ""
    midnight: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)
    last: float | None = None
    large_replica_rate: float | None = None  # dollars an hour and sequences of one replica of the large tier, as last seen
    large_replica_capacity: float | None = None
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Now:
    """What the last reading showed, besides the sums. `rates` are dollars an hour by item."""

    nodes: tuple[Node, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    up: int = 0
    down: int = 0


class Books:
    """Owns the sums, and which machine was last seen behind which address."""

    def __init__(self, settings: Settings, known: Prices, reserved: Mapping[str, Reserve], state: State | None = None) -> None:
        self._settings = settings
        self._prices = known
        self._reserved = reserved
        self._zone = ZoneInfo(settings.exporter.timezone)
        self._machines: dict[str, tuple[Node, float]] = {}
        self._read_before = False
        self._unheard: set[str] = set()  # addresses that were silent at the first reading of all: their past is not known either
        self.state = state or State()
        self.now = Now()

    def enter(self, reading: Reading) -> None:
        """Add what happened since the last reading. The first one after a restart charges that time at the rates that it finds."""
        state, before = self.state, self.now.rates
        seconds = 0.0 if state.last is None else min(max(0.0, reading.at - state.last), self._settings.exporter.gap_s)
        self._turn_day(reading.at)
        grown, loads = self._grown(reading), _loads(reading)
        self._look(reading)
        self._count(grown)
        self._charge(before if self._read_before else self.now.rates, grown, loads, seconds)
        self._remember(loads)
        state.last, self._read_before = reading.at, True

    def today(self) -> dict[str, float]:
        return {name: value - self.state.midnight.get(name, 0.0) for name, value in self.state.sums.items()}

    def _turn_day(self, at: float) -> None:
        day = datetime.fromtimestamp(at, self._zone).date().isoformat()
        if day != self.state.day:
            self.state.day, self.state.midnight = day, dict(self.state.sums)

    def _look(self, reading: Reading) -> None:
        """A node that does not answer is paid for as it was last seen, for a while; one that is no longer listed is gone."""
        machines: dict[str, tuple[Node, float]] = {}
        for url, page in reading.pages.items():
            machine = node(page, self._settings, self._prices) if page is not None else None
            known = self._machines.get(url)
            if machine is not None:
                machines[url] = (machine, reading.at)
            elif page is None and known is not None and reading.at - known[1] <= self._settings.exporter.gap_s:
                machines[url] = known
        self._machines = machines
        nodes = tuple(machine for machine, _ in machines.values())
        down = sum(page is None for page in reading.pages.values())
        self.now = Now(nodes, rates(nodes, self._reserved), len(reading.pages) - down, down)

    def _grown(self, reading: Reading) -> dict[tuple[str, str, str], float]:
        """Growth of the counters by name, tier or model, and kind.

        A counter that is smaller than before has started again: all of it is new. So is one that was not there at the last
        reading; at the first reading of all, nothing is: nobody knows when it happened.
        """
        grown: dict[tuple[str, str, str], float] = {}
        series, silent = self.state.series, {_prefix(url) for url, page in reading.pages.items() if page is None}
        first, self._unheard = self._unheard, silent if self.state.last is None else self._unheard & silent
        for key, sample in self._present(reading):
            old = series.get(key)
            if old is None and len(series) >= MAX_SERIES:
                continue
            before = old[0] if old is not None else (sample.value if self.state.last is None or key[:PREFIX] in first else 0.0)
            series[key] = [sample.value, 0]
            labels = dict(sample.labels)
            name = (sample.name, labels.get("tier") or labels.get("model_name", ""), labels.get("kind", ""))
            grown[name] = grown.get(name, 0.0) + (sample.value - before if sample.value >= before else sample.value)
        return grown

    def _present(self, reading: Reading) -> list[tuple[str, Sample]]:
        """The counters by key; those that are missing grow older, unless their node did not answer."""
        present = [(_key(url, sample), sample) for url, page in reading.pages.items() for sample in page or () if sample.name in COUNTERS]
        here, silent = {key for key, _ in present}, tuple(_prefix(url) for url, page in reading.pages.items() if page is None)
        for key in [key for key in self.state.series if key not in here and not key.startswith(silent)]:
            self.state.series[key][1] += 1
            if self.state.series[key][1] > FORGET_AFTER:
                del self.state.series[key]
        return present

    def _count(self, grown: Grown) -> None:
        for (name, what, kind), more in grown.items():
            match name:
                case "ray_tierwise_requests_total":
                    self._add("requests", more)
                case "ray_tierwise_tokens_total" if kind != "cached":  # cached tokens are a part of the input
                    self._add(f"tokens/{what}", more)
                case "ray_tierwise_mirror_tokens_total" if kind != "cached":
                    self._add(f"mirror_tokens/{what}", more)
                case "ray_tierwise_spent_usd_total":
                    self._add(f"usd/tokens/{what}", more)
                case "ray_tierwise_mirror_spent_usd_total":
                    self._add("usd/tokens/mirrors", more)
                case "ray_tierwise_all_large_usd_total":
                    self._add("all_large/tokens", more)
                case "ray_vllm_prompt_tokens_total" | "ray_vllm_generation_tokens_total":
                    self._add(f"engine_tokens/{what}", more)

    def _charge(self, charged: Mapping[str, float], grown: Grown, loads: Loads, seconds: float) -> None:
        """Instance-hours of the time since the last reading. Whether a tier works is looked at once a reading.

        Of the time in which it works, mirrors are charged what their tokens are of all its tokens so far.
        """
        for item in ("router", "gateway", "unused"):
            self._add(f"usd/fleet/{item}", charged.get(item, 0.0) * seconds / HOUR_S)
        for tier in TIERS:
            dollars = charged.get(tier, 0.0) * seconds / HOUR_S
            if loads["running"].get(tier, 0.0) <= 0:
                self._add(f"usd/fleet/{tier}_idle", dollars)
                continue
            mirrored, given = (self.state.sums.get(f"{name}/{tier}", 0.0) for name in ("mirror_tokens", "tokens"))
            share = mirrored / (mirrored + given) if mirrored else 0.0
            self._add("usd/fleet/mirrors", dollars * share)
            self._add(f"usd/fleet/{tier}", dollars * (1 - share))
        self._add("sequence_seconds/large", loads["running"].get("large", 0.0) * seconds)
        self._add("all_large/fleet", self._all_large(charged, grown, seconds))

    def _all_large(self, charged: Mapping[str, float], grown: Grown, seconds: float) -> float:
        """Dollars of a fleet that answers the same traffic on the large tier alone: as many replicas as its sequences need, one at least.

        How long a token holds a sequence of the large tier is what was seen of it so far; machines without an engine stay.
        """
        state, sums = self.state, self.state.sums
        if state.large_replica_rate is None or not seconds:
            return 0.0
        made = sums.get("tokens/large", 0.0) + sums.get("mirror_tokens/large", 0.0)
        each = sums.get("sequence_seconds/large", 0.0) / made if made else 0.0
        sequences = each * sum(_tokens(grown, "ray_tierwise_tokens_total", tier) for tier in TIERS) / seconds
        capacity = (state.large_replica_capacity or 0.0) * self._settings.exporter.utilisation
        replicas = max(1.0, sequences / capacity) if capacity else 1.0
        return (replicas * state.large_replica_rate + charged.get("gateway", 0.0)) * seconds / HOUR_S

    def _remember(self, loads: Loads) -> None:
        replicas = loads["replicas"].get("large", 0.0)
        if replicas and "large" in self.now.rates:
            self.state.large_replica_rate = self.now.rates["large"] / replicas
            self.state.large_replica_capacity = loads["capacity"].get("large", 0.0) / replicas

    def _add(self, name: str, more: float) -> None:
        self.state.sums[name] = self.state.sums.get(name, 0.0) + more


def _tokens(grown: Grown, name: str, tier: str) -> float:
    return sum(grown.get((name, tier, kind), 0.0) for kind in ("input", "output"))


def _loads(reading: Reading) -> dict[str, dict[str, float]]:
    """Running sequences, replicas and capacity by tier. Every ingress replica tells the same: the largest is the freshest enough."""
    loads: dict[str, dict[str, float]] = {"running": {}, "replicas": {}, "capacity": {}}
    for sample in _all(reading.pages.values()):
        what = sample.name.removeprefix("ray_tierwise_tier_")
        if what in loads:
            tier = dict(sample.labels).get("tier", "")
            loads[what][tier] = max(loads[what].get(tier, 0.0), sample.value)
    return loads


def _all(pages: Iterable[Sequence[Sample] | None]) -> Iterable[Sample]:
    return (sample for page in pages for sample in page or ())


def _prefix(url: str) -> str:
    return blake2b(url.encode(), digest_size=PREFIX // 2).hexdigest()


def _key(url: str, sample: Sample) -> str:
    return _prefix(url) + blake2b(repr((sample.name, sample.labels)).encode(), digest_size=12).hexdigest()


def load(path: Path) -> State | None:
    """None when there is no file. Raises `ValueError` when it is not ours: sums must not begin at 0 in silence."""
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"{path}: not the state of a cost exporter of this version; move it away to begin anew")
    return State(**data)


def save(state: State, path: Path) -> None:
    """As a whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps(asdict(state)), encoding="utf-8")
    os.replace(beside, path)  # noqa: PTH105 - `Path.replace` is the same call
