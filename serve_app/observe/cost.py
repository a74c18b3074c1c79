"""Token prices to dollars. Pure."""

from collections.abc import Iterable, Mapping

from serve_app.domain import Attempt, Outcome, Tier, Usage
from serve_app.settings import TokenPrice

PER_MILLION = 1_000_000
DIGITS = 12  # rounded here, once, so that every place shows the same figure


def dollars(usage: Usage, price: TokenPrice) -> float:
    """Cost of `usage` in US dollars; `price` is per million tokens. Cached prompt tokens cost what all others do."""
    return round((usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / PER_MILLION, DIGITS)


def total(attempts: Iterable[Attempt]) -> float:
    return round(sum(attempt.cost_usd for attempt in attempts), DIGITS)


def all_large(attempts: tuple[Attempt, ...], prices: Mapping[Tier, TokenPrice]) -> float:
    """What the same answer would have cost at the large tier: the tokens of the attempt that the client got.

    Failed attempts before it are not part of it: an all-large service would not have made them. When nothing was
    answered, the counterfactual is what was spent, so that a failure shows neither a saving nor a loss.
    """
    answered = [a for a in attempts if a.outcome in (Outcome.OK, Outcome.CANCELLED)]
    return dollars(answered[-1].usage, prices[Tier.LARGE]) if answered else total(attempts)
