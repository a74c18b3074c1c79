"""The cost exporter: reads the nodes' metrics again and again, and answers Prometheus from what it knows. Every name is in `EXPORTED`."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve_app.errors import SettingsError
from serve_app.observe import exporter_books, exporter_nodes, exporter_scrape
from serve_app.observe.exporter_books import FLEET_ITEMS, HOUR_S, TIERS, TOKEN_ITEMS, Books, State
from serve_app.settings import Settings

log = logging.getLogger(__name__)
WINDOW_S = 300.0  # over which the spend rate by token prices is taken
CLOSE_S = 10.0
VIEWS = {"tokens": TOKEN_ITEMS, "fleet": FLEET_ITEMS}
EXPORTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "tierwise_cost_usd_total": ("Dollars spent, by view and what for.", ("view", "item")),
    "tierwise_cost_all_large_usd_total": ("Dollars that the same traffic would have cost on the large tier alone.", ("view",)),
    "tierwise_cost_engine_tokens_total": ("Tokens by vLLM's own counters, with router calls and mirrors.", ("model",)),
    "tierwise_cost_spend_usd_per_hour": ("Dollars an hour: of the last five minutes (tokens), of the machines (fleet).", ("view",)),
    "tierwise_cost_today_usd": ("Dollars spent since midnight.", ("view",)),
    "tierwise_cost_saved_today_usd": ("Dollars saved since midnight against all large; negative: it cost more.", ("view",)),
    "tierwise_cost_saved_usd": ("Dollars saved against all large since the exporter's first reading.", ("view",)),
    "tierwise_cost_per_1000_requests_usd": ("Dollars for 1,000 requests, of today's.", ("view",)),
    "tierwise_cost_per_million_tokens_usd": (
        "Dollars for a million tokens of a tier, of today's, idle time included.",
        ("view", "tier"),
    ),
    "tierwise_cost_nodes": ("Machines by instance type.", ("instance",)),
    "tierwise_cost_nodes_unpriced": ("Machines whose price is not known: they are charged nothing.", ()),
    "tierwise_cost_targets": ("Addresses of the last reading, by whether they answered.", ("state",)),
    "tierwise_cost_last_reading_timestamp_seconds": ("When the nodes were last read.", ()),
    "tierwise_cost_prices_info": ("Where the packaged prices come from.", ("date", "region")),
}


class Exporter(Collector):
    """Owns the books and the state's file. `poll` reads the nodes; `collect` only tells what was read, so that no scrape waits for one."""

    def __init__(self, settings: Settings, *, now: Callable[[], float] = time.time, keep: bool = True) -> None:
        """`keep` writes the state after each reading. Raises `SettingsError` when its file is not one of ours."""
        self._settings = settings.exporter
        self._now = now
        self._prices = exporter_nodes.prices(settings)
        self._path = Path(self._settings.state) if self._settings.state else None
        self._keep = keep
        self._books = Books(settings, self._prices, exporter_nodes.reserves(settings), self._loaded())
        self._lock = threading.Lock()
        self._spent: deque[tuple[float, float]] = deque(maxlen=max(2, 1 + int(WINDOW_S / self._settings.every_s)))

    def poll(self) -> None:
        """One reading. Where Ray is not there, nothing was read and nothing is charged."""
        try:
            urls = exporter_scrape.targets(self._settings)
        except (OSError, ValueError) as error:
            log.warning("no addresses to read: %s", error)
            urls = []
        reading = exporter_scrape.read(urls, self._settings.timeout_s, self._now())
        with self._lock:
            self._books.enter(reading)
            self._spent.append((reading.at, self._total("tokens", self._books.state.sums)))
        self._save()

    def run(self, stop: threading.Event) -> None:
        """Read until `stop`, at once and then every so often."""
        while not stop.is_set():
            try:
                self.poll()
            except Exception as error:  # as broad as it gets - whatever a node answers, the next reading has its turn
                log.error("a reading failed", exc_info=error)
            stop.wait(self._settings.every_s)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            figures = list(self._figures())
        families: dict[str, Metric] = {}
        for name, labels, value in figures:
            text, names = EXPORTED[name]
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family: Any = families.setdefault(name, kind(name, text, labels=names))
            family.add_metric(labels, value)
        yield from families.values()

    def figures(self) -> list[dict[str, Any]]:
        """The same for `--json`."""
        with self._lock:
            return [
                {"name": name, "labels": dict(zip(EXPORTED[name][1], labels, strict=True)), "value": value}
                for name, labels, value in self._figures()
            ]

    def _figures(self) -> Iterable[tuple[str, tuple[str, ...], float]]:
        state = self._books.state
        yield from self._sums(state)
        for view in VIEWS:
            yield from self._of_view(view)
        yield from self._of_fleet()
        yield "tierwise_cost_prices_info", (self._prices.date, self._prices.region), 1.0
        if state.last is not None:
            yield "tierwise_cost_last_reading_timestamp_seconds", (), state.last

    def _sums(self, state: State) -> Iterable[tuple[str, tuple[str, ...], float]]:
        for view, items in VIEWS.items():
            for item in items:
                yield "tierwise_cost_usd_total", (view, item), state.sums.get(f"usd/{view}/{item}", 0.0)
            yield "tierwise_cost_all_large_usd_total", (view,), state.sums.get(f"all_large/{view}", 0.0)
        for name, value in state.sums.items():
            if name.startswith("engine_tokens/"):
                yield "tierwise_cost_engine_tokens_total", (name.removeprefix("engine_tokens/"),), value

    def _of_view(self, view: str) -> Iterable[tuple[str, tuple[str, ...], float]]:
        sums, today = self._books.state.sums, self._books.today()
        spent = self._total(view, today)
        yield "tierwise_cost_spend_usd_per_hour", (view,), self._rate() if view == "tokens" else sum(self._books.now.rates.values())
        yield "tierwise_cost_today_usd", (view,), spent
        yield "tierwise_cost_saved_today_usd", (view,), today.get(f"all_large/{view}", 0.0) - spent
        yield "tierwise_cost_saved_usd", (view,), sums.get(f"all_large/{view}", 0.0) - self._total(view, sums)
        if requests := today.get("requests", 0.0):
            yield "tierwise_cost_per_1000_requests_usd", (view,), 1000 * spent / requests
        for tier in TIERS:
            if tokens := today.get(f"tokens/{tier}", 0.0):
                dollars = today.get(f"usd/{view}/{tier}", 0.0) + today.get(f"usd/{view}/{tier}_idle", 0.0)
                yield "tierwise_cost_per_million_tokens_usd", (view, tier), 1e6 * dollars / tokens

    def _of_fleet(self) -> Iterable[tuple[str, tuple[str, ...], float]]:
        now = self._books.now
        kinds = [machine.instance or "unknown" for machine in now.nodes]
        for kind in sorted(set(kinds)):
            yield "tierwise_cost_nodes", (kind,), float(kinds.count(kind))
        yield "tierwise_cost_nodes_unpriced", (), float(sum(machine.usd_per_hour is None for machine in now.nodes))
        yield "tierwise_cost_targets", ("up",), float(now.up)
        yield "tierwise_cost_targets", ("down",), float(now.down)

    @staticmethod
    def _total(view: str, sums: dict[str, float]) -> float:
        return sum(sums.get(f"usd/{view}/{item}", 0.0) for item in VIEWS[view])

    def _rate(self) -> float:
        """Dollars an hour by token prices over the window, or what of it has passed."""
        if len(self._spent) < 2 or self._spent[-1][0] <= self._spent[0][0]:
            return 0.0
        (begin, before), (end, after) = self._spent[0], self._spent[-1]
        return (after - before) * HOUR_S / (end - begin)

    def _loaded(self) -> State | None:
        if self._path is None:
            return None
        try:
            return exporter_books.load(self._path)
        except (ValueError, TypeError) as error:
            raise SettingsError([f"args.exporter.state: {error}"]) from None

    def _save(self) -> None:
        if self._path is not None and self._keep:
            try:
                exporter_books.save(self._books.state, self._path)
            except OSError as error:
                log.warning("the state was not written, a restart would begin at the last one: %s", error)


class Serving:
    """Owns the exporter's two threads: one reads the nodes, one answers Prometheus. Raises `OSError` when the port is taken."""

    def __init__(self, settings: Settings) -> None:
        self.exporter = Exporter(settings)
        registry = CollectorRegistry()
        registry.register(self.exporter)
        self._server, self._answering = start_http_server(settings.exporter.port, settings.exporter.host, registry)
        self.port = int(self._server.server_port)
        self._stop = threading.Event()
        self._reading = threading.Thread(target=self.exporter.run, args=[self._stop], name="cost-exporter", daemon=True)
        self._reading.start()

    def alive(self) -> bool:
        return self._reading.is_alive() and self._answering.is_alive()

    def wait(self) -> None:
        """Until it is stopped or a thread has died."""
        while self.alive() and not self._stop.is_set():
            self._reading.join(1.0)

    def close(self) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()
        self._reading.join(CLOSE_S)
