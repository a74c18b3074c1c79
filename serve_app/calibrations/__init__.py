"""The calibration artefacts that ship with the package."""

from importlib.resources import files

from serve_app.routing.score import Calibration, load

BUILTIN = "builtin.npz"


def builtin(embedder: str | None = None) -> Calibration:
    """The packaged artefact. Raises `CalibrationError` when `embedder` is not the one that it was made with."""
    return load(files(__name__).joinpath(BUILTIN).read_bytes(), embedder)
