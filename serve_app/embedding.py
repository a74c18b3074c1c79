"""The embedding model itself: sentence-transformers, digest-checked. No Ray: the command line uses it too."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from serve_app.errors import SettingsError
from serve_app.ports import Embedding
from serve_app.settings import EmbedderSettings


class SentenceEmbedder:
    """Owns the model. `encode` blocks: call it from a thread."""

    def __init__(self, settings: EmbedderSettings) -> None:
        import torch  # noqa: PLC0415 - seconds of import that only this replica pays
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

        disable_progress_bar()
        torch.set_num_threads(settings.threads)
        folder = locate(settings.source)
        if settings.sha256 is not None:
            check_digest(folder, settings.sha256)
        self._model = SentenceTransformer(str(folder), revision=settings.revision, device="cpu")
        self._model.max_seq_length = settings.max_tokens

    def encode(self, texts: list[str]) -> list[Embedding]:
        """L2-normalised embeddings, one of shape (dim,) per text.

        One text per forward pass: on one CPU thread a padded batch is not faster (measured: 26 ms of CPU per prompt
        alone, 24-33 ms in batches of 4 and 16), and without padding an embedding does not depend on its company to
        the last bit, so that a prompt always gets the same score.
        """
        vectors = self._model.encode(texts, batch_size=1, normalize_embeddings=True, show_progress_bar=False)
        return [np.asarray(vector, dtype=np.float32) for vector in vectors]


def locate(source: str) -> Path | str:
    """The folder of `package:NAME`, whose model lies in its `model` folder; a folder or repository name as it is."""
    if not source.startswith("package:"):
        return source
    name = source.removeprefix("package:")
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SettingsError([f"args.embedder.source: the package {name!r} is not installed"])
    return Path(spec.origin).parent / "model"


def check_digest(folder: Path | str, sha256: str) -> None:
    """Refuse weights that are not the ones that the calibration was made with."""
    weights = Path(folder) / "model.safetensors"
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != sha256:
        raise SettingsError([f"args.embedder.sha256: {weights.name} has digest {found}"])


def identity(settings: EmbedderSettings) -> str:
    """What a calibration artefact remembers of the embedder that it was made with."""
    pinned = settings.sha256 or settings.revision or "unpinned"
    return f"{settings.source}@{str(pinned)[:16]}/{settings.max_tokens}"
