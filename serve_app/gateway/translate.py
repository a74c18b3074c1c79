"""Between HTTP and the domain: request bodies and headers in, headers and receipts out. Nothing inbound is trusted."""

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict

from serve_app.domain import Client, Decision, Json, Kind, Reason, Request, Score, Tier, Trace
from serve_app.errors import Forbidden, NotFound, RequestError
from serve_app.gateway import openai
from serve_app.gateway.auth import Caller
from serve_app.observe import receipt, why
from serve_app.routing import conversation, features
from serve_app.settings import Settings

AUTO = "auto"
MAX_SESSION_CHARS = 256
MAX_EARLIER = 16
DECISION_ID = re.compile(r"tw-[0-9a-f]{32}")
NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]{1,20})?")


class Translator:
    """Turns bodies into `Request`s. Owns the table of names under which models may be asked for. `begin` starts traces, if any."""

    def __init__(self, settings: Settings, begin: Callable[[Mapping[str, str]], Trace] | None = None) -> None:
        self._begin = begin
        self._tiers = {
            Tier.SMALL.value: Tier.SMALL,
            Tier.LARGE.value: Tier.LARGE,
            settings.small.model.id: Tier.SMALL,
            settings.large.model.id: Tier.LARGE,
        }

    def names(self, client: Client) -> list[str]:
        """What `client` may put into `model`."""
        return [AUTO, *(name for name, tier in self._tiers.items() if tier in client.tiers)]

    def generation(self, request_id: str, kind: Kind, body: Json, headers: Mapping[str, str], caller: Caller) -> Request:
        """A chat or completion request. Raises `RequestError`, `Forbidden` or `NotFound`."""
        (openai.check_chat if kind == "chat" else openai.check_completion)(body, caller.limits)
        tier, reason = self._explicit(body.get("model", AUTO), headers, caller.client)
        engine_body = openai.engine_body(body, caller.limits)
        text = features.scored_text(engine_body)
        return Request(
            id=request_id,
            kind=kind,
            body=engine_body,
            text=text,
            features=features.from_body(text, engine_body),
            model=body.get("model", AUTO),
            stream=bool(body.get("stream")),
            include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
            explicit_tier=tier,
            explicit_reason=reason,
            threshold=_threshold(headers, caller.client),
            debug=headers.get("x-tierwise-debug", "").lower() == "true",
            earlier=conversation.earlier_turns(engine_body, MAX_EARLIER),
            tool_loop=conversation.is_tool_loop(engine_body),
            session=_session(headers),
            client=caller.client,
            trace=self._begin(headers) if self._begin is not None else None,
        )

    def route(self, request_id: str, body: Json, headers: Mapping[str, str], caller: Caller) -> Request:
        """The dry run of `/route`: the context stands behind the prompt, where truncation costs least."""
        openai.check_route(body, caller.limits)
        if body.get("messages") is not None:
            text = features.scored_text(body)
        else:
            text = "\n\n".join(part for part in (body.get("prompt"), body.get("context")) if part)
        if not text.strip() or (body.get("messages") is None and not body.get("prompt")):
            raise RequestError("prompt: must not be empty.", code="empty_prompt", param="prompt")
        facts = features.from_body(text, body)
        return Request(
            id=request_id,
            kind="chat",
            body=body,
            text=text,
            features=facts,
            model=AUTO,
            threshold=_threshold(headers, caller.client),
            earlier=conversation.earlier_turns(body, MAX_EARLIER),
            tool_loop=conversation.is_tool_loop(body),
            client=caller.client,
        )

    def _explicit(self, model: str, headers: Mapping[str, str], client: Client) -> tuple[Tier | None, Reason]:
        tier, reason = self._named(model, headers)
        if tier is not None and tier not in client.tiers:
            param = "model" if reason is Reason.EXPLICIT_MODEL else "x-tierwise-tier"
            raise Forbidden(f"This API key may not use the {tier.value} tier.", param=param)
        return tier, reason

    def _named(self, model: str, headers: Mapping[str, str]) -> tuple[Tier | None, Reason]:
        if model != AUTO:
            if model not in self._tiers:
                known = ", ".join([AUTO, *self._tiers])
                raise NotFound(f"The model {model!r} does not exist. Known: {known}.", code="model_not_found", param="model")
            return self._tiers[model], Reason.EXPLICIT_MODEL
        named = headers.get("x-tierwise-tier")
        if named is None:
            return None, Reason.EXPLICIT_TIER
        if named not in (Tier.SMALL, Tier.LARGE):
            raise RequestError("x-tierwise-tier: must be small or large.", code="invalid_value", param="x-tierwise-tier")
        return Tier(named), Reason.EXPLICIT_TIER


