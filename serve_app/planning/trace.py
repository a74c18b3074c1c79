"""Recorded traffic: arrival times, tokens, tiers and scores from the ledger's database. Never prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from serve_app.domain import Json, Tier
from serve_app.errors import RequestError, TierwiseError
from serve_app.observe import reader
from serve_app.observe.tables import decisions
from serve_app.planning.config import Traffic
from serve_app.planning.lengths import Floats
from serve_app.planning.traffic import ANY, DAY_H, HOUR_S, TO_LARGE, TO_SMALL, Asks

MOST = 200_000
FEWEST = 50
SCORED = ("score_above", "score_below", "capacity")  # the reasons that the score and the threshold decided


@dataclass(frozen=True, slots=True)
class Trace:
    """The latest recorded requests by columns, oldest first. `at` is Unix time; `fixed` as in `Asks`."""

    at: Floats
    prompt: Floats
    output: Floats
    score: Floats
    fixed: Floats
    threshold: float

    @property
    def span_s(self) -> float:
        return float(self.at[-1] - self.at[0])


def read(source: str) -> Trace:
    """`source` is an SQLAlchemy URL or a SQLite file. Raises `RequestError` in one line for what is no ledger, or has too little."""
    url = source if "://" in source else f"sqlite:///{Path(source).resolve()}"
    if "://" not in source and Path(source).is_dir():
        raise RequestError(f"{source}: a folder; needed is a ledger (a SQLite file or its URL) or a YAML file that describes the traffic")
    if "://" not in source and not Path(source).is_file():
        raise RequestError(f"{source}: no such file")
    columns = (decisions.c.created, decisions.c.prompt_tokens, decisions.c.completion_tokens, decisions.c.score)
    wanted = (
        sa.select(*columns, decisions.c.tier, decisions.c.reason, decisions.c.threshold)
        .where(decisions.c.outcome == "ok", decisions.c.completion_tokens > 0)
        .order_by(decisions.c.created.desc())
        .limit(MOST)
    )
    try:
        with reader.reading(url) as connection:
            rows = connection.execute(wanted).all()
    except TierwiseError:
        raise RequestError(f"{shown(source)}: cannot be read as a tierwise ledger") from None
    if len(rows) < FEWEST:
        raise RequestError(f"{shown(source)}: {len(rows)} finished requests, too few to plan with (at least {FEWEST})")
    return _columns(rows[::-1])


def shown(source: str) -> str:
    """Without its password."""
    try:
        return sa.engine.make_url(source).render_as_string(hide_password=True) if "://" in source else source
    except sa.exc.ArgumentError:
        return "the ledger's URL"


def _columns(rows: Sequence[Any]) -> Trace:
    at, prompt, output = (np.array([row[column] for row in rows], dtype=np.float64) for column in range(3))
    score = np.array([0.0 if row.score is None else row.score for row in rows])
    decided = np.array([row.score is not None and row.reason in SCORED for row in rows])
    given = np.array([TO_LARGE if row.tier == Tier.LARGE.value else TO_SMALL for row in rows], dtype=np.float64)
    return Trace(at, prompt, output, score, np.where(decided, float(ANY), given), float(np.median([row.threshold for row in rows])))


def burst_cv(trace: Trace, slot_s: float) -> float:
    """How much more the requests of a slot of time vary than Poisson's would, hour by hour: spread of the rate over its mean."""
    hours, spreads, means = (trace.at - trace.at[0]) // HOUR_S, list[float](), list[float]()
    for hour in np.unique(hours):
        inside = trace.at[hours == hour] - trace.at[0] - hour * HOUR_S
        counts = np.bincount((inside // slot_s).astype(int), minlength=int(min(HOUR_S, trace.span_s - hour * HOUR_S) // slot_s))
        if len(counts) > 2:
            spreads.append(float(counts.var(ddof=1)))
            means.append(float(counts.mean()))
    mean = float(np.mean(means)) if means else 0.0
    return float(np.sqrt(max(float(np.mean(spreads)) - mean, 0.0)) / mean) if mean else 0.0


def described(trace: Trace, traffic: Traffic, hours_per_month: float) -> Traffic:
    """The same traffic as means and a shape, for sizing and for the report; a day or more of it gives the hours' weights."""
    large = np.where(trace.fixed == ANY, trace.score >= trace.threshold, trace.fixed == TO_LARGE).mean()
    months = max(trace.span_s, 1.0) / (hours_per_month * HOUR_S)
    measured: Json = {
        "requests_per_month": len(trace.at) / months,
        "large_share": float(large),
        "prompt_tokens": float(max(trace.prompt.mean(), 1.0)),
        "output_tokens": float(max(trace.output.mean(), 1.0)),
        "longest_output": int(max(trace.output.max(), trace.output.mean() + 1, 2)),
        "burst_cv": min(burst_cv(trace, traffic.burst_s), 3.0),
    }
    if trace.span_s >= DAY_H * HOUR_S:
        measured["hourly"] = _hourly(trace)
    return Traffic.model_validate({**traffic.model_dump(), **measured})


def _hourly(trace: Trace) -> list[float]:
    """Requests an hour by the hour of the day, over the time that the trace has of each: its last day may be a part of one."""
    starts = np.arange(trace.at[0] // HOUR_S, trace.at[-1] // HOUR_S + 1) * HOUR_S
    inside = np.minimum(starts + HOUR_S, trace.at[-1]) - np.maximum(starts, trace.at[0])
    seen_s = np.bincount((starts // HOUR_S % DAY_H).astype(int), weights=inside, minlength=24)
    counts = np.bincount((trace.at // HOUR_S % DAY_H).astype(int), minlength=24)
    return [float(max(count, 0.5) * HOUR_S / max(seconds, 1.0)) for count, seconds in zip(counts, seen_s, strict=True)]


def drawn(trace: Trace, at: Floats, rng: np.random.Generator) -> Asks:
    """Requests at these times, each with the tokens and the score of a recorded one. Both tiers are taken to answer as long."""
    which = rng.integers(0, len(trace.at), len(at))
    output = np.maximum(trace.output[which], 1.0)
    return Asks(
        at=at,
        prompt=np.maximum(trace.prompt[which], 1.0),
        small=output,
        large=output,
        score=trace.score[which],
        doubt=rng.random(len(at)),
        fixed=trace.fixed[which],
    )
