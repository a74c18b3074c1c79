"""A golden run as one HTML file that needs nothing else, no network and no script."""

import html
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from serve_app.evaluate import golden_live_text as text
from serve_app.evaluate import golden_page_plots as plots
from serve_app.evaluate.golden_live import Found
from serve_app.evaluate.golden_live_answers import Arm
from serve_app.evaluate.html_page import document, figures, section, table
from serve_app.evaluate.html_report_plots import svg

LATENCY = "From sending a request to the end of its answer, and to its first token, of the requests that were answered."
RATIOS = (
    "Each prompt was sent to the router and, in an order drawn by the seed, to the large tier; both share the load. Below 1 the router is "
    "faster; the lines are 95 % intervals over prompts."
)
DISTANCE = "Tokens are the engines' own counts; dollars by token prices come from the receipts."


def write(found: Found, out: Path) -> None:
    out.write_text(page(found), encoding="utf-8")


def page(found: Found) -> str:
    """The whole document; prompts and whatever else comes from outside are escaped."""
    when = datetime.fromtimestamp(found.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    notes = "".join(f"<p>{html.escape(line)}</p>" for line in text.warnings(found))
    parts = [
        f"<h1>Golden run</h1><p>{when}, {html.escape(found.wanted.url)}: {html.escape(text.headline(found))}</p>{notes}",
        _figures(found),
        _floors(found),
        *_drawn(found),
        _cost(found),
        _quality(found),
        _categories(found),
        _misses(found),
        _failures(found),
    ]
    return document("tierwise golden", parts)


def _figures(found: Found) -> str:
    said = found.figures
    routed = next((group for group in said.groups if group.name == "routed"), None)
    saved = said.dollars.saved.value if said.dollars.saved is not None else said.dollars.saved_same_tokens
    shown = {
        "accuracy": "-" if said.routing is None else f"{said.routing.accuracy:.3f}",
        "large share": "-" if said.routing is None else f"{said.routing.large_share:.1%}",
        "saved": "-" if saved is None else f"{saved:.1%}",
        "median": "-" if routed is None else f"{routed.latency.p50:.2f} s",
        "p99": "-" if routed is None else f"{routed.latency.p99:.2f} s",
        "p99 TTFT": "-" if routed is None else f"{routed.ttft.p99:.2f} s",
        "failed": f"{len(found.run.failures):,}",
    }
    return figures(shown)


def _floors(found: Found) -> str:
    rows = [
        [one.name, "unknown" if one.value is None else f"{one.value:.4g}", f"{'≥' if one.least else '≤'} {one.bound:g}", _holds(one.holds)]
        for one in found.checks
    ]
    verdict = "This run passes." if found.passed else "This run does not pass."
    note = f"{verdict} The floors stand in <code>args.golden.endpoint</code>."
    return section("Floors", note, table(["figure", "value", "floor", ""], rows))


def _holds(holds: bool) -> str:
    return "holds" if holds else "missed"


def _drawn(found: Found) -> list[str]:
    said = found.figures
    if not said.groups:
        return []
    rows = [[group.name, *text.cells(group)] for group in said.groups]
    titles = ["seconds", "requests", *text.PERCENTILES, *(f"TTFT {which}" for which in text.PERCENTILES), "tokens in", "tokens out"]
    latency = [svg(name, LATENCY, draw) for name, draw in (("latency", plots.latency(found)), ("ttft", plots.first_token(found)))]
    parts = [section("Latency", LATENCY, *latency, table(titles, rows))]
    if said.ratios:
        parts.append(section("Against all large", RATIOS, svg("ratios", RATIOS, plots.ratios(found)), _ratios(found)))
    if said.routing is not None:
        note = "How hard the prompts were scored, by their label. Prompts that a rule decided have no score."
        parts.append(section("Scores", note, svg("scores", note, plots.scores(found))))
    return parts


def _ratios(found: Found) -> str:
    columns = text.ratio_columns(found)
    first, *_ = columns.values()
    return table(["routed / all large", *columns], [[how, *(str(column[how]) for column in columns.values())] for how in first])


def _cost(found: Found) -> str:
    said = found.figures
    drawn = svg("cost", "Dollars of both arms in both views.", plots.cost(found))
    lines = "".join(f"<p>{html.escape(_sentence(line))}.</p>" for line in text.cost(found))
    rows = [[item.replace("_", " "), f"${dollars:.6f}"] for item, dollars in sorted(said.fleet.usd.items()) if dollars]
    fleet = table(["item of the instance-hours", "dollars of this run"], rows) if rows else ""
    return section("Cost", DISTANCE, lines, drawn, fleet)


def _quality(found: Found) -> str:
    line = html.escape(_sentence(text.quality(found).removeprefix("quality").lstrip(": ")))
    return section("Quality", line if found.quality is None else f"{line}. Its scores: {html.escape(found.quality.worth)}.")


def _sentence(line: str) -> str:
    return line[:1].upper() + line[1:]


def _categories(found: Found) -> str:
    if found.figures.routing is None:
        return ""
    answered = found.run.of(Arm.ROUTED)
    category = {row.id: row.category or "-" for row in found.rows if row.id in answered}
    missed = Counter(category[miss.id] for miss in found.figures.routing.misses)
    counts = Counter(category.values())
    ordered = sorted(counts, key=lambda name: (-missed[name] / counts[name], name))
    rows = [[name, f"{counts[name]}", f"{missed[name]}", f"{1 - missed[name] / counts[name]:.3f}"] for name in ordered]
    return section(
        "By category", "Where the router goes another way than the label.", table(["category", "prompts", "misses", "accuracy"], rows)
    )


def _misses(found: Found) -> str:
    report = found.figures.routing
    if report is None or not report.misses:
        return section("Misses", "None.")
    rows = [
        [one.prompt[: text.MAX_PROMPT], one.id, one.expected, "-" if one.score is None else f"{one.score:.3f}", one.reason]
        for one in report.misses
    ]
    return section("Misses", html.escape(text.accuracy(found)) + ".", table(["prompt", "id", "labelled", "score", "reason"], rows))


def _failures(found: Found) -> str:
    rows = [[one.id, one.arm.replace("_", " "), one.failure or "", f"{one.seconds:.2f} s"] for one in found.run.failures]
    note = f"{len(rows)} of {len(found.run.answers)} requests. Nothing was tried twice."
    return section("Failures", note, *([table(["prompt", "arm", "why", "after"], rows)] if rows else []))
