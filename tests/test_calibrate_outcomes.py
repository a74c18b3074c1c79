"""`tierwise calibrate` on outcome rows: what it writes, what it says, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app import offline
from serve_app.calibrations import named
from serve_app.routing.heads import Heads
from tests.evaluate.made_up import traffic, write
from tests.test_cli import check_mistake, run


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = write(tmp_path / "rows.jsonl")
    extra = {"id": "null", "prompt": "no score", "weak_score": None, "strong_score": 1.0}
    path.write_text(path.read_text() + json.dumps(extra) + "\n")
    return path


def calibrated(rows: Path, *options: str) -> tuple[dict[str, Any], Heads]:
    out = rows.parent / "gain.npz"
    result = run("calibrate", "--data", str(rows), "--out", str(out), "--json", *options)
    assert result.exit_code == 0, result.output
    artefact = named(str(out))
    assert isinstance(artefact, Heads)
    return json.loads(result.stdout), artefact


def test_it_says_what_to_expect_and_writes_an_artefact(rows: Path) -> None:
    said, artefact = calibrated(rows, "--no-embed", "--target-share", "0.3")
    assert (said["kind"], said["rows"], said["dropped"], said["source"]) == ("gain", 240, 1, "rows.jsonl")
    for name in ("apgr", "cpt_50", "cpt_80", "quality_kept"):
        assert said[f"{name}_low"] < said[name] < said[f"{name}_high"], name
    assert 0 <= said["calibration_error_weak"] < 0.2
    assert (artefact.threshold, artefact.large_share, artefact.embedder) == (0.7, 0.3, "")
    assert np.mean([artefact.judge(text).score >= 0.7 for text in traffic(seed=9)[0]]) == pytest.approx(0.3, abs=0.1)


def test_quality_takes_the_least_share_that_keeps_it(rows: Path) -> None:
    said, artefact = calibrated(rows, "--no-embed", "--keep-quality", "0.95")
    assert 0 < artefact.large_share < 0.9
    assert said["quality_kept"] == pytest.approx(0.95, abs=0.01)


def test_a_budget_is_what_a_thousand_requests_are_expected_to_cost(rows: Path) -> None:
    said, _ = calibrated(rows, "--no-embed", "--budget", "0.1", "--answer-tokens", "100")
    assert said["expected_usd_per_1000"] == pytest.approx(0.1, rel=0.01)
    assert said["all_large_usd_per_1000"] > 0.12  # a hundred tokens of answer at 1.2 dollars per million, and the prompt


def test_the_same_rows_and_seed_give_the_same_bytes(rows: Path) -> None:
    first, second = (calibrated(rows, "--no-embed", "--threshold", "0.6", "--seed", "3")[1] for _ in range(2))
    assert (first.threshold, first.sha256) == (0.6, second.sha256)
    assert calibrated(rows, "--no-embed", "--threshold", "0.6", "--seed", "4")[1].sha256 != first.sha256


def test_as_text_it_is_a_few_lines(rows: Path) -> None:
    result = run("calibrate", "--data", str(rows), "--out", str(rows.parent / "c.npz"), "--no-embed")
    assert "rows 240 (1 dropped: a score was null)" in result.stdout
    assert "threshold 0.5: 50.0% to large" in result.stdout


def test_the_embedder_is_asked_unless_that_is_not_wanted(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Embedder:
        def __init__(self, settings: object) -> None:
            pass

        def encode(self, texts: list[str]) -> list[Any]:
            asked.extend(texts)
            return [np.array([0.6, 0.8], dtype=np.float32)] * len(texts)

    monkeypatch.setattr(offline, "SentenceEmbedder", Embedder)
    calibrated(rows, "--no-embed")
    assert asked == []
    _, artefact = calibrated(rows)
    assert len(asked) == 240
    assert (artefact.evidence, artefact.embedder) == (None, "")  # every embedding is the same one: it says nothing


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--target-share", "0.2", "--budget", "1"), "one of share, budget at a time"),
        (("--keep-quality", "1.5"), "quality 1.5 is not between 0 and 1"),
        (("--budget", "-1"), "a budget of -1 USD"),
        (("--budget", "0.001"), "under the"),
        (("--answer-tokens", "0"), "at least one token"),
    ],
)
def test_what_cannot_be_had_is_refused(rows: Path, options: tuple[str, ...], says: str) -> None:
    out = rows.parent / "c.npz"
    check_mistake(run("calibrate", "--data", str(rows), "--out", str(out), *options), says)
    assert not out.exists()


def test_too_few_rows_no_gap_and_no_signal_are_refused(tmp_path: Path) -> None:
    few, flat = write(tmp_path / "few.jsonl", rows=20), write(tmp_path / "flat.jsonl", signal=0.05, rows=400)
    check_mistake(run("calibrate", "--data", str(few), "--out", str(tmp_path / "c.npz"), "--no-embed"), "too few rows: 20")
    check_mistake(run("calibrate", "--data", str(flat), "--out", str(tmp_path / "c.npz"), "--no-embed"), "no signal")


def test_rows_of_two_kinds_are_refused(rows: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"id": 1, "prompt": "x", "expected_tier": "small"}\n')
    out = str(tmp_path / "c.npz")
    check_mistake(run("calibrate", "--data", str(rows), "--data", str(labels), "--out", out), "one kind at a time")
    check_mistake(run("calibrate", "--data", str(labels), "--out", out, "--target-share", "0.2"), "needs rows with weak_score")
