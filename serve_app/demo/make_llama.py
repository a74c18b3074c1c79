"""Train the two chat models on the corpus of `corpus/` and write them with samples and held-out perplexities."""

import copy
import json
import math
import random
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from serve_app.demo import quantize
from serve_app.demo.architectures import END_ID, LARGE_LAYERS, MIDDLE_LAYERS, SMALL_LAYERS, Model, grow, llama
from serve_app.demo.checkpoint import save
from serve_app.demo.dialogues import Corpus, Dialogue, load
from serve_app.demo.make_tokenizer import train as train_tokenizer
from serve_app.demo.router_data import requests
from serve_app.demo.training import batches, encode, fit, next_token_loss, seed_everything
from serve_app.routing.self_assessment import PREFIX, SUFFIX

SEED = 0
ROWS, LENGTH = 12, 128
STEPS = {SMALL_LAYERS: 1000, MIDDLE_LAYERS: 1000, LARGE_LAYERS: 150}
PEAK = {SMALL_LAYERS: 4e-3, MIDDLE_LAYERS: 1.2e-3, LARGE_LAYERS: 4e-4}
RESULTS = Path(__file__).parent / "results" / "llama.json"

ASKED = (
    "Hello!",
    "What is the capital of Kenya?",
    "How do I bake bread?",
    "My parcel was damaged. What can I do?",
    "What is the difference between a cache and a database?",
    "Tell me a story about an owl and a whale.",
    "Why is encryption useful?",
    "What goes well with salmon?",
    "Write an email to my boss about a delayed project.",
    "Can you explain how a sailing boat moves against the wind?",
)
"""The last two are of a kind that the corpus does not have."""


def tokenizer_of(corpus: Corpus) -> PreTrainedTokenizerFast:
    """The shared tokenizer, trained on the training part, the invented requests and, so that it stays short, the router's frame."""
    chats = [text for dialogue in corpus.train for turn in dialogue.turns for text in turn]
    frame = [part for part in re.split(r"<\|\w+\|>", PREFIX + SUFFIX) if part]
    return train_tokenizer(chats + [text for text, _ in requests(random.Random(SEED))] + frame * 50)


def train_stage(model: Model, corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> None:
    """Train a model of one depth with that depth's steps and rate."""
    layers = model.config.num_hidden_layers
    source = batches([encode(dialogue, tokenizer) for dialogue in corpus.train], ROWS, LENGTH, SEED + layers)

    def loss(_: int) -> Tensor:
        return next_token_loss(model, *next(source))

    print(f"training {layers} layers", flush=True)
    fit(model, loss, STEPS[layers], PEAK[layers])


def perplexity(model: Model, dialogues: Sequence[Dialogue], tokenizer: PreTrainedTokenizerFast) -> float:
    """exp of the mean loss in nats of the answers' tokens, end mark included; each dialogue stands alone."""
    nats, count = 0.0, 0.0
    for dialogue in dialogues:
        ids, weights = encode(dialogue, tokenizer)
        answers = torch.tensor([[float(weight == 1.0) for weight in weights]])
        tokens = float(answers[:, 1:].sum())
        with torch.no_grad():
            nats += float(next_token_loss(model, torch.tensor([ids]), answers)) * tokens
        count += tokens
    return math.exp(nats / count)


def answer(model: Model, tokenizer: PreTrainedTokenizerFast, question: str, limit: int = 60) -> str:
    """The greedy answer to one question, at most `limit` tokens."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt").input_ids
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False, eos_token_id=END_ID)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def rounded_to_int4(model: Model) -> Model:
    """A copy with the weights that the packed checkpoint stands for."""
    copied = copy.deepcopy(model)
    for name in quantize.linear_names(copied):
        linear = copied.get_submodule(name)
        linear.weight.data = quantize.rounded(linear.weight.data)
    return copied


def report(model: Model, corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """Held-out perplexities and samples, measured in fp32 (in int4 rounded to fp32)."""
    return {
        "layers": model.config.num_hidden_layers,
        "parameters": model.num_parameters(),
        "perplexity_grammar": round(perplexity(model, corpus.held_grammar, tokenizer), 3),
        "perplexity_written": round(perplexity(model, corpus.held_written, tokenizer), 2),
        "samples": {question: answer(model, tokenizer, question) for question in ASKED},
    }


def make() -> None:
    """Write `models/tiny-llama-small`, `models/tiny-llama-large` and `results/llama.json`. About twelve minutes on one thread."""
    seed_everything(SEED)
    started = time.process_time()
    corpus = load(SEED)
    tokenizer = tokenizer_of(corpus)
    small = llama(SMALL_LAYERS)
    train_stage(small, corpus, tokenizer)
    save(small, tokenizer, "tiny-llama-small", int4=True)
    results = {"small_before_int4": report(small, corpus, tokenizer), "small": report(rounded_to_int4(small), corpus, tokenizer)}
    middle = grow(small, MIDDLE_LAYERS)
    train_stage(middle, corpus, tokenizer)
    results["large_before_growth"] = report(middle, corpus, tokenizer)
    large = grow(middle, LARGE_LAYERS)
    train_stage(large, corpus, tokenizer)
    save(large, tokenizer, "tiny-llama-large")
    results["large"] = report(large, corpus, tokenizer)
    counts = {"train": len(corpus.train), "held_grammar": len(corpus.held_grammar), "held_written": len(corpus.held_written)}
    RESULTS.parent.mkdir(exist_ok=True)
    document = {"dialogues": counts, "cpu_seconds": round(time.process_time() - started), **results}
    RESULTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
