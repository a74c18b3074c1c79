"""`tierwise golden` through a running endpoint: its options, its progress bar, and what it prints."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli_shared import growing_bar, user_errors

Ticking = Callable[[int], Callable[[], None]]
Config = Annotated[Path, typer.Option(help="The application's file: the floors `args.golden.endpoint`, and the machines' prices.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many prompts.")]
Baseline = Annotated[bool, typer.Option("--baseline/--no-baseline", help="Also send every prompt to the large tier, to measure all large.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Concurrency = Annotated[int, typer.Option(min=1, max=256, help="Prompts at a time.")]
Out = Annotated[Path | None, typer.Option(help="Also write the run as one HTML file with plots.")]
Judge = Annotated[str, typer.Option(help="Score small answers against large: none, agreement, exact or similarity (to --reference), llm.")]
Reference = Annotated[Path | None, typer.Option(help='JSON lines {"id" | "prompt", "reference"}: right answers, for the judge.')]
Endpoint = Annotated[str, typer.Option(help="--judge llm: an OpenAI-compatible endpoint, e.g. https://api.openai.com/v1")]
Model = Annotated[str, typer.Option(help="--judge llm: its model.")]
KeyEnv = Annotated[str, typer.Option(help="--judge llm: the environment variable that holds the endpoint's key.")]
BothOrders = Annotated[bool, typer.Option("--both-orders", help="--judge llm: ask in both orders and take the mean.")]


@dataclass(frozen=True, slots=True)
class Run:
    """The options of the run as they were given."""

    url: str
    api_key: str
    config: Path
    limit: int | None
    baseline: bool
    max_tokens: int
    concurrency: int
    seed: int
    out: Path | None
    floor: float | None


@dataclass(frozen=True, slots=True)
class Judging:
    """The options of the judge as they were given."""

    judge: str
    reference: Path | None
    endpoint: str
    model: str
    key_env: str
    both_orders: bool


def run(options: Run, judging: Judging, *, as_json: bool) -> None:
    """Exit code 1 when a floor is missed or the run was not whole."""
    with user_errors(), growing_bar("asking") as ticking:
        said, passed = _said(options, judging, ticking, as_json=as_json)
    typer.echo(said)
    if not passed:
        raise typer.Exit(1)


def _said(options: Run, judging: Judging, ticking: Ticking, *, as_json: bool) -> tuple[str, bool]:
    """What is printed, and whether the run passes; a command imports what it needs."""
    from serve_app.evaluate import golden_live, golden_live_judge, golden_live_text, judge_run  # noqa: PLC0415

    by = None
    if judging.judge != "none":
        endpoint = judge_run.Endpoint(judging.endpoint, judging.model, judging.key_env)
        by = golden_live_judge.Judging(judging.judge, judging.reference, endpoint, judging.both_orders)
    found = golden_live.run(golden_live.Wanted(**asdict(options), judging=by), os.environ, ticking)
    if options.out is not None:
        from serve_app.evaluate import golden_page  # noqa: PLC0415 - matplotlib, only for who wants the page

        golden_page.write(found, options.out)
    said = json.dumps(golden_live_text.as_json(found)) if as_json else "\n".join(golden_live_text.as_lines(found))
    return said, found.passed
