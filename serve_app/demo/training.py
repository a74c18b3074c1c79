"""The training loop and the ChatML batches that the chat models share."""

import math
import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from serve_app.demo.architectures import Model
from serve_app.demo.dialogues import Dialogue

PROMPT_WEIGHT = 0.2
"""Loss weight of a token that is not part of an answer: enough to learn words from, too little to spend capacity on."""

Encoded = tuple[list[int], list[float]]
"""Token ids and, for each, the weight of the loss of predicting it."""


def seed_everything(seed: int) -> None:
    """One thread, deterministic kernels and a fixed seed: the same machine and library versions give the same weights."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


def encode(dialogue: Dialogue, tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """ChatML ids of a dialogue; the weight is 1 on answers with their end mark, `PROMPT_WEIGHT` elsewhere."""
    ids: list[int] = []
    weights: list[float] = []

    def add(text: str, weight: float) -> None:
        tokens = tokenizer.encode(text)
        ids.extend(tokens)
        weights.extend([weight] * len(tokens))

    if dialogue.system:
        add(f"<|im_start|>system\n{dialogue.system}<|im_end|>\n", PROMPT_WEIGHT)
    for question, answer in dialogue.turns:
        add(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", PROMPT_WEIGHT)
        add(f"{answer}<|im_end|>", 1.0)
        add("\n", PROMPT_WEIGHT)
    return ids, weights


def batches(encoded: Sequence[Encoded], rows: int, length: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, weights) of shape [rows, length]: shuffled dialogues laid end to end.

    A row holds several dialogues and may begin inside one, so the model meets contexts longer than any single dialogue.
    """
    rng = random.Random(seed)
    ids: list[int] = []
    weights: list[float] = []
    while True:
        for tokens, marks in rng.sample(encoded, len(encoded)):
            ids += tokens
            weights += marks
            if len(ids) >= rows * length:
                yield torch.tensor(ids[: rows * length]).view(rows, length), torch.tensor(weights[: rows * length]).view(rows, length)
                ids, weights = ids[rows * length :], weights[rows * length :]


def next_token_loss(model: Model, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy in nats of predicting each next token."""
    logits = model(input_ids=ids[:, :-1]).logits
    losses = functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    marks = weights[:, 1:].flatten()
    return (losses * marks).sum() / marks.sum()


def rate(step: int, steps: int, peak: float, warmup: int = 40) -> float:
    """Learning rate: linear warm-up, then a cosine down to a twentieth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def fit(model: nn.Module, loss: Callable[[int], Tensor], steps: int, peak: float) -> None:
    """Minimise `loss(step)` by AdamW for `steps` steps; prints the mean loss of every tenth part."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95))
    model.train()
    total, since = 0.0, 0
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step, steps, peak)
        value = loss(step)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        total, since = total + value.item(), since + 1
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"  step {step + 1}/{steps}: loss {total / since:.3f}", flush=True)
            total, since = 0.0, 0
    model.eval()
