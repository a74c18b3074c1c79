"""`POST /v1/feedback`: how good somebody found an answer, kept beside its decision. `calibrate --from-ledger` learns from it."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from serve_app.domain import Feedback, Json, Tier
from serve_app.errors import RequestError
from serve_app.gateway import document, errors, openai
from serve_app.gateway.body import read_json
from serve_app.gateway.reading import receipt_of

if TYPE_CHECKING:
    from serve_app.gateway.app import Gateway

MAX_COMMENT = 2000
UNLEARNED = "Prompts are not stored (ledger.store_prompts): this counts and is shown, but no calibration can learn from it."


class FeedbackBody(openai.Fields):
    """One of `score` and `good`."""

    decision_id: str = Field(max_length=64, description="As the answer's `tierwise.decision_id` or `x-tierwise-decision-id` tells it.")
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(default=None, description="0: useless, 1: perfect.")
    good: bool | None = Field(default=None, description="True is a score of 1, false of 0.")
    comment: Annotated[str, Field(max_length=MAX_COMMENT)] | None = Field(default=None, description="Kept as long as prompts are.")


class Kept(BaseModel):
    """The answer's shape, for the document."""

    object: Literal["feedback"]
    decision_id: str
    tier: Tier
    score: float
    good: bool
    created: float
    note: str | None = Field(description="Why nothing can be learnt from it, if so.")


def install(app: FastAPI, gateway: "Gateway", guard: list[Any]) -> None:
    documented = document.written(FeedbackBody, Kept, "It is kept.")

    @app.post("/v1/feedback", dependencies=guard, **documented)
    async def feedback(request: HttpRequest) -> JSONResponse:
        """Say how good an answer was: a key of its own decisions, an admin key of any. What the same key said before is replaced."""
        caller = request.state.caller
        body = await read_json(request, caller.limits)
        score = _score(body)
        receipt = await receipt_of(gateway, body["decision_id"], caller.client)
        given = Feedback(
            decision_id=receipt["id"],
            created=gateway.clock.now(),
            tier=Tier(receipt["decision"]["tier"]),
            score=score,
            comment=body.get("comment"),
            by=caller.client.key,
            key=receipt.get("key"),
            session=receipt.get("session"),
        )
        await gateway.ledger.feedback(given)
        gateway.observer.told(given)
        return JSONResponse(_kept(given, stored=gateway.settings.ledger.store_prompts), headers=errors.SCHEMA_HEADER)


def _score(body: Json) -> float:
    """Raises `RequestError` for a body that is not as documented."""
    openai.check(FeedbackBody, body)
    score, good = body.get("score"), body.get("good")
    if (score is None) == (good is None):
        raise RequestError("score: give either score or good, one of the two.", code="invalid_value", param="score")
    return float(good or 0.0) if score is None else float(score)


def _kept(given: Feedback, *, stored: bool) -> Json:
    return {
        "object": "feedback",
        "decision_id": given.decision_id,
        "tier": given.tier.value,
        "score": given.score,
        "good": given.good,
        "created": given.created,
        "note": None if stored else UNLEARNED,
    }
