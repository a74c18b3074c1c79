"""Train the complexity rater: given the self-assessment prompt, its next token is a digit, 0 for easy and 9 for hard."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache
from transformers import PreTrainedTokenizerFast as Tokenizer

from serve_app.demo.architectures import PAD_ID, Model, router
from serve_app.demo.checkpoint import save
from serve_app.demo.rating import MAX_TOKENS, Prompter, ratings
from serve_app.demo.router_data import Example, augment, examples, questions
from serve_app.demo.training import fit, seed_everything
from serve_app.evaluate.labelled import Labelled, first, split

SEED = 0
STEPS = 600
BATCH, LABELLED_IN_BATCH = 32, 6
PEAK = 1.5e-3
TRAINED_TOKENS = 256
"""Longer prompts lose their middle in training, which halves its time; ratings are read from up to `MAX_TOKENS`."""
SPREAD = 0.9
"""Standard deviation, in digits, of the soft target around its centre."""
RESULTS = Path(__file__).parent / "results" / "router.json"

Floats = NDArray[np.float32]


def soft_digits(targets: Tensor) -> Tensor:
    """A bell over the ten digits around 9 x target: [rows] in [0, 1] to [rows, 10]."""
    distance = torch.arange(10.0) - 9 * targets.unsqueeze(1)
    return functional.softmax(-(distance**2) / (2 * SPREAD**2), dim=1)


def padded(sequences: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """(ids of shape [rows, longest], index of each row's last token). Padding stands after the text: causal attention never sees it."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[*row, *([PAD_ID] * (longest - len(row)))] for row in sequences])
    return ids, torch.tensor([len(row) - 1 for row in sequences])


def draws(labelled: Sequence[Example], others: Sequence[Example], seed: int) -> Iterator[list[Example]]:
    """Endless batches of augmented examples, each with a fixed share of labelled ones.

    Four batches are drawn at once and parted by length, so that little of each is padding.
    """
    rng = random.Random(seed)
    contexts = questions(rng)
    while True:
        pool: list[Example] = []
        for _ in range(4):
            pool += rng.sample(labelled, LABELLED_IN_BATCH) + rng.sample(others, BATCH - LABELLED_IN_BATCH)
        pool = [Example(augment(item.text, rng, contexts), item.target, item.vector) for item in pool]
        pool.sort(key=lambda item: len(item.text))
        parts = [pool[start : start + BATCH] for start in range(0, len(pool), BATCH)]
        yield from rng.sample(parts, len(parts))


def train(labelled: Sequence[Example], others: Sequence[Example], tokenizer: Tokenizer, steps: int = STEPS) -> Model:
    """A trained rater. A head that is thrown away afterwards also learns to predict each text's MiniLM embedding."""
    model = router()
    seed_embeddings(model, tokenizer)
    distil = nn.Linear(model.config.hidden_size, 384)
    prompter = Prompter(tokenizer, TRAINED_TOKENS)
    source = draws(labelled, others, SEED)

    def loss(_: int) -> Tensor:
        items = next(source)
        hidden = last_hidden(model, prompter, [item.text for item in items])
        wanted = torch.zeros(len(items), model.config.vocab_size)
        wanted[:, prompter.digit_ids] = soft_digits(torch.tensor([float(item.target) for item in items]))
        rating = functional.cross_entropy(model.lm_head(hidden), wanted)
        vectors = torch.from_numpy(np.stack([item.vector for item in items]))
        return rating + 2 * (1 - functional.cosine_similarity(distil(hidden), vectors)).mean()

    fit(nn.ModuleList([model, distil]), loss, steps, PEAK)
    return model


def last_hidden(model: Model, prompter: Prompter, texts: Sequence[str]) -> Tensor:
    """The state after each text's whole prompt: [rows, hidden]. The prefix that all prompts share is computed once."""
    prefix = torch.tensor([prompter.prefix])
    cache = DynamicCache()
    model.model(input_ids=prefix, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(texts))
    ids, last = padded([prompter(text)[prefix.shape[1] :] for text in texts])
    states: Tensor = model.model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
    return states[torch.arange(len(texts)), last]


def seed_embeddings(model: Model, tokenizer: Tokenizer) -> None:
    """Start each token's embedding from MiniLM's view of its text, so that words that never occur in training mean something."""
    from serve_app.demo.teacher import embed, minilm  # noqa: PLC0415 - seconds of imports and a model, for training only

    vectors = torch.from_numpy(embed(minilm(), [str(tokenizer.decode([token])).strip() for token in range(len(tokenizer))]))
    centred = vectors - vectors.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    weight = model.get_input_embeddings().weight
    reduced = centred @ axes[: weight.shape[1]].T
    with torch.no_grad():
        weight.copy_(reduced / reduced.std() * model.config.initializer_range)


def auc(labels: Sequence[bool], scores: Floats) -> float:
    """The chance that a random large prompt is rated above a random small one; ties count half."""
    hard, easy = scores[np.array(labels)], scores[~np.array(labels)]
    return float((hard[:, None] > easy).mean() + 0.5 * (hard[:, None] == easy).mean())


def best_threshold(labels: Sequence[bool], scores: Floats) -> float:
    """The midpoint between two neighbouring ratings that separates the labels best."""
    ordered = np.unique(scores)
    cuts = (ordered[:-1] + ordered[1:]) / 2
    return float(cuts[int(np.argmax([((scores > cut) == np.array(labels)).mean() for cut in cuts]))])


def evaluate(model: Model, tokenizer: Tokenizer, fitted: Sequence[Labelled], golden: Sequence[Labelled]) -> dict[str, float]:
    """AUC and accuracy on the golden part, at the threshold that is best on the fit part."""
    fit_labels, golden_labels = ([row.expected_tier == "large" for row in rows] for rows in (fitted, golden))
    fit_scores, golden_scores = (ratings(model, tokenizer, [row.prompt for row in rows]) for rows in (fitted, golden))
    threshold = best_threshold(fit_labels, fit_scores)
    return {
        "fit_auc": round(auc(fit_labels, fit_scores), 3),
        "golden_auc": round(auc(golden_labels, golden_scores), 3),
        "golden_accuracy": round(float(((golden_scores > threshold) == np.array(golden_labels)).mean()), 3),
        "threshold": round(threshold, 3),
    }


def make(tokenizer: Tokenizer) -> None:
    """Write `models/tiny-qwen-router` and `results/router.json`. About ten minutes on one thread."""
    seed_everything(SEED)
    started = time.process_time()
    fitted, golden = split(first())
    labelled, others = examples(fitted, random.Random(SEED))
    model = train(labelled, others, tokenizer).bfloat16().float()  # rate with the weights that are stored
    save(model, tokenizer, "tiny-qwen-router")
    found: dict[str, object] = {
        "parameters": model.num_parameters(),
        "fit_prompts": len(fitted),
        "golden_prompts": len(golden),
        "other_texts": len(others),
        "max_tokens": MAX_TOKENS,
        **evaluate(model, tokenizer, fitted, golden),
        "cpu_seconds": round(time.process_time() - started),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found), flush=True)
