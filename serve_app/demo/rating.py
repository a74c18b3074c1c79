"""Rate texts with a router checkpoint through transformers, by the very prompt and arithmetic that serving uses."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from serve_app.demo import resolve
from serve_app.demo.architectures import Model
from serve_app.routing.self_assessment import DIGITS, PREFIX, SUFFIX, build_prompt, read_rating

MAX_TOKENS = 512


class Prompter:
    """Builds the self-assessment prompt of a text as token ids, at most `max_tokens` of them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int = MAX_TOKENS) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self.prefix, self._suffix = tokenizer.encode(PREFIX), tokenizer.encode(SUFFIX)
        self.digit_ids = [tokenizer.encode(digit)[0] for digit in DIGITS]

    def __call__(self, text: str) -> list[int]:
        """Token ids; special tokens in `text` are split up, so that it cannot close its own delimiter."""
        ids = self._tokenizer.encode(text, split_special_tokens=True)
        return build_prompt(self.prefix, ids, self._suffix, self._max_tokens)


def ratings(model: Model, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> NDArray[np.float32]:
    """One expected rating in [0, 1] for each text, one forward pass each."""
    prompter = Prompter(tokenizer)
    found = []
    for text in texts:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompter(text)]), logits_to_keep=1).logits[0, -1].float()
        logprobs = torch.log_softmax(logits, 0)[prompter.digit_ids].tolist()
        assessment = read_rating(dict(zip(prompter.digit_ids, logprobs, strict=True)), prompter.digit_ids)
        found.append(assessment.rating)
    return np.array(found, dtype=np.float32)


class Rater:
    """One router model, a packaged checkpoint (`builtin:NAME`), a folder or a Hugging Face repository, on CPU."""

    def __init__(self, source: str) -> None:
        disable_progress_bar()
        folder = resolve(source)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)

    def __call__(self, text: str) -> float:
        return float(ratings(self._model, self._tokenizer, [text])[0])
