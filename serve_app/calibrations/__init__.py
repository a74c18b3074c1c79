"""The calibration artefacts that ship with the package."""

from importlib.resources import files
from pathlib import Path

from serve_app.errors import CalibrationError
from serve_app.routing.score import Artefact, Calibration, load

BUILTIN = "builtin.npz"


def named(name: str, embedder: str | None = None) -> Artefact:
    """`builtin` or a file, of either kind. Raises `CalibrationError` when it cannot be used with `embedder`."""
    if name == "builtin":
        return builtin(embedder)
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        raise CalibrationError(f"{name}: {error.strerror}") from error
    return load(data, embedder)


def builtin(embedder: str | None = None) -> Calibration:
    """The packaged artefact. Raises `CalibrationError` when `embedder` is not the one that it was made with."""
    artefact = load(files(__name__).joinpath(BUILTIN).read_bytes(), embedder)
    if not isinstance(artefact, Calibration):
        raise CalibrationError(f"the packaged calibration is of kind {artefact.kind!r}")
    return artefact
