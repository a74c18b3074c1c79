"""Texts that the router learns from, each with a soft target in [0, 1]: 0 is easy, 1 is hard."""

import json
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve_app.demo.grammar import CORPUS, expand, forms, table
from serve_app.evaluate.labelled import Labelled

ROUTING_FILES = (
    "mmlu_pro_llama31_8b_70b.jsonl",
    "zeroeval_llama31_8b_70b.jsonl",
    "ulab_llmrouter_llama31_8b_nemotron51b.jsonl",
    "routellm_mmlu_mixtral_gpt4.jsonl",
    "routellm_gsm8k_mixtral_gpt4.jsonl",
)
FROM_ROUTING, FROM_REQUESTS, FROM_DIALOGUES = 2400, 3200, 600
LONGEST = 1200
"""Characters; longer texts of the routing tables are left out, since they cost the most and teach the least."""

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """A text, how hard the teacher or the label holds it to be, and its MiniLM embedding (384 values, unit length)."""

    text: str
    target: float
    vector: Vectors


def routing_prompts(rng: random.Random) -> list[str]:
    """Unlabelled prompts from the folder in `TIERWISE_ROUTING_DATA`; none, with a line that says so, where it is not set."""
    folder = os.environ.get("TIERWISE_ROUTING_DATA")
    if not folder or not Path(folder).is_dir():
        print("TIERWISE_ROUTING_DATA names no folder: the router learns without the routing tables' prompts")
        return []
    prompts: set[str] = set()
    for name in ROUTING_FILES:
        lines = (Path(folder) / name).read_text(encoding="utf-8").splitlines()
        prompts.update(text for text in (str(json.loads(line)["prompt"]) for line in lines) if len(text) <= LONGEST)
    return rng.sample(sorted(prompts), min(FROM_ROUTING, len(prompts)))


def requests(rng: random.Random, count: int = FROM_REQUESTS) -> list[tuple[str, float]]:
    """Invented requests from `corpus/requests.txt` with the side (0 or 1) that their template stands on."""
    templates = (CORPUS / "requests.txt").read_text().splitlines()
    stories = [turns[0][1] for turns in expand(random.Random(1)) if len(turns[0][1]) > 90]
    found: dict[str, float] = {}
    for _ in range(count):
        side, _, template = rng.choice(templates).partition(": ")
        found[choose(template, rng, stories)] = float(side == "hard")
    return list(found.items())


def choose(template: str, rng: random.Random, stories: Sequence[str]) -> str:
    """Pick one of each `(a|b|c)` and fill each `{field}` from a random row of its table."""
    text = re.sub(r"\(([^()]*\|[^()]*)\)", lambda found: rng.choice(found[1].split("|")), template).replace("\\n", "\n")
    row = {"story": " ".join(rng.sample(stories, rng.randint(1, 6)))}
    for name in ("countries", "animals", "things", "concepts", "tasks", "issues", "foods"):
        row |= forms(rng.choice(table(name)))
    row["animal2"] = rng.choice(table("animals"))["animal"]
    return re.sub(r"\{(\w+)\}", lambda found: row[found[1]], text)


def questions(rng: random.Random, count: int = FROM_DIALOGUES) -> list[str]:
    """Questions of the chat corpus: nearly all of them easy, but the teacher is asked all the same."""
    asked = sorted({question for turns in expand(random.Random(2)) for question, _ in turns})
    return rng.sample(asked, count)


def examples(rows: Sequence[Labelled], rng: random.Random) -> tuple[list[Example], list[Example]]:
    """(labelled, others): targets mix the label, or the invented request's side, with the teacher's probability.

    The mix spreads the ratings: a request whose label surprises the teacher gets a target between the ends.
    """
    from serve_app.demo.teacher import Teacher  # noqa: PLC0415 - seconds of imports and a model, for training only

    teacher = Teacher.fitted([row.prompt for row in rows], [float(row.expected_tier == "large") for row in rows])
    print(f"teacher: cross-validated AUC on the fit part {teacher.auc:.3f}", flush=True)
    labelled = [
        Example(row.prompt, 0.65 * float(row.expected_tier == "large") + 0.35 * p, vector)
        for row, p, vector in zip(rows, teacher.out_of_fold, teacher.vectors, strict=True)
    ]
    invented = requests(rng)
    plain = routing_prompts(rng) + questions(rng)
    scores, vectors = teacher.rate([text for text, _ in invented] + plain)
    sides = [side for _, side in invented]
    targets = [0.5 * side + 0.5 * p for side, p in zip(sides, scores, strict=False)] + list(scores[len(sides) :])
    texts = [text for text, _ in invented] + plain
    return labelled, [Example(*item) for item in zip(texts, targets, vectors, strict=True)]


POLITE = (
    "please",
    "Hi,",
    "Hello there.",
    "Thanks in advance!",
    "Quick one:",
    "Sorry if this is silly.",
    "I need this today.",
    "Kind regards",
)


def augment(text: str, rng: random.Random, contexts: Sequence[str]) -> str:
    """The same request as another person would send it: casing, typos, lost words, politeness, an unrelated line before it."""
    if rng.random() < 0.25:
        text = text.lower()
    if rng.random() < 0.3:
        text = typos(text, rng)
    if rng.random() < 0.4:
        text = " ".join(word for word in text.split(" ") if rng.random() > 0.12) or text
    if rng.random() < 0.2:
        text = f"{rng.choice(POLITE)} {text}" if rng.random() < 0.5 else f"{text} {rng.choice(POLITE)}"
    if rng.random() < 0.15:
        text = f"{rng.choice(contexts)}\n\n{text}"
    if rng.random() < 0.2:
        text = text.rstrip("?.!")
    return text


def typos(text: str, rng: random.Random) -> str:
    """Swap or drop about one letter in forty."""
    letters = list(text)
    for index in range(1, len(letters)):
        if letters[index].isalpha() and rng.random() < 0.025:
            letters[index - 1], letters[index] = letters[index], letters[index - 1] if rng.random() < 0.5 else ""
    return "".join(letters)
