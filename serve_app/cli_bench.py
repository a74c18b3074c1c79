"""`tierwise bench`, thin."""

import json
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli_shared import AsJson, user_errors


def bench(
    url: Annotated[str, typer.Option(help="Put load on this running endpoint, and nothing else.")] = "",
    model: Annotated[str, typer.Option(help="With --url: the model that is asked for.")] = "auto",
    api_key: Annotated[str, typer.Option(envvar="TIERWISE_API_KEY", help="With --url: key, where the endpoint asks for one.")] = "",
    requests: Annotated[int, typer.Option(min=1, help="With --url: how many.")] = 100,
    tokens: Annotated[int, typer.Option(min=1, help="With --url: tokens of each answer, at most.")] = 64,
    concurrency: Annotated[int, typer.Option(min=0, help="With --url: so many at a time; 0 does not bound them.")] = 8,
    rate: Annotated[float, typer.Option(help="With --url: arrivals a second, Poisson; 0 sends as fast as the bound lets.")] = 0.0,
    burstiness: Annotated[float, typer.Option(help="With --url: below 1 the arrivals come in bursts.")] = 1.0,
    stream: Annotated[bool, typer.Option("--stream/--plain", help="With --url: streamed answers.")] = True,
    only: Annotated[str, typer.Option(help="Parts of the comparison, with commas between; default: all.")] = "",
    repeats: Annotated[int, typer.Option(min=1, help="How often each contender is measured.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="A quarter of the requests.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the figures; parts that were not run are taken from it.")] = Path(
        ".bench/results"
    ),
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/benchmarks.md"),
    notes: Annotated[Path, typer.Option(help="The prose that is put behind the tables.")] = Path("docs/benchmarks-notes.md"),
    as_json: AsJson = False,
) -> None:
    """Compare with the engine called directly, a bare Ray hop, ray.serve.llm and LiteLLM on this machine; or load one endpoint."""
    from serve_app.bench import command  # noqa: PLC0415
    from serve_app.bench.load import Load  # noqa: PLC0415

    with user_errors():
        if url:
            load = Load(requests, tokens, stream, concurrency or None, rate or float("inf"), burstiness)
            found = command.on_endpoint(url, model, api_key, load)
            typer.echo(json.dumps(found) if as_json else "\n".join(f"{name}: {value:.1f}" for name, value in found["figures"].items()))
            return
        parts = tuple(part for part in only.split(",") if part)
        kept = command.run(command.Wanted(parts, repeats, quick, results, out, notes), lambda line: typer.echo(line, err=True))
        typer.echo(json.dumps(kept) if as_json else f"{out}: written from {', '.join(kept)}")
