"""vLLM's own metrics, as Prometheus gets them from the running engines: the names that dashboards use exist."""

import time
from contextlib import suppress
from pathlib import Path

import openai
import pytest

from serve_app.observe.boards import panels
from tests.chaos.requests import MODELS
from tests.graph import Graph, wait_for
from tests.monitoring.prometheus import needs_prometheus, watching

TOKENS = 8
LONG = "Please remember, word for word, what I say now: " + "the quick brown fox jumps over the lazy dog, and " * 20


@needs_prometheus
@pytest.mark.timeout(150)
def test_every_panel_of_the_engines_shows_the_engines(graph: Graph, tmp_path: Path) -> None:
    client = openai.OpenAI(base_url=f"{graph.url}/v1", api_key="none")
    wanted = [query.expr for panel in panels() if panel.vllm for query in panel.queries]
    assert len(wanted) >= 10
    began = time.time()
    with watching(graph, tmp_path) as prometheus:

        def empty() -> list[str]:
            for model in ("small", "large"):  # the same prompt again: the second time its prefix is in the cache
                client.chat.completions.create(model=model, messages=[{"role": "user", "content": LONG}], max_tokens=TOKENS)
            return [expr for expr in wanted if not prometheus.has_data(expr, began)]

        with suppress(AssertionError):
            wait_for(lambda: not empty(), 90, "vLLM's metrics to arrive, which replicas report every ten seconds")
        assert empty() == []
        for model in MODELS.values():  # a point may be there and be 0
            assert prometheus.value(f'sum(ray_vllm_generation_tokens_total{{model_name="{model}"}})') >= TOKENS
