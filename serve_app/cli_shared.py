"""What every command of `tierwise` has."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from serve_app.errors import TierwiseError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@contextmanager
def user_errors() -> Iterator[None]:
    """A user's mistake is one line on stderr and exit code 2, never a traceback."""
    try:
        yield
    except TierwiseError as error:
        for line in error.message.splitlines():
            typer.echo(line, err=True)
        raise typer.Exit(2) from None
    except UnicodeDecodeError:
        typer.echo("the input is not valid UTF-8", err=True)
        raise typer.Exit(2) from None
    except BrokenPipeError:  # `| head` has seen enough: click ends quietly
        raise
    except OSError as error:
        says = error.strerror or type(error).__name__
        typer.echo(says if error.filename is None else f"{error.filename}: {says}", err=True)
        raise typer.Exit(2) from None


@contextmanager
def growing_bar(label: str) -> Iterator[Callable[[int], Callable[[], None]]]:
    """A progress bar on stderr whose length is known later; nothing is drawn where stderr is no terminal."""
    shown = []

    def ticking(length: int) -> Callable[[], None]:
        if not sys.stderr.isatty():
            return lambda: None
        bar = typer.progressbar(length=length, label=label, file=sys.stderr)
        shown.append(bar)
        bar.__enter__()
        return lambda: bar.update(1)

    try:
        yield ticking
    finally:
        for bar in shown:
            bar.render_finish()
