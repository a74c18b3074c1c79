"""The embedder's deployment: collects waiting texts and embeds them off the event loop."""

import asyncio
import threading

from ray import serve

from serve_app.deployments.scaled import Scaled
from serve_app.embedding import SentenceEmbedder
from serve_app.ports import Embedding
from serve_app.settings import EmbedderSettings


class EmbedderServer(Scaled):
    """Collects waiting texts, so that one hop to the worker thread serves several of them."""

    def __init__(self, settings: EmbedderSettings) -> None:
        self._embedder = SentenceEmbedder(settings)
        self._lock = threading.Lock()
        self._batch = settings.max_batch_size
        self._inside = 0
        self._batched.set_max_batch_size(settings.max_batch_size)
        self._batched.set_batch_wait_timeout_s(settings.batch_wait_s)
        self._embedder.encode(["warm up"])

    async def embed(self, text: str) -> Embedding:
        self._inside += 1
        try:
            return await self._batched(text)  # type: ignore[no-any-return]
        finally:
            self._inside -= 1

    def queues(self) -> dict[str, int]:
        """Texts: one batch is embedded, the rest waits."""
        running = min(self._inside, self._batch)
        return {"waiting": self._inside - running, "running": running, "capacity": self._batch}

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)  # type: ignore[untyped-decorator]
    async def _batched(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._encode, texts)

    def _encode(self, texts: list[str]) -> list[Embedding]:
        with self._lock:
            return self._embedder.encode(texts)

    async def load_report(self) -> dict[str, int]:
        """The same names as an engine's, so that one watch reads all."""
        return {"waiting": 0, "running": 0, "capacity": 0, "prompt_tokens": 0, "generation_tokens": 0}
