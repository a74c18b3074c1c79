"""What is shown of a golden run: lines, JSON, one HTML file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from serve_app.domain import Tier
from serve_app.evaluate import golden_live_text, golden_page
from serve_app.evaluate.golden_live import Found, Wanted
from serve_app.evaluate.golden_live_answers import Arm, Run
from serve_app.evaluate.golden_live_cost import charge
from serve_app.evaluate.golden_live_figures import figures
from serve_app.evaluate.golden_live_floors import checks
from serve_app.settings.golden import EndpointFloors
from tests.evaluate.golden_runs import ROWS, a_run, answer, failed, figures_of, golden, make_world, pairs
from tests.evaluate.test_html_report import Outline
from tests.fakes import World


@pytest.fixture
def world() -> World:
    return make_world()


def test_the_page_is_whole_needs_nothing_else_and_takes_no_text_for_markup(world: World, tmp_path: Path) -> None:
    out = tmp_path / "run.html"
    found = golden(world, judging=None)
    evil = "</td><script>alert(1)</script>"
    told = found.figures.routing
    assert told is not None
    row = replace(found.rows[0], prompt=evil, expected_tier=found.rows[0].expected_tier.other)
    hostile = figures([row, *found.rows[1:]], found.run, charge(found.run, {"small": 1.0, "large": 8.0}), seed=0)
    golden_page.write(replace(found, figures=hostile), out)
    page = out.read_text(encoding="utf-8")
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert [tag for tag, _ in outline.tags].count("svg") == 5
    assert not [tag for tag, _ in outline.tags if tag in ("script", "link", "img")]
    assert "&lt;script&gt;alert(1)" in page
    for title in ("Floors", "Latency", "Against all large", "Scores", "Cost", "Quality", "By category", "Misses", "Failures"):
        assert f"<h2>{title}</h2>" in page
    assert "No judge was asked" in page


FREE = a_run(answer("p0", Arm.ROUTED, Tier.SMALL, cost=0.0), answer("p0", Arm.ALL_LARGE, Tier.LARGE, cost=0.0))
HALF_FREE = a_run(
    answer("p0", Arm.ROUTED, Tier.SMALL), FREE.answers[1], answer("p1", Arm.ROUTED, Tier.SMALL), answer("p1", Arm.ALL_LARGE, Tier.LARGE)
)
ODD = {"nothing": a_run(), "a failure": a_run(failed("p0")), "nothing paid": FREE, "some of it paid": HALF_FREE}


@pytest.mark.parametrize("run", ODD.values(), ids=ODD)
def test_a_run_with_nothing_to_show_is_shown(run: Run, tmp_path: Path) -> None:
    found = Found(Wanted("http://localhost"), ROWS, 0.0, run, figures_of(run), ())
    assert golden_live_text.as_lines(found)
    json.dumps(golden_live_text.as_json(found), allow_nan=False)
    golden_page.write(found, tmp_path / "run.html")
    outline = Outline()
    outline.feed((tmp_path / "run.html").read_text(encoding="utf-8"))
    assert outline.open == []


def test_the_lines_name_every_miss_both_costs_and_the_floors() -> None:
    run = a_run(*pairs(cost=2.0).answers[:-2], answer("p7", Arm.ROUTED, Tier.SMALL))
    said = figures_of(run, rates={"small": 1.0, "large": 10.0})
    found = Found(Wanted("http://localhost"), ROWS, 0.0, run, said, checks(EndpointFloors(accuracy=0.9), run, said))
    lines = golden_live_text.as_lines(found)
    assert lines[0].startswith("p7 ")
    assert "expected large got small score 0.400" in lines[0]
    text = "\n".join(lines)
    assert "all large $56.000000 as measured, saved 75.0% [75.0%, 75.0%]" in text
    assert "cost by instance-hours: routed $" in text
    assert "floor: accuracy 0.875, at least 0.9: missed" in text
    assert lines[-1].startswith("accuracy 0.875 (95 % interval")
