"""The tables of docs/routing-quality.md. Pure: figures in, Markdown out; the prose beside them is a file of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from serve_app.domain import Json
from serve_app.evaluate.comparison import MEANINGFUL, OURS
from serve_app.evaluate.quality_costs import Costs
from serve_app.evaluate.report import COLUMNS, TITLES, cell
from serve_app.evaluate.studies import Study

HEAD = """# Routing quality

Written by `make quality`; edit `docs/routing-quality-ways.md` for the prose and the studies for the tables. The development data is no
part of the project (`DATA` is `TIERWISE_ROUTING_DATA` or `../shared/data/routing`). APGR and CPT as RouteLLM (arXiv 2406.18665v4) defines
them, over every share; random is 0.5, .5, .8. Brackets are 95 % bootstrap intervals over rows, differences are paired. **Ours is fitted,
with all that it chooses, inside each outer fold**, and rows of one question stay in one fold: this is what a user gets.
"""
REPRODUCED = "Means of 200 random orders of these rows, by `routing_metrics`, beside tables 2 and 3 of the paper."
SAME = ("rows", "APGR ours / paper", "CPT50 ours / paper", "CPT80 ours / paper", "oracle APGR")


@dataclass(frozen=True)
class Page:
    """`results`: reports by the study's name, one per seed. `skipped`: a line for each study that was not run."""

    results: Mapping[str, Sequence[Json]]
    skipped: Sequence[str]
    costs: Costs
    how: str
    quick: bool
    ways: str
    pictures: Mapping[str, str] = field(default_factory=dict)
    reproduced: Sequence[Sequence[str]] = ()


def render(page: Page, studies: Sequence[Study]) -> str:
    done = [study for study in studies if study.name in page.results]
    parts = [HEAD, page.how, *(f"- not run: {line}" for line in page.skipped), "", "## Goals, and what was reached", *_goals(page, done)]
    parts += ["", "## Requested share to large, and the share of unseen rows that got it", *_shares(page, done)]
    for study in done:
        parts += ["", f"## {study.title[0].upper()}{study.title[1:]}", f"`{study.command(centroids=not page.quick)}`", ""]
        parts += _seen(page.results[study.name][0]) if not study.train_elsewhere else _never_seen(page.results[study.name][0])
        parts += ["", f"![cost and quality, reliability, scores]({page.pictures[study.name]})"] if study.name in page.pictures else []
    parts += ["", "## RouteLLM's random rows, reproduced", REPRODUCED, "", *_markdown(SAME, page.reproduced)] if page.reproduced else []
    parts += ["", "## What a decision costs", *_costs(page.costs), "", page.ways.strip(), ""]
    return "\n".join(parts)


def reached(study: Study, reports: Sequence[Json]) -> tuple[float, float, str]:
    """(APGR, CPT80, what became of the goal), means over the seeds; over benchmarks where each was left out."""
    parts = [report["macro" if study.train_elsewhere else "pooled"]["methods"][OURS] for report in reports]
    area = float(np.mean([part["apgr"]["value"] for part in parts]))
    cpt = float(np.mean([part["cpt_80"] for part in parts]))
    misses = [f"APGR is {study.goal.apgr - area:.3f} short"] if area < study.goal.apgr else []
    if study.goal.cpt_80 is not None and cpt > study.goal.cpt_80:
        misses.append(f"CPT80 is {cpt - study.goal.cpt_80:.3f} over")
    if study.train_elsewhere and (under := _wholly_under(reports[0])):
        misses.append(f"{len(under)} benchmarks have an interval wholly under .5")
    return area, cpt, f"**missed**: {', '.join(misses)}" if misses else "met"