def new_id() -> str:
    """A decision's id, a `DECISION_ID`; random, so that nobody can guess another's."""
    return f"tw-{uuid.uuid4().hex}"


def _session(headers: Mapping[str, str]) -> str | None:
    """Starlette reads headers as Latin-1, clients write UTF-8; no database keeps a NUL."""
    session = headers.get("x-session-id", "").encode("latin-1").decode("utf-8", "replace")[:MAX_SESSION_CHARS]
    if "\0" in session:
        raise RequestError("x-session-id: must not hold a NUL.", code="invalid_value", param="x-session-id")
    return session or None


def _threshold(headers: Mapping[str, str], client: Client) -> float | None:
    """The request's own threshold, or else its key's."""
    given = headers.get("x-tierwise-threshold")
    if given is None:
        return client.threshold
    value = float(given) if NUMBER.fullmatch(given) else -1.0
    if not 0.0 <= value <= 1.0:
        raise RequestError("x-tierwise-threshold: must be a number from 0 to 1.", code="invalid_value", param="x-tierwise-threshold")
    return value


def decision_headers(request_id: str, decision: Decision, model: str, overhead_seconds: float) -> dict[str, str]:
    score = decision.score.value
    headers = {
        "x-tierwise-schema": "1",
        "x-tierwise-decision-id": request_id,
        "x-tierwise-tier": decision.tier.value,
        "x-tierwise-model": model,
        "x-tierwise-threshold": str(decision.threshold),
        "x-tierwise-reason": decision.reason.value,
        "x-tierwise-mode": decision.mode.value,
        "x-tierwise-overhead-ms": f"{overhead_seconds * 1000:.2f}",
    }
    return headers if score is None else {**headers, "x-tierwise-score": str(score)}


def signals(score: Score, decision: Decision) -> Json:
    """What the decision was made of, for `/route` and debug answers."""
    return {
        "embedding": {"score": score.embedding, "state": score.embedding_state.value, "ms": round(score.embed_seconds * 1000, 2)},
        "assessment": {"rating": score.assessment, "state": score.assessment_state.value, "ms": round(score.assess_seconds * 1000, 2)},
        "heads": {"p_small_right": score.p_small, "p_large_right": score.p_large, "novelty": score.novelty},
        "features": asdict(decision.features) if decision.features is not None else None,
        "calibration": score.calibration,
    }


def route_answer(request: Request, decision: Decision, seconds: float) -> Json:
    """`/route`'s body: the article's four fields and the receipt. `confidence` is the article's, capped at 1."""
    margin = decision.margin
    return {
        "tier": 1 if decision.tier is Tier.SMALL else 2,
        "confidence": 1.0 if margin is None else round(min(1.0, abs(margin) + 0.5), 6),
        "complexity_score": decision.score.value,
        "router_latency_ms": round(seconds * 1000, 2),
        "decision_id": request.id,
        "tier_name": decision.tier.value,
        "reason": decision.reason.value,
        "threshold": decision.threshold,
        "margin": None if margin is None else round(margin, 6),
        "signals": signals(decision.score, decision),
        "why": why.of(receipt.decided(decision)),
        "settings": decision.settings,
    }
