"""docs/benchmarks.md from the figures of a run. Pure: figures in, Markdown out; the prose beside them is a file of its own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.bench.targets import Verdict

HEAD = """# Benchmarks

Written by `make bench`; edit `docs/benchmarks-notes.md` for the prose. Trust ratios of one run and CPU time: wall times of a small shared
machine say little. Figures are medians of the repeats with the least and the most in brackets; contenders are measured in turn.
"""
Summary = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Results:
    """`overhead`: rows of `overhead.summary` by transport. `routed`: medians by share. Each is empty where it was not run."""

    machine: Mapping[str, str]
    overhead: Mapping[str, Summary]
    decisions: Sequence[Mapping[str, Any]]
    quality: Sequence[Mapping[str, Any]]
    routed: Mapping[str, Mapping[str, Any]]


def render(results: Results, verdicts: Sequence[Verdict], claims: Sequence[Verdict], notes: str) -> str:
    parts = [HEAD, *(f"- {name}: {value}" for name, value in results.machine.items()), ""]
    parts += ["## Targets", *_verdicts(verdicts, ("target", "measured", "verdict")), ""]
    parts += ["## The article's claims", *_verdicts(claims, ("claimed", "measured here", "verdict")), ""]
    for transport, rows in results.overhead.items():
        parts += [f"## What stands in between costs: {_transport(transport)}", "`tierwise bench --only overhead`", "", *_overhead(rows), ""]
    if results.decisions:
        parts += [
            "## Decisions alone",
            "`tierwise bench --only decisions`; one thread, decisions in one CPU-second",
            "",
            *_decisions(results.decisions),
            "",
        ]
    if results.quality:
        parts += ["### Their quality, on the same rows", "", *_quality(results.quality), ""]
    if results.routed:
        parts += ["## Routed against all large, real engines on CPU", "`tierwise bench --only routed`", "", *_routed(results.routed), ""]
    return "\n".join([*parts, notes.strip(), ""])


def _transport(name: str) -> str:
    return "throughput mode with HAProxy" if name == "throughput" else "Serve's default transport"


def _verdicts(verdicts: Sequence[Verdict], titles: tuple[str, str, str]) -> list[str]:
    if not verdicts:
        return ["Nothing was measured."]
    return table(("what", *titles), ((one.what, one.wanted, one.found, one.says) for one in verdicts))


def _overhead(rows: Summary) -> list[str]:
    out = []
    for form in dict.fromkeys(row["form"] for row in rows):
        out += ["", f"**{form}**", ""]
        titles = ("contender", "CPU-ms outside the engine", "with the engine", "requests/s", "TTFT p50 ms", "p99 ms", "MiB", "failed")
        names = ("cpu_ms", "cpu_with_engine_ms", "requests_s", "ttft_p50_ms", "ttft_p99_ms", "memory_mib", "failed")
        out += table(titles, ((row["contender"], *(cell(row[name]) for name in names)) for row in rows if row["form"] == form))
    return out


def _decisions(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys((row["length"], row["batch"]) for row in rows))
    found = {(row["what"], row["length"], row["batch"]): row["per_cpu_second"] for row in rows}
    names = dict.fromkeys(row["what"] for row in rows)
    titles = ("", *(f"{length}, batch {batch}" for length, batch in columns))
    return table(titles, ((name, *(_count(found.get((name, *column))) for column in columns)) for name in names))


def _quality(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return table(
        ("rows", "LiteLLM's heuristic, APGR", "published best of RouteLLM"), ((r["rows"], f"{r['apgr']:.3f}", r["published"]) for r in rows)
    )


def _routed(by_share: Mapping[str, Mapping[str, Any]]) -> list[str]:
    titles = (
        "share to large",
        "requests/s over all large",
        "ideal",
        "part of the ideal",
        "mean latency",
        "p99",
        "TTFT p50",
        "dollars saved",
    )
    names = ("requests_s", "ideal", "of_ideal", "mean_latency", "p99_latency", "ttft_p50", "saved")
    return table(titles, ((share, *(f"{medians[name]:.2f}" for name in names)) for share, medians in by_share.items()))


def cell(figure: Mapping[str, float]) -> str:
    return f"{_short(figure['median'])} [{_short(figure['low'])}, {_short(figure['high'])}]"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
