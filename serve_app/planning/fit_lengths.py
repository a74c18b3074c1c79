"""Fit the packaged answer lengths: `python -m serve_app.planning.fit_lengths FILE`. Prints the fit's distance beside a lognormal's.

FILE holds arena-hard's published answers (lmarena/arena-hard-auto, Apache-2.0): rows with `out_tokens_8b` and `out_tokens_70b`.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy import stats

from serve_app.domain import Json, Tier
from serve_app.planning.lengths import LEVELS, PACKAGED, Floats, distance, fit

COLUMNS = {Tier.SMALL: "out_tokens_8b", Tier.LARGE: "out_tokens_70b"}
MODELS = {Tier.SMALL: "Llama-3.1-8B-Instruct", Tier.LARGE: "Llama-3.1-70B-Instruct"}


def goodness(values: Floats, rng: np.random.Generator, repeats: int = 50) -> tuple[float, float]:
    """The mean distance of one half of the sample from what was fitted on the other: by quantiles, and by a lognormal."""
    found = []
    for _ in range(repeats):
        shuffled = rng.permutation(values)
        here, there = shuffled[: len(values) // 2], shuffled[len(values) // 2 :]
        logs = np.log(np.maximum(here, 1.0))
        lognormal = stats.kstest(there, "lognorm", args=(logs.std(), 0, np.exp(logs.mean()))).statistic
        found.append((distance(list(there), fit(list(here))), float(lognormal)))
    by_quantiles, by_lognormal = np.mean(found, axis=0)
    return float(by_quantiles), float(by_lognormal)


def main(path: Path) -> Json:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    out: Json = {"source": "arena-hard-auto v0.1 answers (Apache-2.0), quantiles of output tokens", "levels": list(LEVELS)}
    for tier, column in COLUMNS.items():
        values = np.array([row[column] for row in rows if row[column] is not None], dtype=np.float64)
        ours, lognormal = goodness(values, np.random.default_rng(0))
        out[tier.value] = {"model": MODELS[tier], "answers": len(values), "tokens": list(fit(list(values)).values)}
        out[tier.value] |= {
            "mean": round(float(values.mean()), 1),
            "ks_held_out": round(ours, 4),
            "ks_held_out_lognormal": round(lognormal, 4),
        }
        print(f"{MODELS[tier]}: {len(values)} answers, held-out distance {ours:.3f} by quantiles, {lognormal:.3f} by a lognormal")
    return out


if __name__ == "__main__":
    target = Path(__file__).parent / "data" / PACKAGED
    target.write_text(json.dumps(main(Path(sys.argv[1])), indent=1) + "\n", encoding="utf-8")
