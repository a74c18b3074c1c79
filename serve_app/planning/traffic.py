"""Requests to come: drawn from a description of the traffic, by seed. Pure; numpy only.

The same seed gives the same requests whatever the routing, so that ways to route are compared on the same traffic.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.domain import Tier
from serve_app.planning.config import Traffic
from serve_app.planning.lengths import Floats, Quantiles, packaged

DAY_H, HOUR_S = 24.0, 3600.0
BUSIEST_H = 14.0
LONGEST_PROMPT = 16_384
ANY, TO_SMALL, TO_LARGE = -1, 0, 1  # `fixed`: a request that the score decides, or whose tier is given


@dataclass(frozen=True, slots=True)
class Asks:
    """Requests by columns, in the order of their times. Times are seconds from the window's start; scores and doubts lie in [0, 1].

    A request whose answer of the small tier is doubted has a `doubt` below the escalated share.
    """

    at: Floats
    prompt: Floats
    small: Floats
    large: Floats
    score: Floats
    doubt: Floats
    fixed: Floats

    def __len__(self) -> int:
        return len(self.at)


def shape(traffic: Traffic) -> Floats:
    """The rate of each hour of the day over the day's mean."""
    if traffic.hourly is not None:
        weights = traffic.hourly
    else:
        swing = (traffic.peak_to_trough - 1) / (traffic.peak_to_trough + 1)
        weights = [1 + swing * math.cos(2 * math.pi * (hour - BUSIEST_H) / DAY_H) for hour in range(24)]
    return np.array(weights, dtype=np.float64) / (sum(weights) / len(weights))


def factor(hourly: Floats, hour: float) -> float:
    """The rate at a time of day over the day's mean, linear between the hours."""
    return float(np.interp(hour % DAY_H, np.arange(DAY_H + 1), np.append(hourly, hourly[0])))


def mean_rate(traffic: Traffic, hours_per_month: float) -> float:
    """Requests a second over the month."""
    return traffic.requests_per_month / (hours_per_month * HOUR_S)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Means and spreads that sizing needs, and the distributions that requests are drawn from."""

    prompt_mu: float
    prompt_sigma: float
    answers: dict[Tier, Quantiles]

    @classmethod
    def of(cls, traffic: Traffic) -> "Lengths":
        """Raises `ValueError` where the mean answer is not below the longest."""
        mu = math.log(traffic.prompt_tokens) - traffic.prompt_spread**2 / 2
        bent = {tier: one.bent(traffic.output_tokens, traffic.longest_output) for tier, one in packaged().items()}
        return cls(mu, traffic.prompt_spread, bent)


def draw(lengths: Lengths, at: Floats, rng: np.random.Generator) -> Asks:
    """Requests at these times, of lengths and scores that are drawn."""
    ranks = rng.random(len(at))  # the same rank for both tiers: a prompt that gets a long answer from one gets one from the other
    prompt = np.exp(rng.normal(lengths.prompt_mu, lengths.prompt_sigma, len(at)))
    return Asks(
        at=at,
        prompt=np.clip(np.ceil(prompt), 1, LONGEST_PROMPT),
        small=np.ceil(lengths.answers[Tier.SMALL].at(ranks)),
        large=np.ceil(lengths.answers[Tier.LARGE].at(ranks)),
        score=rng.random(len(at)),
        doubt=rng.random(len(at)),
        fixed=np.full(len(at), ANY, dtype=np.float64),
    )


def times(traffic: Traffic, rate: float, start_h: float, seconds: float, rng: np.random.Generator) -> Floats:
    """Times of `seconds` from an hour of the day on, at a mean of `rate` a second over the day, in seconds from the start.

    A Poisson process whose rate follows the day, times a burst's factor (gamma, mean 1) that is redrawn each `burst_s`.
    """
    hourly, slots = shape(traffic), max(math.ceil(seconds / traffic.burst_s), 1)
    spread = traffic.burst_cv**2
    bursts = rng.gamma(1 / spread, spread, slots) if spread else np.ones(slots)
    found: list[Floats] = []
    for slot in range(slots):
        begins = slot * traffic.burst_s
        lasts = min(traffic.burst_s, seconds - begins)
        mean = rate * factor(hourly, start_h + (begins + lasts / 2) / HOUR_S) * float(bursts[slot]) * lasts
        found.append(np.sort(begins + lasts * rng.random(rng.poisson(mean))))
    return np.concatenate(found)


def hours(count: int) -> Sequence[float]:
    """The middles of `count` equal parts of the day."""
    return [(index + 0.5) * DAY_H / count for index in range(count)]
