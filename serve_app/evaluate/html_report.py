"""`tierwise report`: one HTML file about recorded traffic that needs nothing else, no network and no script."""

import html
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from serve_app.domain import Json
from serve_app.errors import RequestError
from serve_app.evaluate import html_report_plots as plots
from serve_app.evaluate import recorded, sources
from serve_app.evaluate.disagreements import Disagreement, Disagreements, find
from serve_app.evaluate.history import History
from serve_app.evaluate.html_page import document, figures, section, table
from serve_app.evaluate.replay import GRID, Replay, replay

RESAMPLES = 200


def write(source: recorded.Source, out: Path) -> Json:
    """Write the file and tell its headline figures. Raises `TierwiseError` when there is nothing to report, or it cannot be read."""
    history = recorded.load(source)
    if np.isnan(history.numbers["created"]).any():
        raise RequestError("the rows do not tell when they were made (`created`)")
    found = replay(history, GRID, sources.settings_of(source.config).small.price, resamples=RESAMPLES)
    pairs = None
    if source.data is None:
        pairs = find(recorded.url(source), recorded.moment(source.since), recorded.moment(source.until))
    summary = headline(history)
    out.write_text(page(history, found, pairs, summary), encoding="utf-8")
    return {**summary, "out": str(out)}


def headline(history: History) -> Json:
    numbers = history.numbers
    paid, all_large = float(numbers["cost_usd"].sum()), float(numbers["all_large_usd"].sum())
    took = numbers["total_seconds"][(history.words["outcome"] == "ok") & ~np.isnan(numbers["total_seconds"])]
    p50, p99 = np.quantile(took, [0.5, 0.99]).tolist() if len(took) else (None, None)
    return {
        "decisions": len(history),
        "first": float(numbers["created"].min()),
        "last": float(numbers["created"].max()),
        "large_share": float(history.large.mean()),
        "cost_usd": paid,
        "all_large_usd": all_large,
        "saved_share": 1.0 - paid / all_large if all_large > 0 else None,
        "p50_seconds": p50,
        "p99_seconds": p99,
        "not_ok": int((history.words["outcome"] != "ok").sum()),
    }


def page(history: History, found: Replay, pairs: Disagreements | None, summary: Json) -> str:
    """The whole document; every text of a record is escaped."""
    period = f"{_time(summary['first'])} to {_time(summary['last'])}"
    parts = [
        f"<h1>What the router did</h1><p>{period}, {summary['decisions']:,} requests.</p>",
        _figures(summary),
        *_sections(history, found),
        *_feedback(found),
        _reasons(history),
        _thresholds(found),
        _disagreements(pairs),
    ]
    return document("tierwise report", parts)


def _sections(history: History, found: Replay) -> list[str]:
    drawn = [
        ("traffic", "Traffic", "Requests by the tier that answered, UTC.", plots.traffic(history)),
        ("split", "Split over time", "The large tier's share of the requests.", plots.split(history)),
        ("scores", "Scores", "How hard requests were scored, and who answered.", plots.scores(history, found.in_force)),
        ("savings", "Savings", "Dollars by token prices beside the same answers at the large tier's price.", plots.savings(history)),
        ("cost", "Cost curve", _curve_note(found), plots.cost_curve(found)),
        ("latency", "Latency by tier", "Requests that were answered.", plots.latency(history)),
    ]
    if found.judged or found.labelled:
        note = f"{found.judged:,} decisions are judged, {found.labelled:,} labelled; 95 % intervals."
        drawn.insert(5, ("quality", "Quality by threshold", note, plots.quality_curve(found)))
    return [section(title, note, plots.svg(name, f"{title}. {note}", draw)) for name, title, note, draw in drawn]


def _curve_note(found: Replay) -> str:
    return (
        "What the same requests would have cost under other thresholds, with 95 % intervals. "
        f"{found.movable:,} of {found.rows:,} decisions were made by the threshold and move; "
        "one that moves keeps its tokens and takes the other tier's price."
    )


def _figures(summary: Json) -> str:
    saved, p50, p99 = summary["saved_share"], summary["p50_seconds"], summary["p99_seconds"]
    shown = {
        "large share": f"{summary['large_share']:.1%}",
        "paid": f"${summary['cost_usd']:,.4g}",
        "all large": f"${summary['all_large_usd']:,.4g}",
        "saved": "-" if saved is None else f"{saved:.1%}",
        "median": "-" if p50 is None else f"{p50:.3g} s",
        "p99": "-" if p99 is None else f"{p99:.3g} s",
        "not answered": f"{summary['not_ok']:,}",
    }
    return figures(shown)


def _reasons(history: History) -> str:
    counts = Counter(zip(history.words["reason"].tolist(), history.words["tier"].tolist(), strict=True))
    rows = [[reason, tier, f"{count:,}", f"{count / len(history):.1%}"] for (reason, tier), count in counts.most_common()]
    return section("Why", "The reason of every decision.", table(["reason", "tier", "requests", "share"], rows))


def _feedback(found: Replay) -> list[str]:
    if not found.feedback:
        return []
    rows = [[tier, f"{one['decisions']:,}", f"{one['mean']:.3f}"] for tier, one in found.feedback.items()]
    note = "What people said of the answers they got, from 0 (useless) to 1 (perfect)."
    return [section("Feedback", note, table(["tier", "answers", "mean"], rows))]


def _thresholds(found: Replay) -> str:
    known = [name for name, count in (("quality", found.judged), ("agreement", found.labelled)) if count]
    rows = [
        [f"{one.threshold:g}", f"{one.large_share.value:.1%}", f"{one.usd.value:.6f}", f"{one.saved.value:.1%}"]
        + [str(getattr(one, name)) for name in known]
        for one in found.points
    ]
    now = next((number for number, one in enumerate(found.points) if one.threshold == found.in_force), None)
    shown = table(["threshold", "large share", "dollars / 1,000", "saved", *known], rows, now)
    return section("Thresholds", "The cost curve in figures; in bold the one in force.", shown)


def _disagreements(pairs: Disagreements | None) -> str:
    if pairs is None or not pairs.pairs:
        note = "None: answers of both models are kept where args.ledger.store_prompts and user_config.mirror_share are set."
        return section("Worst disagreements", note)
    note = f"{pairs.pairs:,} requests were answered by both models; on average their answers share {pairs.alike or 0:.0%} of their words. "
    if pairs.judged:
        note += f"{pairs.judged:,} are judged; these furthest apart:"
    else:
        note += "The ones with the least in common, which says that they differ, not which is right:"
    return section("Worst disagreements", note, *map(_article, pairs.worst))


def _article(one: Disagreement) -> str:
    def text(label: str, value: str) -> str:
        return f"<div><small>{label}</small><pre>{html.escape(value)}</pre></div>"

    answers = f'<div class="pair">{text("small", one.small)}{text("large", one.large)}</div>'
    title = f"{html.escape(one.decision_id)}: {one.alike:.0%} of the words in common"
    if one.apart is not None:
        title += f"; judged: small {one.weak:.2f}, large {one.strong:.2f}"
    return f"<article><h3>{title}</h3>{text('prompt', one.prompt)}{answers}</article>"


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
