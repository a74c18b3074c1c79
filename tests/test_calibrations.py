"""Which artefact is in force: the packaged one, or a file."""

from pathlib import Path

import pytest

from serve_app.calibrations import builtin, named
from serve_app.errors import CalibrationError
from serve_app.routing.score import dump


def test_builtin_is_the_packaged_one() -> None:
    assert named("builtin").sha256 == builtin().sha256


def test_a_file_is_read_and_has_its_own_hash(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(dump(builtin()))
    assert named(str(path), builtin().embedder).sha256 == builtin().sha256


@pytest.mark.parametrize("content", [None, b"not an artefact"])
def test_a_file_that_is_missing_or_broken_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CalibrationError) as refused:
        named(str(path))
    assert len(refused.value.message.splitlines()) == 1


def test_a_file_of_another_embedder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(dump(builtin()))
    with pytest.raises(CalibrationError, match="was made with embedder"):
        named(str(path), "another")
