"""`python -m serve_app.planning`: fit the engine model to a running endpoint, and print the simulator's error on a load held out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli import user_errors
from serve_app.planning import command


def main(  # noqa: PLR0917 - a command's options are its function's parameters
    out: Annotated[Path, typer.Option(help="Where to write the speeds, for `tierwise plan --engines`.")],
    url: Annotated[str, typer.Option(help="A running tierwise.")] = "http://127.0.0.1:8000",
    api_key: Annotated[str, typer.Option(envvar="TIERWISE_API_KEY", help="Key, where the endpoint asks for one.")] = "",
    answers: Annotated[Path | None, typer.Option(help="Keep the answers' times here; fit to this file where it exists.")] = None,
    tier: Annotated[str, typer.Option(help="The tier that is driven; it should have one replica.")] = "small",
    block_s: Annotated[float, typer.Option(help="Seconds of each of the 24 blocks.")] = 10.0,
    workers: Annotated[int, typer.Option(help="The engine's max_num_seqs.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of arrivals and lengths.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Drive one tier at several loads and fit the engine model to what its answers took."""
    with user_errors():
        course = command.course_of(tier, block_s, workers)
        found = command.measured(url, api_key, course, answers, seed=seed, say=lambda line: typer.echo(line, err=True))
        out.write_text(found.speeds, encoding="utf-8")
    typer.echo(json.dumps(found.as_json()) if as_json else "\n".join(found.as_lines()))


if __name__ == "__main__":
    typer.run(main)
