"""Rankings of the same rows next to each other: per benchmark, pooled, and as the mean over benchmarks. Pure numpy.

`OURS` is compared with each other one on the same resamples of rows, so that the interval is of the difference itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve_app.domain import Json
from serve_app.evaluate import routing_metrics as metrics
from serve_app.evaluate.routing_metrics import Interval, Outcomes, Vector
from serve_app.routing import features

OURS = "ours"
SHARES = (0.1, 0.15, 0.3, 0.5, 0.7)
KEPT = (95, 99)
ENOUGH_ROWS, ENOUGH_GAP = 300, 0.03  # with less of either, APGR divides noise by nearly nothing
MEANINGFUL = f"mean of the benchmarks with at least {ENOUGH_ROWS} rows and a gap of at least {ENOUGH_GAP}"
_HARD = re.compile(
    r"\b(?:why|explain how|prove|derive|step by step|compare|analy[sz]e|design|evaluate|calculate|how many|debug|implement|optimi[sz]e)\b",
    re.IGNORECASE,
)
Drawn = dict[str, Vector]


@dataclass(frozen=True)
class Ranking:
    """A score of each row; the probabilities only where there are any."""

    scores: Vector
    weak: Vector | None = None
    strong: Vector | None = None

    def take(self, index: Any) -> "Ranking":
        return Ranking(self.scores[index], *(None if one is None else one[index] for one in (self.weak, self.strong)))


def baselines(prompts: Sequence[str], outcomes: Outcomes) -> dict[str, Ranking]:
    """What needs no fitting and no model. `oracle` knows the outcomes: the most there is to have."""
    return {
        "random": Ranking(metrics.random_scores(len(prompts))),
        "length": Ranking(np.array([len(prompt) for prompt in prompts], dtype=np.float64)),
        "keywords": Ranking(np.array([keywords(prompt) for prompt in prompts])),
        "oracle": Ranking(metrics.oracle_scores(outcomes)),
    }


def keywords(prompt: str) -> float:
    """A rule by hand: marks of code and mathematics, and words that ask for thought."""
    found = features.from_text(prompt)
    marks = sum((found.code, found.math, found.asks_code, found.asks_math))
    return marks + min(len(_HARD.findall(prompt)), 3) / 4


def compare(rankings: Mapping[str, Ranking], outcomes: Outcomes, benchmarks: Sequence[str], *, price_ratio: float, seed: int = 0) -> Json:
    """Figures of each ranking; `price_ratio` is a small token's price over a large one's."""
    names = np.array(benchmarks, dtype=object)
    parts: dict[str, Json] = {}
    drawn: dict[str, Drawn] = {}
    for name in sorted(set(benchmarks)):
        index = np.flatnonzero(names == name)
        some = {label: ranking.take(index) for label, ranking in rankings.items()}
        parts[name or "-"], drawn[name or "-"] = _figures(some, outcomes.take(index), price_ratio=price_ratio, seed=seed)
    pooled, _ = _figures(rankings, outcomes, price_ratio=price_ratio, seed=seed)
    large = {name: part for name, part in parts.items() if part["rows"] >= ENOUGH_ROWS and part["strong"] - part["weak"] >= ENOUGH_GAP}
    both = {"macro": _macro(parts, drawn, list(rankings)), "macro_meaningful": _macro(large, drawn, list(rankings))}
    return {"benchmarks": parts, "pooled": pooled, **both}


def _figures(rankings: Mapping[str, Ranking], outcomes: Outcomes, *, price_ratio: float, seed: int) -> tuple[Json, Drawn]:
    scores = {name: ranking.scores for name, ranking in rankings.items()}
    drawn = metrics.bootstrap(scores, outcomes, seed=seed)
    areas = {name: metrics.apgr(one, outcomes) for name, one in scores.items()}
    methods = {
        name: {
            "apgr": as_json(metrics.interval(areas[name], drawn[name])),
            **_single(ranking, outcomes, price_ratio),
            "ours_minus": _difference(areas, drawn, name),
        }
        for name, ranking in rankings.items()
    }
    ours = rankings[OURS].scores
    shares = {f"{share:g}": round(float(np.mean(ours >= 1.0 - share)), 4) for share in SHARES}
    means = {"weak": round(float(outcomes.weak.mean()), 4), "strong": round(float(outcomes.strong.mean()), 4)}
    return {"rows": len(ours), **means, "methods": methods, "realised_shares": shares}, drawn


def _single(ranking: Ranking, outcomes: Outcomes, price_ratio: float) -> Json:
    scores, wrong = ranking.scores, metrics.weak_is_wrong(outcomes)
    shares = {kept: metrics.share_for_quality(scores, outcomes, kept / 100) for kept in KEPT}
    by_difficulty = scores if ranking.weak is None else -ranking.weak
    found = {
        "cpt_50": metrics.cpt(scores, outcomes, 0.5),
        "cpt_80": metrics.cpt(scores, outcomes, 0.8),
        "auc_strong_wins": metrics.roc_auc(scores, metrics.strong_wins(outcomes)),
        "auc_weak_wrong": metrics.roc_auc(by_difficulty, wrong),
        **{f"saved_{kept}": metrics.cost_saved(share, price_ratio, 1.0) for kept, share in shares.items()},
        "ece_small": _error(ranking.weak, outcomes.weak),
        "ece_large": _error(ranking.strong, outcomes.strong),
    }
    return {name: number(value) for name, value in found.items()}


def _error(predicted: Vector | None, outcome: Vector) -> float:
    return float("nan") if predicted is None else metrics.calibration_error(predicted, outcome)


def _difference(areas: Mapping[str, float], drawn: Drawn, name: str) -> Json | None:
    if name == OURS:
        return None
    return as_json(metrics.interval(areas[OURS] - areas[name], drawn[OURS] - drawn[name]))


def _macro(parts: Mapping[str, Json], drawn: Mapping[str, Drawn], names: list[str]) -> Json:
    """The mean over benchmarks where the strong model is better; its interval resamples the rows of each."""
    with_gap = [one for one, part in parts.items() if part["methods"][OURS]["apgr"]["value"] is not None]
    if not with_gap:
        return {}
    found = {}
    for name in names:
        values = [parts[one]["methods"][name]["apgr"]["value"] for one in with_gap]
        mean = {label: np.nanmean([drawn[one][label] for one in with_gap], axis=0) for label in {name, OURS}}
        ours = float(np.mean([parts[one]["methods"][OURS]["apgr"]["value"] for one in with_gap]))
        area, rest = float(np.mean(values)), ("cpt_50", "cpt_80", "auc_strong_wins", "auc_weak_wrong", "saved_95", "saved_99")
        found[name] = {
            "apgr": as_json(metrics.interval(area, mean[name])),
            **{key: number(metrics.macro([_float(parts[one]["methods"][name][key]) for one in with_gap])) for key in rest},
            "ours_minus": None if name == OURS else as_json(metrics.interval(ours - area, mean[OURS] - mean[name])),
        }
    return {"benchmarks": len(with_gap), "methods": found}


def as_json(interval: Interval) -> Json:
    return {"value": number(interval.value), "low": number(interval.low), "high": number(interval.high)}


def number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else round(float(value), 4)


def _float(value: float | None) -> float:
    return float("nan") if value is None else value
