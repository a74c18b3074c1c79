"""From mirrored answers to a calibration: judged, fitted, replayed and reported by the commands alone."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from serve_app.calibrations import named
from serve_app.cli import app
from serve_app.observe.receipt import row
from serve_app.observe.store import Store
from serve_app.routing.heads import Heads
from tests.evaluate.made_up import traffic
from tests.observe.common import pair, record
from tests.test_cli import check_mistake

DEPLOYMENTS = str(Path(__file__).parents[2] / "deployments.yaml")


def run(*options: str) -> Any:
    done = CliRunner().invoke(app, [*options, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def mirrored(url: str, tmp_path: Path) -> Path:
    """Made-up traffic, of which every request was answered by both models, and what would have been right."""
    texts, outcomes = traffic()
    store, references = Store(url), []
    for number, text in enumerate(texts):
        prompt = {"messages": [{"role": "user", "content": text}]}
        answers = ["Right." if score else "Wrong." for score in (outcomes.weak[number], outcomes.strong[number])]
        made = pair(f"tw-{number}", created=1000.0 + number, prompt=prompt, answer=answers[0], mirror_answer=answers[1])
        store.write([row(record(f"tw-{number}", created=1000.0 + number, prompt=prompt)), made])
        references.append(json.dumps({"prompt": text, "reference": "right"}) + "\n")
    store.close()
    file = tmp_path / "references.jsonl"
    file.write_text("".join(references))
    return file


def test_mirrored_answers_become_a_calibration(tmp_path: Path) -> None:
    url, out = f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "mine.npz"
    references = mirrored(url, tmp_path)
    check_mistake(CliRunner().invoke(app, ["calibrate", "--ledger", url, "--out", str(out)]), "0 prompts with scores of both models")
    told = run("judge", "--by", "exact", "--reference", str(references), "--ledger", url, "--write", "--config", DEPLOYMENTS)
    assert (told["judged"], told["faults"]) == (240, 0)
    said = run("calibrate", "--ledger", url, "--out", str(out), "--no-embed", "--target-share", "0.3")
    assert (said["kind"], said["rows"], said["dropped"], said["source"]) == ("gain", 240, 0, "ledger.jsonl")
    assert said["apgr_low"] > 0.5, "the made-up signal is found again"
    assert isinstance(named(str(out)), Heads)
    replayed = run("replay", "--ledger", url, "--config", DEPLOYMENTS, "--threshold", "0.5")
    assert replayed["judged"] == 240
    assert replayed["points"][0]["quality"]["value"] == told["weak_score"], "the router had chosen the small model for all"
    report = tmp_path / "report.html"
    run("report", "--ledger", url, "--config", DEPLOYMENTS, "--out", str(report))
    text = report.read_text(encoding="utf-8")
    assert "240 are judged; these furthest apart:" in text
    assert "judged: small 0.00, large 1.00" in text
