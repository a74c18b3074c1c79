"""Why a decision is what it is, computed from its receipt when somebody asks: also from a receipt of an earlier version. Pure."""

from serve_app.domain import Json, Reason, Tier

BY_SCORE = frozenset({Reason.SCORE_ABOVE, Reason.SCORE_BELOW, Reason.CAPACITY, Reason.NOVELTY, Reason.CONVERSATION, Reason.TOOL_LOOP})
GUARDS = frozenset({Reason.GUARD_CONTEXT, Reason.GUARD_CAPABILITY, Reason.GUARD_POLICY})
DIGITS = 6


def explained(receipt: Json) -> Json:
    """The receipt, and `why`: signals with their weights, what would have turned the decision, guards, and seconds by stage."""
    return {**receipt, "why": {**of(receipt["decision"]), "stages": stages(receipt)}}


def of(decision: Json) -> Json:
    """`decision` as a receipt holds it."""
    score, reason = decision["score"], decision["reason"]
    return {
        "signals": signals(decision),
        "score": score["value"],
        "threshold": decision["threshold"],
        "margin": decision["margin"],
        "flip": flip(decision),
        "guards": {"allowed": decision["allowed"], "reason": reason if reason in GUARDS else None},
    }


def signals(decision: Json) -> list[Json]:
    """Each with its value in [0, 1], its weight in the score, its state and its seconds. A weight of None: it is no part of a sum."""
    score = decision["score"]
    weights = _weights(score)
    found = [
        {"name": name, "value": score[name], "weight": weights[name], "state": score[f"{name}_state"], "seconds": score[f"{stage}_seconds"]}
        for name, stage in (("embedding", "embed"), ("assessment", "assess"))
    ]
    rest = {"p_small_right": score.get("p_small"), "p_large_right": score.get("p_large"), "novelty": score.get("novelty")}
    rest |= {"conversation": decision.get("conversation"), "capacity": decision.get("shift") or None}
    return found + [{"name": name, "value": value, "weight": None} for name, value in rest.items() if value is not None]


def flip(decision: Json) -> Json | None:
    """What would have sent the request to the other tier, all else unchanged; None where no score decided.

    `threshold`: the bound from which on it would have, `above` it for the small tier, `at_most` it for the large one. `signals`: the
    value that one signal would have had to have, where there is such a value in [0, 1]; of `novelty`, which decided, the highest
    value that would not have moved the threshold.
    """
    if decision["reason"] not in BY_SCORE or decision["score"]["value"] is None:
        return None
    large = (decision.get("chosen") or decision["tier"]) == Tier.LARGE
    before = decision.get("conversation")
    held = None if before is None else before + decision.get("shift", 0.0)  # capacity does not move what a conversation needs
    novel = decision.get("novel") or {"lowered": 0.0}
    score, threshold = decision["score"]["value"] + novel["lowered"], decision["threshold"]
    bound = score if held is None else max(score, held)
    kept = held is not None and held >= threshold  # large whatever this turn's signals say
    return {
        "to": (Tier.SMALL if large else Tier.LARGE).value,
        "threshold": {"above" if large else "at_most": round(bound, DIGITS)},
        "signals": {} if kept else _needed(decision, threshold - novel["lowered"]),
    }


def stages(receipt: Json) -> Json:
    """Seconds: of the decision's parts, then from its end to each attempt's start, first token and end, counted from arrival."""
    decision, score = receipt["decision"], receipt["decision"]["score"]
    return {
        "guards": decision.get("guard_seconds"),
        "embedding": score["embed_seconds"],
        "assessment": score["assess_seconds"],
        "conversation": decision.get("conversation_seconds"),
        "decision": receipt["overhead_seconds"],
        "attempts": [{name: attempt[name] for name in ("tier", "started", "first_token", "ended")} for attempt in receipt["attempts"]],
        "total": receipt["total_seconds"],
    }


def _weights(score: Json) -> dict[str, float | None]:
    """Earlier receipts do not tell the weight of two signals; one alone has all of it."""
    both = score["embedding"] is not None and score["assessment"] is not None
    weight = score.get("embedding_weight") if both else float(score["embedding"] is not None)
    if weight is None or (score["embedding"] is None and score["assessment"] is None):
        return {"embedding": None, "assessment": None}
    return {"embedding": weight, "assessment": round(1.0 - weight, DIGITS)}


def _needed(decision: Json, threshold: float) -> Json:
    """A prompt that is not novel is held against the plain threshold: at which novelty it would have gone the other way."""
    score = decision["score"]
    weights, found = _weights(score), {}
    for name, weight in weights.items():
        value = score[name]
        if weight and value is not None:
            needed = value + (threshold - score["value"]) / weight
            if 0.0 <= needed <= 1.0:
                found[name] = round(needed, DIGITS)
    if decision["reason"] == Reason.NOVELTY:
        found["novelty"] = decision["novel"]["above"]
    return found
