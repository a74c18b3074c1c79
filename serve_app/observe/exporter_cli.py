"""`tierwise cost-exporter`: settings from the application's file, and the two ways to run."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from serve_app.errors import SettingsError
from serve_app.observe.exporter import Exporter, Serving
from serve_app.settings import Settings, parse
from serve_app.validation import document, serve_part
from serve_app.validation.report import Report


def settings(config: Path, *, targets: Sequence[str] | None = None, discovery: str = "", host: str = "", port: int = -1) -> Settings:
    """Those of the file, under what the command line says. Raises `SettingsError`."""
    report = Report()
    read = document.read(config, report)
    if read is None:
        raise SettingsError(report.problems)
    args = dict(serve_part.application(read).get("args") or {})
    given = {"targets": targets, "discovery": discovery, "host": host, "port": port if port >= 0 else None}
    exporter = {**(args.get("exporter") or {}), **{name: value for name, value in given.items() if value not in (None, "", [])}}
    return parse({**args, "exporter": exporter})


def once(of: Settings, *, as_json: bool) -> str:
    """One reading, as text or JSON. The state is read and left alone: an exporter that runs beside it writes it."""
    exporter = Exporter(of, keep=False)
    exporter.poll()
    figures = exporter.figures()
    if as_json:
        return json.dumps(figures)
    return "\n".join(f"{figure['name']:48} {' '.join(figure['labels'].values()):28} {figure['value']:.6g}" for figure in figures)


def serve(of: Settings, say: Callable[[str], None]) -> None:
    """Until Ctrl-C. Raises `OSError` when the port is taken."""
    serving = Serving(of)
    say(f"cost exporter: http://{of.exporter.host}:{serving.port}/metrics, every {of.exporter.every_s:g} s, Ctrl-C ends it")
    with suppress(KeyboardInterrupt):
        serving.wait()
    serving.close()
