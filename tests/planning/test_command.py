"""`tierwise plan`: what it prints, and its one-line errors."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from serve_app.cli import app
from serve_app.planning import command
from serve_app.planning.__main__ import main as fit_main
from serve_app.planning.plan import Budget
from tests.planning.common import speeds

SHORT = Budget(whole_day=0, windowed=300, windows=1, warm_s=60.0)


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BUDGET", SHORT)


def test_a_plan_is_a_table_with_every_way_and_says_what_was_not_measured() -> None:
    result = plan("--requests-per-month", "2000000")
    assert result.exit_code == 0, result.output
    for way in ("all large", "threshold", "threshold + early exit", "capacity-aware", "capacity-aware + early exit"):
        assert any(line.startswith(f"{way} ") for line in result.output.splitlines())
    assert "2,000,000 requests a month" in result.output
    assert "prices of 2026-02" in result.output
    assert "were not measured" in result.output
    assert "idle" in result.output


def test_json_has_the_same_and_a_plot_is_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.svg"
    result = plan("--requests-per-month", "2000000", "--json", "--plot", str(path))
    found = json.loads(result.stdout)
    assert [way["way"] for way in found["ways"]][:2] == ["all large", "threshold"]
    for way in found["ways"]:
        assert way["usd_per_month"] == pytest.approx(sum(item["usd"] for item in way["items"]))
        assert way["answered"] + way["refused"] + way["unfinished"] == found["simulated"]["requests"]
    assert found["ways"][0]["large_share"] == 1.0
    assert "<svg" in path.read_text()


def test_measured_speeds_take_the_place_of_derived_ones(tmp_path: Path) -> None:
    path = tmp_path / "engines.yaml"
    mine = speeds(instance="g6e.4xlarge", measured=True).model_dump()
    path.write_text(yaml.safe_dump({"small": mine, "service": {"route_s": 0.25}}))
    engines = command.engines_of(path, 0.7)
    assert engines.small.instance == "g6e.4xlarge"
    assert engines.large == command.engines_of(None, 0.7).large
    assert engines.service == command.engines_of(None, 0.7).service.model_copy(update={"route_s": 0.25})
    assert engines.service.cpus_used


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        ("requests_per_mont: 5", ["--traffic", "FILE.yaml"], "requests_per_mont"),
        ("large_share: 2", ["--traffic", "FILE.yaml"], "large_share"),
        ("- 1", ["--traffic", "FILE.yaml"], "must be a mapping"),
        ("{", ["--traffic", "FILE.yaml"], "not readable as YAML"),
        ("output_tokens: 2000.0", ["--traffic", "FILE.yaml"], "must be below longest_output"),
        ("small: {base_s: 1}", ["--engines", "FILE.yaml"], "small"),
        ("service: {router: g7.huge}", ["--engines", "FILE.yaml"], "g7.huge: no price"),
        ("- 1", ["--engines", "FILE.yaml"], "must be a mapping"),
        ("date: x", ["--prices", "FILE.yaml"], "instances"),
        ("", ["--traffic", "missing.db"], "missing.db: no such file"),
        ("", ["--traffic", "."], ".: a folder; needed is a ledger"),
        ("", ["--engines", "missing.yaml"], "missing.yaml: No such file"),
        ("", ["--plot", "plan.gif"], "must end in"),
        ("", ["--plot", "no/such/folder/plan.svg"], "no/such/folder: no such folder"),
        ("", ["--requests-per-month", "-5"], "requests_per_month"),
        ("", ["--requests-per-month", "inf"], "requests_per_month"),
        ("prompt_tokens: .inf", ["--traffic", "FILE.yaml"], "prompt_tokens"),
        ("", ["--seed", "-1"], "--seed"),
        ("", ["--large-share", "1.5"], "large_share"),
        ("", ["--efficiency", "7"], "--efficiency"),
    ],
)
def test_a_mistake_is_said_and_named_and_never_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, options: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE.yaml").write_text(text)
    result = plan(*options)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_fitting_needs_an_endpoint_or_kept_answers(tmp_path: Path) -> None:
    import typer

    fitting = typer.Typer()
    fitting.command()(fit_main)
    for options, says in ((["--tier", "medium"], "--tier"), (["--block-s", "1"], "--block-s")):
        result = CliRunner().invoke(fitting, ["--out", str(tmp_path / "e.yaml"), *options])
        assert result.exit_code == 2
        assert says in result.stderr
