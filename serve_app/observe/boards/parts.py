"""What the Grafana dashboards are made of: titles, queries, units. Pure data, which `dashboards.py` makes JSON of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

BY_TIER = "{{tier}}"
WINDOW = "$__rate_interval"  # Grafana's: four scrapes at least


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """`unit` is Grafana's name of one. `vllm`: needs real engines. `cost`: needs the cost exporter."""

    title: str
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "heatmap"] = "timeseries"
    stacked: bool = False
    vllm: bool = False
    cost: bool = False
    bound: float | None = None  # a line: where an alert begins


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    title: str
    text: str
    rows: Mapping[str, tuple[Panel, ...]]


def rate(metric: str, by: str = "", where: str = "") -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{where}}}[{WINDOW}]))"


def or_none(expr: str) -> str:
    """0 where nothing of the kind has ever happened: Ray shows a counter from its first event on."""
    return f"({expr}) or vector(0)"


def quantile(q: float, metric: str, by: str = "tier") -> str:
    return f"histogram_quantile({q}, sum by ({by}, le) (rate({metric}_bucket[{WINDOW}])))"


def quantiles(metric: str, by: str = "tier") -> tuple[Query, ...]:
    return tuple(Query(quantile(q, metric, by), f"{{{{{by}}}}} p{round(100 * q)}") for q in (0.5, 0.95, 0.99))