def _goals(page: Page, done: Sequence[Study]) -> list[str]:
    rows = []
    for study in done:
        reports = page.results[study.name]
        part = reports[0]["macro" if study.train_elsewhere else "pooled"]["methods"]
        area, cpt, verdict = reached(study, reports)
        aim = f"{study.goal.apgr:.2f}" + (f", CPT80 {study.goal.cpt_80:.2f}" if study.goal.cpt_80 is not None else "")
        rows.append(
            [
                study.title,
                cell(part[OURS]["apgr"]),
                f"{area:.3f} ({len(reports)})",
                f"{cell(part[OURS]['cpt_50'])} / {cpt:.3f}",
                cell(part["length"]["ours_minus"]),
                study.goal.published,
                aim,
                verdict,
            ]
        )
    return _markdown(("rows", "APGR", "mean (splits)", "CPT50 / CPT80", "minus length", "published", "goal", "verdict"), rows)


def _shares(page: Page, done: Sequence[Study]) -> list[str]:
    reports = [(study, page.results[study.name][0]["pooled"]["realised_shares"]) for study in done]
    shares = list(reports[0][1]) if reports else []
    rows = [[study.title, *(f"{found[share]:.3f}" for share in shares), _within(found)] for study, found in reports]
    return _markdown(("rows", *shares, "within .03"), rows)


def _within(found: Mapping[str, float]) -> str:
    worst = max(abs(float(share) - realised) for share, realised in found.items())
    return "yes" if worst <= 0.03 else f"**no**, {worst:.3f}"


def _seen(report: Json) -> list[str]:
    means = f"{report['pooled']['rows']} rows; small model {report['pooled']['weak']:.3f}, large model {report['pooled']['strong']:.3f}"
    said = [f"{means}; {report.get('unfamiliar', 0):.1%} of unseen rows counted as unlike the fitted ones."]
    if report.get("embedded"):
        said.append(
            f"The embedding is asked for on {report['embedded']:.1%} of them where half goes large; asking for all of them would change"
            f" {report['otherwise']:.1%} of the decisions. `text alone` is the score when the embedder is late or gone."
        )
    if report["without_signal"]:
        said.append(f"Without signal, so a tie: fold {', '.join(report['without_signal'])}.")
    table = [[name, *(cell(part.get(key)) for key in COLUMNS)] for name, part in report["pooled"]["methods"].items()]
    return [*said, "", *_markdown(("", *TITLES), table)]


def _never_seen(report: Json) -> list[str]:
    rows = [
        [name, str(part["rows"]), *(cell(part["methods"][method]["apgr"]) for method in (OURS, "length", "keywords", "oracle"))]
        for name, part in report["benchmarks"].items()
    ]
    mean = [cell(report["macro"]["methods"][method]["apgr"]) for method in (OURS, "length", "keywords", "oracle")]
    rows.append([f"**mean of {report['macro']['benchmarks']}**", "", *mean])
    if large := report.get("macro_meaningful"):
        some = [cell(large["methods"][method]["apgr"]) for method in (OURS, "length", "keywords", "oracle")]
        rows.append([f"**{MEANINGFUL} ({large['benchmarks']})**", "", *some])
    under = ", ".join(_wholly_under(report)) or "none"
    silent = ", ".join(report["without_signal"]) or "none"
    table = _markdown(("left out", "rows", "ours", "length", "keywords", "oracle"), rows)
    caught = f"{report.get('unfamiliar', 0):.1%} of these rows counted as unlike the fitted ones and got their base rate."
    return [*table, "", f"Interval of ours wholly under .5: {under}. Nothing learned elsewhere, so a tie: {silent}. {caught}"]


def _wholly_under(report: Json) -> list[str]:
    found = {name: part["methods"][OURS]["apgr"]["high"] for name, part in report["benchmarks"].items()}
    return [name for name, high in found.items() if high is not None and high < 0.5]


def _costs(costs: Costs) -> list[str]:
    rows = [[one.path, f"{one.chars:,}", f"{one.median:.2f}", f"{one.p99:.2f}"] for one in costs.timings]
    rate = f"`tierwise score` on {costs.scored:,} prompts, text alone, one process: {costs.per_second:.0f} prompts a second."
    said = "Thread time of one decision. The embedder's is added only to requests that the text alone does not decide."
    return [said, "", *_markdown(("path", "characters", "median ms", "p99 ms"), rows), "", rate]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
