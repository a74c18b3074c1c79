"""`make quality`: the page that it writes, on made-up rows; the real ones take it half an hour."""

import json
from pathlib import Path

import numpy as np
import pytest

from serve_app.evaluate import quality, quality_costs, quality_plots, studies
from serve_app.evaluate.comparison import OURS, Ranking
from serve_app.evaluate.quality_costs import Costs, Timing
from serve_app.evaluate.quality_page import Page, reached, render
from serve_app.evaluate.routing_metrics import Outcomes
from serve_app.evaluate.studies import Goal, Study
from tests.evaluate.made_up import write


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(studies.FOLDER_ENV, str(tmp_path))
    monkeypatch.setattr(quality_costs, "SCORED", 50)
    monkeypatch.setattr(quality_costs, "REPEATS", 8)
    monkeypatch.setattr(quality_costs.neighbours, "MAX_ROWS", 1000)
    return tmp_path


def options(folder: Path) -> list[str]:
    (folder / "ways.md").write_text("## What each way gave\nNothing yet.\n")
    return ["--out", str(folder / "page.md"), "--ways", str(folder / "ways.md"), "--workers", "1", "--quick"]


def test_the_page_has_tables_commands_goals_and_the_prose(data: Path) -> None:
    write(data / f"{studies.GSM8K}.jsonl", benchmark="gsm")
    quality.main([*options(data), "--results", str(data / "kept")])
    page = (data / "page.md").read_text()
    assert f"`tierwise evaluate --data $DATA/{studies.GSM8K}.jsonl`" in page
    assert "The **reduced** form" in page
    assert "- not run: MMLU, Mixtral / GPT-4 (its rows are absent)" in page
    assert "- not run: a benchmark never seen (left out of this form)" in page
    assert "| text alone | 20,000 |" in page
    assert "| GSM8K | 0.5" in page
    assert "/ 0.801 |" in page
    assert "![cost and quality, reliability, scores](images/quality-gsm8k.svg)" in page
    assert (data / "images" / "quality-gsm8k.svg").read_text().lstrip().startswith("<?xml")
    assert page.rstrip().endswith("Nothing yet.")
    assert len(json.loads((data / "kept" / "gsm8k.json").read_text())) == 1


def test_kept_figures_are_taken_and_not_measured_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study("one", "one", ("a",), Goal(0.6))
    (data / "one.json").write_text('[{"rows": 3}]')
    monkeypatch.setattr(studies, "run", lambda *_: 1 / 0)
    assert quality.measure([study], data, quick=True, workers=1, keep=data) == {"one": [{"rows": 3}]}


def test_without_the_data_one_line_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quality.main(options(data))
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert not (data / "page.md").exists()


def report(area: float, cpt_80: float, high: float = 0.9) -> dict[str, object]:
    interval = {"value": area, "low": 0.1, "high": high}
    ours = {"apgr": interval, "cpt_50": 0.4, "cpt_80": cpt_80, "ours_minus": None}
    part = {"rows": 9, "weak": 0.5, "strong": 0.8, "methods": dict.fromkeys(("ours", "length", "keywords", "oracle"), ours)}
    pooled = {**part, "realised_shares": {"0.1": 0.14, "0.5": 0.5}}
    return {"pooled": pooled, "macro": {**part, "benchmarks": 1}, "benchmarks": {"b": part}, "without_signal": []}


@pytest.mark.parametrize(
    ("figures", "elsewhere", "verdict"),
    [
        ((0.65, 0.5), False, "met"),
        ((0.55, 0.5), False, "**missed**: APGR is 0.050 short"),
        ((0.65, 0.7), False, "**missed**: CPT80 is 0.100 over"),
        ((0.65, 0.5, 0.49), True, "**missed**: 1 benchmarks have an interval wholly under .5"),
    ],
)
def test_a_missed_goal_is_said_plainly(figures: tuple[float, ...], elsewhere: bool, verdict: str) -> None:
    study = Study("s", "rows", ("a",), Goal(0.6, 0.6), train_elsewhere=elsewhere)
    assert reached(study, [report(*figures)])[2] == verdict
    page = render(Page({"s": [report(*figures)]}, [], Costs([Timing("text alone", 512, 0.5, 1.0)], 150.0), "", False, "prose"), [study])
    assert verdict in page
    assert "**no**, 0.040" in page


def test_a_goal_is_judged_by_the_mean_over_splits() -> None:
    study = Study("s", "rows", ("a",), Goal(0.6))
    assert reached(study, [report(0.55, 0.5), report(0.66, 0.5)])[::2] == (pytest.approx(0.605), "met")


def test_a_picture_of_the_same_figures_is_the_same_text() -> None:
    outcomes = Outcomes(np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4))
    rankings = {OURS: Ranking(np.array([0.9, 0.1, 0.8, 0.3]), weak=np.array([0.1, 0.9, 0.2, 0.8])), "random": Ranking(np.zeros(4))}
    found = quality_plots.series(rankings, outcomes)
    assert found["quality"][OURS][20] == 1.0  # the right half is sent
    assert found["quality"]["random"][20] == 0.75
    assert sum(found["histogram"]) == 4
    assert list(found["reliability"]) == ["weak"]
    assert quality_plots.draw(found, "made up") == quality_plots.draw(found, "made up")
