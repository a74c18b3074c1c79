"""Where recorded traffic is read from: the ledger of a deployments.yaml, or a file that was exported from one."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from serve_app.domain import Json
from serve_app.errors import RequestError
from serve_app.observe.reader import AT_ONCE
from serve_app.settings import Settings, parse


def settings_of(config: Path) -> Settings:
    """The settings of a deployments.yaml. Raises `RequestError` when it cannot be read, `SettingsError` when they are wrong."""
    try:
        (application,) = yaml.safe_load(config.read_text(encoding="utf-8"))["applications"][:1]
        args = application.get("args") or {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError):
        raise RequestError(f"{config}: cannot be read as a deployments file") from None
    return parse(args)


def ledger_url(given: str, settings: Settings) -> str:
    """What was asked for, or else the ledger of the settings."""
    name = settings.ledger.url_env
    return given or (os.environ.get(name, settings.ledger.url) if name else settings.ledger.url)


def exported(path: Path) -> Iterator[list[Json]]:
    """The rows of a Parquet file of `tierwise export`, or of a file with a JSON object a line. Raises `RequestError`."""
    try:
        yield from _parquet(path) if path.suffix == ".parquet" else _lines(path)
    except (ValueError, TypeError) as error:  # pyarrow's and json's own errors are ValueErrors
        raise RequestError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None


def _parquet(path: Path) -> Iterator[list[Json]]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - only who reads one pays for it

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(AT_ONCE):
            yield batch.to_pylist()


def _lines(path: Path) -> Iterator[list[Json]]:
    with path.open(encoding="utf-8") as file:
        batch: list[Json] = []
        for number, line in enumerate(file, start=1):
            if line.strip():
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is no JSON object")
                batch.append(row)
            if len(batch) == AT_ONCE:
                yield batch
                batch = []
        yield batch
