"""LiteLLM's keyword heuristic on lines of JSON strings: one score a line out, the CPU seconds on the last line.

Run by the Python of LiteLLM's own environment; it imports nothing of tierwise.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    from litellm.router_strategy.complexity_router.complexity_router import ComplexityRouter  # type: ignore[import-not-found]  # noqa: PLC0415 - not there when tierwise imports this

    router: Any = ComplexityRouter(
        model_name="auto",
        litellm_router_instance=None,
        complexity_router_config={"tiers": {"SIMPLE": "small", "MEDIUM": "small", "COMPLEX": "large", "REASONING": "large"}},
    )
    prompts = [json.loads(line) for line in sys.stdin]
    classify: Callable[[str], tuple[Any, float, Any]] = router.classify
    classify("warm up")
    begun = time.process_time()
    scores = [classify(prompt)[1] for prompt in prompts]
    spent = time.process_time() - begun
    for score in scores:
        print(json.dumps(score))
    print(json.dumps({"cpu_s": spent}))


if __name__ == "__main__":
    main()
