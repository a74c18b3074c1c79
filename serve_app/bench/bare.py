"""The least that a Ray Serve endpoint does: an HTTP ingress that hands the body to an engine's deployment and its answer back."""

import itertools
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from serve_app.bench import canned

api = FastAPI()


@serve.deployment(name="BareEngine", max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.02})
class BareEngine:
    """The canned generator behind a handle."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    async def chat(self, body: dict[str, Any]) -> AsyncGenerator[Any]:
        request_id, model, tokens = f"chatcmpl-{next(self._numbers)}", str(body["model"]), canned.tokens_of(body)
        if not body.get("stream"):
            yield canned.answer(request_id, model, tokens)
            return
        async for event in canned.paced(canned.events(request_id, model, tokens), canned.INTERVAL_S):
            yield event


@serve.deployment(name="BareIngress", max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.02})
@serve.ingress(api)
class BareIngress:
    """No scoring, no policy, no records."""

    def __init__(self, engine: DeploymentHandle[Any]) -> None:
        self._engine = engine.options(stream=True)

    @api.post("/v1/chat/completions")
    async def chat(self, request: Request) -> Any:
        body = await request.json()
        items = self._engine.chat.remote(body)
        if body.get("stream"):
            return StreamingResponse(items, media_type="text/event-stream")
        return JSONResponse(await anext(aiter(items)))


def build(args: dict[str, Any]) -> Application:
    """What `import_path: serve_app.bench.bare:build` names; it takes no arguments."""
    del args
    return BareIngress.bind(BareEngine.bind())  # type: ignore[attr-defined]  # what serve.deployment makes
