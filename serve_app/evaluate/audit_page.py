"""The audit as one HTML file that needs nothing else. Prompts are cut and escaped, or left out."""

import html
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from serve_app.domain import Json, Tier
from serve_app.evaluate.audit import Audit
from serve_app.evaluate.audit_clusters import Cluster
from serve_app.evaluate.audit_totals import BINS, SAMPLED, Example, Totals
from serve_app.evaluate.html_page import document, figures, section, table
from serve_app.evaluate.html_report_plots import INK, LARGE, SMALL, svg

SHOWN_CHARS = 300
ENOUGH = 1000  # prompts: with fewer the split is too uncertain to plan by


def page(audit: Audit, summary: Json, found: Sequence[Cluster]) -> str:
    totals = audit.totals
    parts = [
        f"<h1>What the router would do</h1><p>{html.escape(_intro(audit))}</p>",
        figures(_figures(summary)),
        _few(totals),
        _scores(totals),
        _reasons(totals),
        _cost(audit, summary),
        _band(audit),
        _clusters(audit, found),
        _bad(totals),
    ]
    return document("tierwise audit", parts)


def _intro(audit: Audit) -> str:
    fitted = audit.router.fitted
    totals, made_by = audit.totals, f"the {fitted.kind} calibration {fitted.sha256[:12]}"
    return (
        f"{totals.prompts:,} prompts of {Path(audit.wanted.source).name}, by {made_by} at threshold {totals.threshold:g}. "
        "Nothing was asked of any tier: scores as served, without the router LLM's self-assessment."
    )


def _figures(summary: Json) -> dict[str, str]:
    prompts, saved = summary["prompts"], summary["saved_share"]
    return {
        "prompts": f"{prompts:,}",
        "to the large tier": f"{summary['large_share']:.1%}",
        "all large": f"${summary['all_large_usd']:,.4g}",
        "routed": f"${summary['routed_usd']:,.4g}",
        "saved": "-" if saved is None else f"{saved:.1%}",
        "uncertain": f"{summary['uncertain'] / prompts:.1%}",
        "novel": f"{summary['novel'] / prompts:.1%}",
        "drift": "-" if summary["drift"] is None else f"{summary['drift']:.2f}",
        "not read": f"{summary['unreadable']:,}",
    }


def _few(totals: Totals) -> str:
    low, high = totals.interval()
    note = f"As a sample of your traffic, these prompts say that {low:.1%} to {high:.1%} of it goes to the large tier (95 %)."
    few = f" Fewer than {ENOUGH:,} prompts: take more before you plan by it." if totals.prompts < ENOUGH else ""
    return f"<p>{note}{few}</p>"


def _scores(totals: Totals) -> str:
    index = totals.drift()
    told = "" if index is None else f" Stability index against the calibration rows: {index:.2f}; above 0.25 it is another traffic."
    note = f"How hard the prompts are scored, and where they go. Between the dotted lines the score alone is not sure.{told}"
    return section("Scores", note, svg("scores", f"Scores. {note}", _histogram(totals)))


def _histogram(totals: Totals) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        left, width = np.arange(BINS) / BINS, 1 / BINS
        small, large = totals.bins
        axes.bar(left, small, width, align="edge", color=SMALL, alpha=0.85, label="small")
        axes.bar(left, large, width, align="edge", bottom=small, color=LARGE, alpha=0.85, label="large")
        axes.axvline(totals.threshold, color=INK, lw=1.2, ls="--", label=f"threshold {totals.threshold:g}")
        for edge in (totals.threshold - totals.margin, totals.threshold + totals.margin):
            axes.axvline(edge, color=INK, lw=0.8, ls=":")
        axes.set_xlim(0, 1)
        axes.set_xlabel("score")
        axes.set_ylabel("prompts")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)

    return draw


def _reasons(totals: Totals) -> str:
    rows = [[reason, tier.value, f"{count:,}", f"{count / totals.prompts:.1%}"] for (reason, tier), count in totals.reasons.most_common()]
    return section("Why", "The reason of every decision.", table(["reason", "tier", "prompts", "share"], rows))


def _cost(audit: Audit, summary: Json) -> str:
    totals, each = audit.totals, 1000 / audit.totals.prompts
    assumed = totals.prompts - totals.told_answers
    note = (
        "By token prices, the same answers from either tier. Prompt tokens are the data's own, or a token for four bytes. "
        f"{totals.told_answers:,} answers have the data's own length, {assumed:,} are taken to have {audit.wanted.answer_tokens:,} tokens."
    )
    rows = [
        ["all on the large tier", *_money(summary["all_large_usd"], each)],
        ["routed", *_money(summary["routed_usd"], each)],
        ["saved", *_money(summary["all_large_usd"] - summary["routed_usd"], each)],
    ]
    priced = [
        [f"{tier.value} tier", f"{price.input:g}", f"{price.output:g}", *_tokens(totals, tier)] for tier, price in totals.prices.items()
    ]
    columns = ["", "$ / million in", "$ / million out", "prompt tokens", "answer tokens"]
    return section("Cost", note, table(["", "dollars", "dollars / 1,000 prompts"], rows), table(columns, priced))


def _money(usd: float, each: float) -> tuple[str, str]:
    return f"{usd:,.4f}", f"{usd * each:,.4f}"


def _tokens(totals: Totals, tier: Tier) -> tuple[str, str]:
    usage = totals.usage[tier]
    return f"{usage.prompt_tokens:,}", f"{usage.completion_tokens:,}"


def _band(audit: Audit) -> str:
    totals = audit.totals
    note = (
        f"{totals.banded:,} prompts ({totals.banded / totals.prompts:.1%}) score within {totals.margin:g} of the threshold: a threshold a "
        "little higher or lower sends them the other way. Of these a running endpoint asks the router LLM, where the calibration uses it. "
        "Read these first: where would you have sent them?"
    )
    return section("The uncertain band", note, *_examples(audit, sorted(totals.band.kept, key=lambda one: one.score or 0.0)))


def _clusters(audit: Audit, found: Sequence[Cluster]) -> str:
    offered = audit.totals.hard.offered
    if not found:
        return section("What goes large", "Too few prompts go to the large tier to be grouped.")
    sample = f"a sample of {SAMPLED} of " if offered > SAMPLED else ""
    note = f"Groups by meaning in {sample}the {offered:,} prompts that go to the large tier, with the words that set each apart."
    inside = []
    for one in found:
        title = f"{one.share:.0%}: {', '.join(one.terms) or 'no words in common'}"
        inside.append(f"<article><h3>{html.escape(title)}</h3>{''.join(_examples(audit, one.examples))}</article>")
    return section("What goes large", note, *inside)


def _examples(audit: Audit, examples: Sequence[Example]) -> list[str]:
    if not audit.wanted.examples:
        return []
    return [_example(one) for one in examples]


def _example(one: Example) -> str:
    text = one.text if len(one.text) <= SHOWN_CHARS else f"{one.text[:SHOWN_CHARS]} ..."
    score = "no score" if one.score is None else f"{one.score:.3f}"
    return f"<article><h3>{html.escape(one.id[:80])}: {score}, {one.tier.value}</h3><pre>{html.escape(text)}</pre></article>"


def _bad(totals: Totals) -> str:
    if not totals.bad:
        return section("Not read", "Everything was read.")
    note = f"{totals.bad:,} lines or items; the first of them:"
    return section("Not read", note, table(["line or item", "why"], [[str(one.number), one.why] for one in totals.bad_shown]))
