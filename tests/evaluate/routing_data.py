"""Where the outcome tables lie. They are no part of the project: a test that needs one is skipped where it is absent."""

import os
from pathlib import Path

import pytest

import serve_app
from serve_app.evaluate.rows import Rows, read

DEFAULT = Path(serve_app.__file__).parents[2] / "shared" / "data" / "routing"


def table(name: str) -> Rows:
    folder = Path(os.environ.get("TIERWISE_ROUTING_DATA") or DEFAULT)
    if not (folder / name).is_file():
        pytest.skip(f"no {name} in TIERWISE_ROUTING_DATA or ../shared/data/routing")
    return read([folder / name])
