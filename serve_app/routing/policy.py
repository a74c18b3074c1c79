"""The decision: guards, then rules, then the score against the threshold. Pure."""

from collections.abc import Set
from dataclasses import dataclass, replace

from serve_app.domain import NO_SCORE, Decision, Features, Mode, Reason, Request, Score, Tier


@dataclass(frozen=True, slots=True)
class Policy:
    """What is in force right now; made anew from `settings.Live` whenever that changes."""

    threshold: float
    math_code_heuristic: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)

    def effective_threshold(self, request: Request) -> float:
        """The request's own threshold inside the bounds, or the one in force."""
        if request.threshold is None:
            return self.threshold
        low, high = self.bounds
        return min(max(request.threshold, low), high)


def decide_early(policy: Policy, request: Request, available: Set[Tier] = frozenset(Tier)) -> Decision | None:
    """A decision that needs no score, or None. It is made before any model is asked."""
    threshold = policy.effective_threshold(request)
    if request.explicit_tier is not None:
        return Decision(request.explicit_tier, request.explicit_reason, threshold, features=request.features)
    if policy.math_code_heuristic and request.features.math_or_code:
        return _settle(Tier.LARGE, Reason.HEURISTIC_MATH_CODE, threshold, NO_SCORE, features=request.features, available=available)
    return None


def decide(policy: Policy, request: Request, score: Score, available: Set[Tier] = frozenset(Tier)) -> Decision:
    """The score against the threshold; without a score the large tier, since paying more beats failing.

    A score exactly at the threshold goes to the large tier.
    """
    threshold = policy.effective_threshold(request)
    if score.value is None:
        return _settle(Tier.LARGE, Reason.FALLBACK_ROUTER_ERROR, threshold, score, features=request.features, available=available)
    if score.value >= threshold:
        return _settle(Tier.LARGE, Reason.SCORE_ABOVE, threshold, score, features=request.features, available=available)
    return _settle(Tier.SMALL, Reason.SCORE_BELOW, threshold, score, features=request.features, available=available)


def in_conversation(decision: Decision, hardest_before: float | None, available: Set[Tier] = frozenset(Tier)) -> Decision:
    """Keep the large tier when one of the turns before needed it."""
    decision = replace(decision, conversation=hardest_before)
    if decision.tier is Tier.LARGE or hardest_before is None or hardest_before < decision.threshold or Tier.LARGE not in available:
        return decision
    return replace(decision, tier=Tier.LARGE, reason=Reason.CONVERSATION)


def _settle(tier: Tier, reason: Reason, threshold: float, score: Score, *, features: Features, available: Set[Tier]) -> Decision:
    """Use the other tier when the chosen one has no replica: a small answer now, or a large one that costs more."""
    if tier not in available and tier.other in available:
        return Decision(tier.other, Reason.TIER_UNAVAILABLE, threshold, score, Mode.NORMAL, features)
    return Decision(tier, reason, threshold, score, Mode.NORMAL, features)
