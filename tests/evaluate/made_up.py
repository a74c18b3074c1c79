"""Made-up traffic whose truth is known, and an artefact that is fitted on it."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from serve_app.evaluate import fitting
from serve_app.evaluate.routing_metrics import Outcomes
from serve_app.routing.heads import Heads

EASY = ("Who wrote the novel about {}?", "What colour is a {}?", "Translate the word {} please")
HARD = ("Prove that the integral over {} converges if it is bounded", "Calculate the total cost of {} with tax and 12 percent rebate")
THINGS = ("apples", "rivers", "ships", "stars", "mice", "bread", "clouds", "trains", "sand", "music", "snow", "glass")


def traffic(rows: int = 240, seed: int = 1, signal: float = 0.6) -> tuple[list[str], Outcomes]:
    """Half of the prompts are hard: there the small model is right less often by `signal`."""
    random = np.random.default_rng(seed)
    hard = np.arange(rows) % 2 == 0
    texts = [
        random.choice(HARD if one else EASY).format(f"{random.choice(THINGS)} and {random.choice(THINGS)} {random.integers(99)}")
        for one in hard
    ]
    weak = random.random(rows) < np.where(hard, 0.9 - signal, 0.9)
    return texts, Outcomes(weak.astype(float), (random.random(rows) < 0.9).astype(float))


@cache
def fitted() -> Heads:
    return fitting.fit(*traffic(), source="made up")


def write(path: Path, *, rows: int = 240, seed: int = 1, signal: float = 0.6, benchmark: str | None = None) -> Path:
    """The same traffic as a file of outcome rows."""
    texts, outcomes = traffic(rows, seed, signal)
    named = {} if benchmark is None else {"benchmark": benchmark}
    lines = [
        json.dumps({"id": f"{benchmark}-{i}", "prompt": text, "weak_score": weak, "strong_score": strong, **named})
        for i, (text, weak, strong) in enumerate(zip(texts, outcomes.weak, outcomes.strong, strict=True))
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def embeddings(rows: int = 240, seed: int = 1) -> npt.NDArray[np.float32]:
    """Of `riddles`: the first number says whether a prompt is hard."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 6)) + np.where(np.arange(rows) % 2 == 0, 2.0, -2.0)[:, None] * np.eye(6)[0]
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def riddles(rows: int = 240, seed: int = 1) -> tuple[list[str], Outcomes]:
    """Prompts whose words say little of their outcomes: where they are hard, an exclamation mark is a little more frequent."""
    random = np.random.default_rng(seed)
    hard = np.arange(rows) % 2 == 0
    marks = random.random(rows) < np.where(hard, 0.7, 0.3)
    texts = [f"{random.choice(THINGS)} {random.choice(THINGS)} {i}{'!' * int(mark)}" for i, mark in enumerate(marks)]
    weak = random.random(rows) < np.where(hard, 0.2, 0.9)
    return texts, Outcomes(weak.astype(float), np.ones(rows))


@cache
def fitted_with_embeddings() -> Heads:
    """With evidence: an embedding says much more than the text."""
    texts, outcomes = riddles()
    return fitting.fit(texts, outcomes, embeddings=embeddings(), embedder="fake", source="made up")
