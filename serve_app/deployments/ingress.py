"""The gateway's deployment: builds the pipeline over Serve's handles and follows its `user_config`. No vLLM in here."""

import asyncio
import hashlib
import hmac
import logging
import os
import random
import secrets
from collections.abc import Coroutine
from typing import Any, TypeAlias

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.calibrations import named
from serve_app.deployments.clients import HandleAssessor, HandleEmbedder, HandleEngine, HandleLedger, ReplicaWatch, SystemClock
from serve_app.domain import Json, Tier
from serve_app.embedding import identity
from serve_app.errors import SettingsError
from serve_app.failover import Failover
from serve_app.gateway import auth
from serve_app.gateway.app import Gateway, create_app
from serve_app.gateway.translate import Translator
from serve_app.guard import Guard
from serve_app.observe.metrics import Metrics, RayBackend
from serve_app.pipeline import InForce, Pipeline
from serve_app.ports import Clock, Engines
from serve_app.routing.guards import TierLimits
from serve_app.routing.policy import Policy
from serve_app.routing.score import Calibration
from serve_app.scoring import Scorer
from serve_app.settings import Live, Settings, TierSettings, parse_live

log = logging.getLogger(__name__)
REFRESH_S = 1.0
Handle: TypeAlias = DeploymentHandle[Any]
HASH_KEY_ENV = "TIERWISE_HASH_KEY"


@serve.ingress()
class Ingress:
    """Owns what is in force (`reconfigure` replaces it as a whole) and the background tasks of this replica."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it in the replica's loop
        self, settings: Settings, *, embedder: Handle, router_llm: Handle, small: Handle, large: Handle, ledger: Handle
    ) -> None:
        self._settings = settings
        self._calibration = named(settings.router.calibration, identity(settings.embedder))
        self._in_force = in_force(settings.live, self._calibration)
        clock = SystemClock()
        self._failover = Failover(settings.failures, clock, random.random)
        metrics = Metrics(RayBackend())
        watched = {"small": small, "large": large, "embedder": embedder, "router_llm": router_llm}
        watches = {name: ReplicaWatch(handle, clock) for name, handle in watched.items()}
        engines = {
            Tier.SMALL: HandleEngine(settings.small.model.id, small, watches["small"]),
            Tier.LARGE: HandleEngine(settings.large.model.id, large, watches["large"]),
        }
        records = self._records = HandleLedger(ledger, queue=settings.ledger.queue, batch=settings.ledger.batch, on_drop=metrics.dropped)
        scorer = Scorer(
            embedder=HandleEmbedder(embedder),
            assessor=HandleAssessor(router_llm),
            calibration=self._calibration,
            settings=settings.router,
            observer=metrics,
            clock=clock,
            router_model=settings.router_llm.model.id,
        )
        self._gateway = Gateway(
            settings=settings,
            pipeline=self._pipeline(scorer, engines, records, metrics, clock=clock),
            engines=engines,
            ledger=records,
            clock=clock,
            translator=Translator(settings),
            in_force=lambda: self._in_force,
            calibration=lambda: self._calibration.sha256,
            breakers=self._failover.states,
            signals={name: watches[name].ready for name in ("embedder", "router_llm")},
            authenticate=_authenticator(settings),
        )
        self._tasks = [_background(records.run()), _background(_refresh(list(watches.values())))]

    def _pipeline(self, scorer: Scorer, engines: Engines, ledger: HandleLedger, metrics: Metrics, *, clock: Clock) -> Pipeline:
        settings = self._settings
        return Pipeline(
            scorer=scorer,
            engines=engines,
            prices={Tier.SMALL: settings.small.price, Tier.LARGE: settings.large.price},
            ledger=ledger,
            observer=metrics,
            clock=clock,
            timeouts=settings.timeouts,
            failover=self._failover,
            guard=Guard(engines, {Tier.SMALL: _limits(settings.small), Tier.LARGE: _limits(settings.large)}),
            in_force=lambda: self._in_force,
            fingerprint=Fingerprint(os.environ.get(HASH_KEY_ENV) or secrets.token_hex(16)),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._gateway)

    def reconfigure(self, user_config: Json) -> None:
        """Serve hands over the whole `user_config` anew; a bad one is refused as a whole and the old one stays."""
        try:
            self._in_force = in_force(parse_live(self._settings.live, user_config), self._calibration)
        except SettingsError as error:
            log.error("user_config refused, the old one stays in force: %s", "; ".join(error.problems))

    async def __del__(self) -> None:
        """A leaving replica hands over the records that are still on their way."""
        await self._records.flush()

    async def check_health(self) -> None:
        """Serve replaces a replica whose background tasks have died."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError("a background task of the ingress stopped")


def _limits(tier: TierSettings) -> TierLimits:
    return TierLimits(tier.max_model_len, tier.supports)


class Fingerprint:
    """A keyed hash of a prompt: equal prompts can be found, but none can be guessed from the ledger without the key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def __call__(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def in_force(live: Live, calibration: Calibration) -> InForce:
    threshold = calibration.threshold if live.threshold == "auto" else live.threshold
    return InForce(live, Policy(threshold=threshold, math_code_heuristic=live.math_code_heuristic))


def _authenticator(settings: Settings) -> Any:
    if settings.auth.mode == "open":
        return auth.open_to_all
    keys = [key.strip() for key in os.environ.get(settings.auth.keys_env, "").split(",") if key.strip()]
    if not keys:
        raise SettingsError([f"args.auth.keys_env: the environment variable {settings.auth.keys_env} holds no keys"])
    return auth.bearer(keys)


def _background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work)


async def _refresh(watches: list[ReplicaWatch]) -> None:
    while True:
        await asyncio.gather(*(watch.refresh() for watch in watches))
        await asyncio.sleep(REFRESH_S)
