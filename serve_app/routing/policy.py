"""The decision: guards, then rules, then the score against the threshold, then capacity and mode. Pure."""

import hashlib
from collections.abc import Set
from dataclasses import dataclass, replace

from serve_app.domain import NO_SCORE, Decision, Features, Mode, Novel, Reason, Request, Score, Tier
from serve_app.settings import Live, NoveltySettings

BY_SCORE = (
    Reason.SCORE_ABOVE,
    Reason.SCORE_BELOW,
    Reason.CAPACITY,
    Reason.NOVELTY,
    Reason.CONVERSATION,
    Reason.HEURISTIC_MATH_CODE,
)
UNMOVED = NoveltySettings(enabled=False)
EXPLICIT = (Reason.EXPLICIT_MODEL, Reason.EXPLICIT_TIER)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is in force right now; made anew from `settings.Live` whenever that changes. `shift` is what capacity adds."""

    threshold: float
    math_code_heuristic: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    shift: float = 0.0
    novelty: NoveltySettings = UNMOVED

    def static_threshold(self, request: Request) -> float:
        """The request's own threshold inside the bounds, or the one in force; without what capacity adds."""
        return self.threshold if request.threshold is None else self._inside(request.threshold)

    def effective_threshold(self, request: Request) -> float:
        """With what capacity adds: nothing where the request names its own."""
        return min(max(self.threshold + self.shift, 0.0), 1.0) if request.threshold is None else self._inside(request.threshold)

    def _inside(self, threshold: float) -> float:
        low, high = self.bounds
        return min(max(threshold, low), high)


def of_live(live: Live, threshold: float, shift: float = 0.0) -> Policy:
    """The policy that these settings make, beside the calibration's threshold."""
    threshold = threshold if live.threshold == "auto" else live.threshold
    return Policy(threshold=threshold, math_code_heuristic=live.math_code_heuristic, shift=shift, novelty=live.novelty)


def decide_early(policy: Policy, request: Request, available: Set[Tier] = frozenset(Tier)) -> Decision | None:
    """A decision that needs no score, or None. It is made before any model is asked.

    Who names the small tier gets the large one where that alone can answer; never the other way round.
    """
    threshold = policy.effective_threshold(request)
    if (named := request.explicit_tier) is not None:
        gone = named is Tier.SMALL and Tier.SMALL not in available and Tier.LARGE in available
        tier, reason = (Tier.LARGE, Reason.TIER_UNAVAILABLE) if gone else (named, request.explicit_reason)
        return Decision(tier, reason, threshold, features=request.features)
    if policy.math_code_heuristic and request.features.math_or_code:
        return _settle(Tier.LARGE, Reason.HEURISTIC_MATH_CODE, threshold, NO_SCORE, features=request.features, available=available)
    return None


def decide(policy: Policy, request: Request, score: Score, available: Set[Tier] = frozenset(Tier)) -> Decision:
    """The score against the threshold; without a score the large tier, since paying more beats failing.

    A score exactly at the threshold goes to the large tier. Where the static threshold says otherwise, capacity is the reason.
    """
    static, threshold = policy.static_threshold(request), policy.effective_threshold(request)
    if score.value is None:
        return _settle(Tier.LARGE, Reason.FALLBACK_ROUTER_ERROR, threshold, score, features=request.features, available=available)
    tier = _by_score(score.value, threshold)
    reason = Reason.SCORE_ABOVE if tier is Tier.LARGE else Reason.SCORE_BELOW
    if tier is not _by_score(score.value, static):
        reason = Reason.CAPACITY
    novel = novel_by(policy, request, score)
    if novel is not None and tier is not (held := _by_score(score.value, threshold - novel.lowered)):
        tier, reason = held, Reason.NOVELTY
    decision = _settle(tier, reason, threshold, score, features=request.features, available=available)
    return replace(decision, shift=threshold - static, novel=novel)


def novel_by(policy: Policy, request: Request, score: Score) -> Novel | None:
    """Whether the prompt is novel, and how much that moves the threshold: not at all where the request names its own."""
    rule = policy.novelty
    if score.novelty is None or score.novelty <= rule.above:
        return None
    moves = rule.enabled and request.threshold is None
    margin = rule.margin if Tier(rule.tier) is Tier.LARGE else -rule.margin
    return Novel(rule.above, margin if moves else 0.0)


def standing(policy: Policy, request: Request, score: Score) -> float | None:
    """An earlier turn's score as the threshold saw it: what novelty sent to the large tier stays there."""
    novel = novel_by(policy, request, score)
    return score.value if score.value is None or novel is None else min(max(score.value + novel.lowered, 0.0), 1.0)


def in_conversation(decision: Decision, hardest_before: float | None, available: Set[Tier] = frozenset(Tier)) -> Decision:
    """Keep the large tier when one of the turns before needed it: capacity does not move that."""
    decision = replace(decision, conversation=hardest_before)
    threshold = decision.threshold - decision.shift
    if decision.tier is Tier.LARGE or hardest_before is None or hardest_before < threshold or Tier.LARGE not in available:
        return decision
    return replace(decision, tier=Tier.LARGE, reason=Reason.CONVERSATION)


def of_the_turn(policy: Policy, request: Request) -> Policy:
    """In the middle of a tool loop a large tier that fills up does not drop the turn to the small one."""
    return replace(policy, shift=min(policy.shift, 0.0)) if request.tool_loop else policy


def in_mode(decision: Decision, request: Request, live: Live, available: Set[Tier] = frozenset(Tier)) -> Decision:
    """Shadow: the router's choice is kept, the default tier answers. Canary: only some sessions' easy requests go small.

    Neither touches what a guard, a fault or the client decided, nor names a tier that has no replica.
    """
    if live.mode == "normal" or decision.reason not in BY_SCORE:
        return decision
    if live.mode == "shadow":
        return _instead(decision, Tier(live.shadow_tier), Mode.SHADOW, available)
    if decision.tier is not Tier.SMALL:
        return decision
    inside = part_of(request.session or request.id) < live.canary_share
    return _instead(decision, Tier.SMALL if inside else Tier.LARGE, Mode.CANARY, available)


def part_of(name: str) -> float:
    """Where `name` falls in [0, 1): the same name always falls on the same place, so that a session stays on its side."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def _instead(decision: Decision, tier: Tier, mode: Mode, available: Set[Tier]) -> Decision:
    """`tier` answers where the guards allow it and a replica is there."""
    gone = tier not in available and decision.tier in available
    tier = tier if tier in decision.allowed and not gone else decision.tier
    return replace(decision, tier=tier, mode=mode, chosen=decision.tier)


def _by_score(value: float, threshold: float) -> Tier:
    return Tier.LARGE if value >= threshold else Tier.SMALL


def _settle(tier: Tier, reason: Reason, threshold: float, score: Score, *, features: Features, available: Set[Tier]) -> Decision:
    """Use the other tier when the chosen one has no replica: a small answer now, or a large one that costs more."""
    if tier not in available and tier.other in available:
        return Decision(tier.other, Reason.TIER_UNAVAILABLE, threshold, score, Mode.NORMAL, features)
    return Decision(tier, reason, threshold, score, Mode.NORMAL, features)
