"""A label artefact with heads, fitted on a hundred made-up requests; its embedder is a function that knows a little of the label."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from serve_app.domain import Tier
from serve_app.routing import fit_label
from serve_app.routing.calibrate import fit as fit_centroids
from serve_app.routing.calibrate import with_heads
from serve_app.routing.score import Calibration

DIM = 8
THINGS = ("the lamp", "a river", "our choir", "bread", "the number seven", "a lever", "the pond", "copper", "that garden", "winter")
EASY = ("translate {} into german", "what is the capital near {}", "thanks for {}", "summarise {} in one line", "spell {}")
HARD = (
    "prove that {} is finite",
    "derive the law behind {}",
    "why does {} fail at scale",
    "design a service for {}",
    "debug {}, it crashes",
)


def rows() -> fit_label.Labels:
    pairs = [(form, thing) for thing in THINGS for form in (*EASY, *HARD)]
    texts = [form.format(thing) for form, thing in pairs]
    tiers = [Tier.LARGE if form in HARD else Tier.SMALL for form, _ in pairs]
    return fit_label.Labels(texts, tiers, [form.split()[0] for form, _ in pairs])


def embed(views: Sequence[str]) -> npt.NDArray[np.float32]:
    """Unit vectors that know nothing of the text but a little of its label."""
    found = []
    for view in views:
        vector = np.random.default_rng(len(view)).normal(size=DIM)
        vector[0] += 3.0 if any(view.startswith(form.split()[0]) for form in HARD) else -3.0
        found.append(vector / np.linalg.norm(vector))
    return np.asarray(found, dtype=np.float32)


@cache
def fitted() -> Calibration:
    prepared = fit_label.prepare(rows(), embed)
    return with_heads(fit_centroids(prepared.vectors, rows().tiers, embedder="fake"), prepared, seed=0)
