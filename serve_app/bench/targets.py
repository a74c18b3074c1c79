"""What was aimed at, held against what was measured: ratios of one run. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UNARY, STREAM, ONE, MANY = "unary, 8 at a time", "stream of 50, 8 at a time", "stream of 50, one client", "unary, 64 at a time"
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    what: str
    wanted: str
    found: str
    says: str


def of_overhead(rows: Rows, transport: str) -> list[Verdict]:
    """The targets on CPU per request and on the first token, for one transport's rows."""
    found = {(row["form"], row["contender"]): row for row in rows}
    ours, hop, ray = (f"{name}, {transport}" for name in ("tierwise", "bare hop", "ray.serve.llm"))

    def ratio(form: str, other: str, figure: str = "cpu_ms") -> float | None:
        mine, theirs = found.get((form, ours)), found.get((form, other))
        return (
            None if mine is None or theirs is None or theirs[figure]["median"] <= 0 else mine[figure]["median"] / theirs[figure]["median"]
        )

    def more(form: str, other: str) -> float | None:
        mine, theirs = found.get((form, ours)), found.get((form, other))
        return None if mine is None or theirs is None else mine["ttft_p50_ms"]["median"] - theirs["ttft_p50_ms"]["median"]

    return [
        at_most(f"CPU per plain request over LiteLLM's ({transport})", ratio(UNARY, "LiteLLM"), 0.5, " x"),
        at_most(f"CPU per plain request over a bare Ray hop ({transport})", ratio(UNARY, hop), 2.0, " x"),
        at_most(f"CPU per stream of 50 over LiteLLM's ({transport})", ratio(STREAM, "LiteLLM"), 0.3, " x"),
        at_most(f"CPU per stream of 50 over ray.serve.llm's ({transport})", ratio(STREAM, ray), 1.0, " x"),
        at_most(f"TTFT p50 more than a bare Ray hop, one client ({transport})", more(ONE, hop), 10.0, " ms"),
    ]


def of_decisions(rows: Rows) -> list[Verdict]:
    """The learned heads without an embedding, on short prompts one by one, over RouteLLM's BERT."""
    found = {(row["what"], row["length"], row["batch"]): row["per_cpu_second"] for row in rows}
    mine = found.get(("tierwise: learned heads, no embedding", "short", 1))
    bert = found.get(("RouteLLM BERT (architecture)", "short", 1))
    return [at_least("decisions per CPU-second over RouteLLM's BERT", None if not mine or not bert else mine / bert, 100.0, " x")]


def of_routed(by_share: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    return [
        at_least(f"routed throughput over the ideal, {share} large", medians["of_ideal"], 0.85, " x") for share, medians in by_share.items()
    ]


def claims(by_share: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """The article's figures, on real engines at 15 % large: what holds of their direction and size here."""
    medians = by_share.get("15%")
    if medians is None:
        return []
    return [
        _claim("cost", 0.22, 1.0 - medians["saved"], "-78 %"),
        _claim("mean latency", 195 / 340, medians["mean_latency"], "340 -> 195 ms"),
        _claim("p99 latency", 810 / 1420, medians["p99_latency"], "1,420 -> 810 ms"),
        _claim("TTFT", 45 / 120, medians["ttft_p50"], "120 -> 45 ms (small-tier requests)"),
        _claim("requests/s", 450 / 120, medians["requests_s"], "120 -> 450", higher=True),
    ]


def _claim(what: str, claimed: float, found: float, says: str, *, higher: bool = False) -> Verdict:
    holds = found >= claimed if higher else found <= claimed
    right_way = found > 1.0 if higher else found < 1.0
    verdict = "holds" if holds else "less than claimed" if right_way else "does not hold"
    return Verdict(what, f"{says} ({claimed:.2f} x)", f"{found:.2f} x", verdict)


def at_most(what: str, found: float | None, most: float, unit: str) -> Verdict:
    return _against(what, f"at most {most:g}{unit}", found, unit, met=found is not None and found <= most)


def at_least(what: str, found: float | None, least: float, unit: str) -> Verdict:
    return _against(what, f"at least {least:g}{unit}", found, unit, met=found is not None and found >= least)


def _against(what: str, wanted: str, found: float | None, unit: str, *, met: bool) -> Verdict:
    if found is None:
        return Verdict(what, wanted, "-", "not measured")
    return Verdict(what, wanted, f"{found:.2f}{unit}", "met" if met else "**missed**")
