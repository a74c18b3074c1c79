"""`tierwise audit`, thin."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli_shared import AsJson, user_errors


def audit(
    source: Annotated[str, typer.Argument(metavar="FILE", help="Recorded prompts, or - for stdin.")],
    *,
    out: Annotated[Path, typer.Option(help="Where to write the HTML file; what was scored is kept beside it.")],
    form: Annotated[str, typer.Option("--format", help="auto, lines, jsonl, openai-batch or sharegpt.")] = "auto",
    calibration: Annotated[str, typer.Option(help="Artefact to score with; default: the packaged one.")] = "builtin",
    profile: Annotated[str, typer.Option(help="Profile whose embedder, settings and prices are used.")] = "local",
    prices: Annotated[Path | None, typer.Option(help="YAML file {small: {input, output}, large: ...}, dollars per million tokens.")] = None,
    answer_tokens: Annotated[int, typer.Option(min=0, help="Length of an answer that the data does not have.")] = 200,
    examples: Annotated[bool, typer.Option("--examples/--no-examples", help="Show prompts on the page.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of samples and clusters.")] = 0,
    as_json: AsJson = False,
) -> None:
    """What the router would do with your recorded prompts: split, cost before and after, what is uncertain, what goes large."""
    from serve_app.evaluate import audit_report  # noqa: PLC0415 - a command imports what it needs
    from serve_app.evaluate.audit import Wanted  # noqa: PLC0415

    wanted = Wanted(source, out, form, calibration, profile, prices, answer_tokens, examples, seed)
    with user_errors(), _bar(source) as seen:
        try:
            found = audit_report.write(wanted, say=lambda line: typer.echo(line, err=True), seen=seen)
        except KeyboardInterrupt:
            typer.echo("stopped; the same command goes on from here", err=True)
            raise typer.Exit(1) from None
    typer.echo(json.dumps(found) if as_json else "\n".join(audit_report.as_lines(found)))


@contextmanager
def _bar(source: str) -> Iterator[Callable[[int, int, int], None]]:
    """Bytes read, prompts, and prompts a second, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("scoring"), BarColumn(), TextColumn("{task.fields[prompts]:,} prompts"), TextColumn("{task.fields[rate]:.0f}/s"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(source, total=None, prompts=0, rate=0.0)

        def seen(prompts: int, read: int, size: int) -> None:
            took = bar.tasks[0].elapsed or 0.0
            bar.update(task, completed=read, total=size or None, prompts=prompts, rate=prompts / took if took else 0.0)

        yield seen
