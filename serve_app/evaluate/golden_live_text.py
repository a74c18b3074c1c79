"""A golden run as lines and as JSON. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from serve_app.domain import Json
from serve_app.evaluate.golden import Miss
from serve_app.evaluate.golden_live import Found
from serve_app.evaluate.golden_live_answers import Arm
from serve_app.evaluate.golden_live_figures import EVERYTHING, Group
from serve_app.evaluate.golden_live_judge import Quality
from serve_app.evaluate.routing_metrics import Interval

PERCENTILES = ("p50", "p95", "p99")
MAX_PROMPT = 70
FLEET = (
    "measured seconds x the hourly prices of the settings' machines, shared by who kept a tier busy; idle time stands on its own, "
    "a machine without an engine is not in it"
)
UNPRICED = "the settings name no price for their machines"


def as_json(found: Found) -> Json:
    """Times are seconds, money is US dollars; what is not known is null."""
    said, run = found.figures, found.run
    report = said.routing
    return {
        "total": 0 if report is None else report.total,
        "accuracy": None if report is None else report.accuracy,
        "interval": None if report is None else list(report.interval),
        "large_share": None if report is None else report.large_share,
        "misses": [] if report is None else [_miss(one) for one in report.misses],
        "at": found.at,
        "url": found.wanted.url,
        **{name: getattr(found.wanted, name) for name in ("baseline", "max_tokens", "concurrency", "seed")},
        "requests": len(run.answers),
        "planned": run.planned,
        "stopped": run.stopped,
        "seconds": run.seconds,
        "failures": [{"id": one.id, "arm": one.arm, "why": one.failure} for one in run.failures],
        "groups": {group.name: _group(group) for group in said.groups},
        "uneven_receipts": said.uneven,
        "modes": list(said.modes),
        "ratios": {name: {how: asdict(one) for how, one in measures.items()} for name, measures in said.ratios.items()},
        "cost_by_tokens": asdict(said.dollars),
        "cost_by_fleet": _fleet(found),
        "quality": None if found.quality is None else asdict(found.quality),
        "floors": [{**asdict(one), "holds": one.holds} for one in found.checks],
        "passed": found.passed,
    }


def _miss(one: Miss) -> Json:
    return {"id": one.id, "expected": one.expected, "got": one.got, "score": one.score, "reason": one.reason}


def _group(group: Group) -> Json:
    tokens = {"prompt_tokens": group.usage.prompt_tokens, "completion_tokens": group.usage.completion_tokens}
    return {"latency": asdict(group.latency), "ttft": asdict(group.ttft), **tokens}


def _fleet(found: Found) -> Json:
    fleet, saved = found.figures.fleet, found.figures.fleet_saved
    return {
        "what": FLEET,
        "usd_per_hour": fleet.usd_per_hour,
        "usd": dict(fleet.usd),
        "busy_s": dict(fleet.busy_s),
        "routed": fleet.of(Arm.ROUTED),
        "all_large": fleet.of(Arm.ALL_LARGE),
        "saved": None if saved is None else asdict(saved),
    }


def as_lines(found: Found) -> list[str]:
    said = found.figures
    misses = () if said.routing is None else said.routing.misses
    return [
        *map(miss, misses),
        *(f"{one.id:20} failed ({one.arm.replace('_', ' ')}): {one.failure}" for one in found.run.failures),
        "",
        headline(found),
        *warnings(found),
        *_table(said.groups),
        "",
        *_ratios(found),
        *cost(found),
        quality(found),
        *(f"floor: {one}" for one in found.checks),
        accuracy(found),
    ]


def miss(one: Miss) -> str:
    shown = "-" if one.score is None else f"{one.score:.3f}"
    return f"{one.id:20} expected {one.expected:5} got {one.got:5} score {shown} ({one.reason}) {one.prompt[:MAX_PROMPT]!r}"


def headline(found: Found) -> str:
    run, wanted = found.run, found.wanted
    how = f"{wanted.concurrency} prompts at a time, at most {wanted.max_tokens} tokens each, seed {wanted.seed}"
    return f"{len(run.answers)} of {run.planned} requests in {run.seconds:.1f} s, {len(run.failures)} failed; {how}"


def warnings(found: Found) -> list[str]:
    """What keeps the figures from saying what they seem to say."""
    run, said = found.run, found.figures
    lines = [] if run.stopped is None else [f"not whole: {run.stopped}"]
    lines += [f"{said.uneven} receipts tell other tokens than the answer's usage"] if said.uneven else []
    return lines + [f"the endpoint is in {mode} mode: who answers is not only the router's choice" for mode in said.modes]


def accuracy(found: Found) -> str:
    report = found.figures.routing
    if report is None:
        return "no prompt was answered"
    low, high = report.interval
    interval = f"95 % interval {low:.3f}-{high:.3f}"
    return f"accuracy {report.accuracy:.3f} ({interval}) on {report.total} prompts, {report.large_share:.1%} large"


def _table(groups: Sequence[Group]) -> list[str]:
    titles = ["n", *(f"{what} {which}" for what in ("latency", "TTFT") for which in PERCENTILES), "tokens in", "out"]
    lines = [f"{'seconds':15}" + "".join(f"{title:>13}" for title in titles)]
    return lines + [f"{group.name:15}" + "".join(f"{cell:>13}" for cell in cells(group)) for group in groups]


def cells(group: Group) -> list[str]:
    """Of one line: requests, latency, TTFT, tokens."""
    times = [getattr(spread, which) for spread in (group.latency, group.ttft) for which in PERCENTILES]
    tokens = [group.usage.prompt_tokens, group.usage.completion_tokens]
    return [f"{group.latency.count:,}", *(f"{seconds:.3f}" for seconds in times), *(f"{count:,}" for count in tokens)]


def _ratios(found: Found) -> list[str]:
    if not found.figures.ratios:
        return ["no ratios: no baseline was measured"] if not found.wanted.baseline else ["no ratios: no prompt was answered by both"]
    columns = ratio_columns(found)
    first, *_ = columns.values()
    lines = [f"{'routed / all large':20}" + "".join(f"{title:>26}" for title in columns)]
    return [*lines, *(f"{how:20}" + "".join(f"{column[how]!s:>26}" for column in columns.values()) for how in first), ""]


def ratio_columns(found: Found) -> Mapping[str, Mapping[str, Interval]]:
    """By title."""
    titles = {EVERYTHING: "all prompts", "small": "those sent small"}
    return {titles[name]: measures for name, measures in found.figures.ratios.items()}


def cost(found: Found) -> list[str]:
    """Both views, a line each."""
    return [f"cost by token prices: {by_tokens(found)}", f"cost by instance-hours: {by_fleet(found)}"]


def by_tokens(found: Found) -> str:
    one = found.figures.dollars
    parts = [f"routed ${one.routed:.6f}"]
    parts += [] if one.all_large is None else [f"all large ${one.all_large:.6f} as measured"]
    parts += [] if one.saved is None else [f"saved {percent(one.saved)}"]
    same = "-" if one.saved_same_tokens is None else f"{one.saved_same_tokens:.1%}"
    return f"{', '.join(parts)}; the same tokens all large ${one.same_tokens:.6f}, saved {same} by the receipts"


def by_fleet(found: Found) -> str:
    fleet, saved = found.figures.fleet, found.figures.fleet_saved
    busy = ", ".join(f"{item} busy {seconds:.1f} s" for item, seconds in fleet.busy_s.items())
    if not fleet.usd_per_hour:
        return f"{UNPRICED}; {busy}"
    idle = sum(dollars for item, dollars in fleet.usd.items() if item.endswith(("_idle", "unused", "gateway")))
    parts = f"routed ${fleet.of(Arm.ROUTED):.6f}, all large ${fleet.of(Arm.ALL_LARGE):.6f}, idle ${idle:.6f}"
    compared = "" if saved is None else f"; saved {percent(saved)}"
    return f"{parts} of ${fleet.usd_per_hour:.2f} an hour{compared}; {busy} ({FLEET})"


def percent(one: Interval) -> str:
    return f"{one.value:.1%} [{one.low:.1%}, {one.high:.1%}]"


def quality(found: Found) -> str:
    if found.wanted.judging is None:
        return "quality: no judge was asked (--judge)"
    if found.quality is None:
        return "quality: the judge did not come to an end"
    return f"quality by {found.quality.judge}: {judgement(found.quality)}"


def judgement(one: Quality) -> str:
    counted = f"{one.judged} of {one.pairs} small answers judged, {one.faults} faults, {one.without_reference} without a reference"
    counted += "" if one.problem is None else f"; stopped: {one.problem}"
    if one.drift is None or one.overall is None:
        return counted
    return f"small {one.small:.3f}, large {one.large:.3f}, drift {one.drift}; over all prompts {one.overall}; {counted}"
