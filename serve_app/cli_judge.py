"""`tierwise judge`, thin: mirrored pairs of answers to scores of both models."""

import json
import os
from pathlib import Path
from typing import Annotated, get_args

import typer

from serve_app.cli_recorded import Config, Ledger, Since, Until
from serve_app.cli_shared import AsJson, growing_bar, user_errors

Both = Annotated[
    bool, typer.Option("--both-orders", help="llm: ask in both orders and take the mean: twice the price, no favour to a place.")
]
KeyEnv = Annotated[str, typer.Option(help="llm: the environment variable that holds the endpoint's key.")]
Body = Annotated[str, typer.Option(help='llm: JSON that is merged into the request, e.g. {"max_tokens": null}.')]


def judge(
    by: Annotated[str, typer.Option(help="exact or similarity (to --reference), agreement (to the large model), or llm.")],
    out: Annotated[Path | None, typer.Option(help="JSON lines to append verdicts to; what is in it is not judged again.")] = None,
    write: Annotated[bool, typer.Option("--write", help="Keep the verdicts in the ledger, for replay, report and calibrate.")] = False,
    reference: Annotated[Path | None, typer.Option(help='JSON lines {"decision_id" | "prompt", "reference"}: right answers.')] = None,
    endpoint: Annotated[str, typer.Option(help="llm: an OpenAI-compatible endpoint, e.g. https://api.openai.com/v1")] = "",
    model: Annotated[str, typer.Option(help="llm: its model.")] = "",
    key_env: KeyEnv = "",
    both_orders: Both = False,
    seed: Annotated[int, typer.Option(min=0, help="llm: draws which answer comes first.")] = 0,
    retries: Annotated[int, typer.Option(min=0, max=10, help="llm: tries of one question beyond its first.")] = 3,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="llm: questions at a time.")] = 4,
    body: Body = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Judge so many new pairs, then stop; the next run goes on.")] = None,
    ledger: Ledger = "",
    since: Since = "",
    until: Until = "",
    config: Config = Path("deployments.yaml"),
    as_json: AsJson = False,
) -> None:
    """Judge mirrored pairs of answers: rows with weak_score and strong_score, which calibrate, replay and report read."""
    from serve_app.errors import RequestError  # noqa: PLC0415
    from serve_app.evaluate import judge as judging  # noqa: PLC0415
    from serve_app.evaluate import judge_run, recorded  # noqa: PLC0415

    with user_errors(), growing_bar("judging") as ticking:
        if by not in get_args(judge_run.By):
            raise RequestError(f"--by {by}: one of {', '.join(get_args(judge_run.By))}")
        source = recorded.Source(config, ledger, None, since, until)
        asked = judge_run.Endpoint(endpoint, model, key_env, body)
        wanted = judge_run.Wanted(by, source, out, write, reference, asked, seed, both_orders, retries, concurrency, limit)  # type: ignore[arg-type]  # checked
        found = judge_run.run(wanted, os.environ, ticking)
    typer.echo(json.dumps(found) if as_json else "\n".join(judging.as_lines(found)))
    if found["faults"] and not found["judged"]:
        raise typer.Exit(1)
