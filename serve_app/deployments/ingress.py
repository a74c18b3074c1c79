"""The gateway's deployment: builds the pipeline over Serve's handles and follows its `user_config`. No vLLM in here."""

import asyncio
import hashlib
import hmac
import logging
import os
import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.admission import Gate
from serve_app.attempts import Attempts
from serve_app.calibrations import named
from serve_app.deployments.artefacts import LiveCalibration, Shelf
from serve_app.deployments.clients import HandleAssessor, HandleEmbedder, HandleEngine, HandleLedger, ReplicaWatch, SystemClock
from serve_app.deployments.fleet import FleetWatch
from serve_app.domain import Json, Record, Tier
from serve_app.embedding import identity
from serve_app.errors import SettingsError
from serve_app.failover import Failover
from serve_app.gateway import auth
from serve_app.gateway.app import Gateway, create_app
from serve_app.gateway.translate import Translator
from serve_app.guard import Guard
from serve_app.mirror import Mirror
from serve_app.observe import logs
from serve_app.observe.drift import DriftMonitor
from serve_app.observe.metrics import Metrics, RayBackend
from serve_app.observe.tracing import Tracing
from serve_app.pipeline import InForce, Pipeline
from serve_app.ports import Engines, Ledger
from serve_app.recorder import Recorder
from serve_app.routing import capacity
from serve_app.routing.guards import TierLimits
from serve_app.routing.policy import of_live
from serve_app.routing.score import Artefact
from serve_app.scoring import Scorer
from serve_app.settings import EarlyExit, Live, Settings, TierSettings, check_live, parse_live
from serve_app.settings.digest import digest
from serve_app.waking import Starts, Waking

log = logging.getLogger(__name__)
REFRESH_S = 1.0
SETTLE_S = 5.0
SILENT_S = 2.5
START_S = 5.0  # of a new replica's first configuration, for an artefact that comes from the ledger
Handle: TypeAlias = DeploymentHandle[Any]
HASH_KEY_ENV = "TIERWISE_HASH_KEY"


@serve.ingress()
class Ingress:
    """Owns what is in force (`reconfigure` replaces it as a whole) and the background tasks of this replica."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it in the replica's loop
        self, settings: Settings, *, embedder: Handle, router_llm: Handle, small: Handle, large: Handle, ledger: Handle
    ) -> None:
        logs.configure()
        self._settings = settings
        self._clock = SystemClock()
        here = serve.get_replica_context()
        self._peers = ReplicaWatch(serve.get_deployment_handle(here.deployment, here.app_name), self._clock)
        self._live, self._shift = settings.live, capacity.ShiftState()
        self._metrics, self._tracing = Metrics(RayBackend()), Tracing.from_environment(os.environ)
        watched = {"small": small, "large": large, "embedder": embedder, "router_llm": router_llm}
        self._watches = {name: ReplicaWatch(handle, self._clock) for name, handle in watched.items()}
        self._fleets = FleetWatch(here.app_name, self._clock)
        self._starts = {Tier.SMALL: self._make_starts("small", small), Tier.LARGE: self._make_starts("large", large)}
        self._engines: Engines = {
            Tier.SMALL: self._engine(settings.small.model.id, small, Tier.SMALL),
            Tier.LARGE: self._engine(settings.large.model.id, large, Tier.LARGE),
        }
        self._waking = Waking(self._engines, settings.waking)
        self._prices = {Tier.SMALL: settings.small.price, Tier.LARGE: settings.large.price}
        self._failover = Failover(settings.failures, self._clock, random.random)
        self._gates = {tier: self._gate(tier) for tier in Tier}
        self._records = self._make_records(ledger)
        self._access = self._make_access(here.replica_id.unique_id)
        self._recorder = self._make_recorder(self._records)
        self._mirror = self._make_mirror(self._records)
        self._scorer, self._calibration = self._make_scorer(embedder, router_llm, ledger)
        self._drift = DriftMonitor(lambda: self._scorer.calibration, self._metrics.decile, self._clock)
        self._pipeline = self._make_pipeline()
        self._calibration.want(settings.live)
        self._configured = False
        await self._ask_all()  # else the first requests of a new replica would meet tiers that it has not heard of
        work = {"ledger": self._records.run(), "mirror": self._mirror.run(), "access": self._access.run(), "watch": self._watch()}
        work["fleets"] = self._fleets.run(self._unsettled)
        self._tasks = {name: asyncio.get_running_loop().create_task(endless) for name, endless in work.items()}

    def _make_records(self, ledger: Handle) -> HandleLedger:
        settings = self._settings.ledger
        return HandleLedger(
            ledger,
            queue=settings.queue,
            queue_mib=settings.queue_mib,
            batch=settings.batch,
            on_drop=self._metrics.dropped,
            on_pair=self._metrics.mirrored,
            on_acked=lambda record: self._access.acked(record),  # noqa: PLW0108 - made after it
        )

    def _make_access(self, replica: str) -> auth.Access:
        settings, exchange = self._settings, self._records.sync_quotas
        return auth.make_access(settings.auth, settings.limits, os.environ, clock=self._clock, replica=replica, exchange=exchange)

    def _make_starts(self, name: str, handle: Handle) -> Starts:
        deployment, watch = handle.deployment_name, self._watches[name]
        guess_s = self._settings.waking.guess_s
        return Starts(lambda: self._fleets.of(deployment), heard=watch.heard, told=watch.cold_start, guess_s=guess_s, clock=self._clock)

    def _engine(self, model: str, handle: Handle, tier: Tier) -> HandleEngine:
        connect_s = self._settings.timeouts.connect_s
        return HandleEngine(model, handle, self._watches[tier.value], connect_s=connect_s, starts=self._starts[tier])

    def _unsettled(self) -> bool:
        """A tier does not report: then Serve's word on it is wanted soon."""
        return any(self._watches[tier.value].age() > SILENT_S for tier in Tier)

    def _gate(self, tier: Tier) -> Gate:
        settings = self._settings.ingress
        return Gate(settings.max_ongoing_requests, settings.max_wait_s, self._clock, lambda: self._capacity(tier))

    def _capacity(self, tier: Tier) -> int | None:
        """Sequences of the tier that this replica may count on: the ingress replicas share them evenly."""
        load = self._engines[tier].load()
        return None if load is None or not load.replicas else max(1, load.capacity // max(1, self._peers.replicas()))

    def _make_scorer(self, embedder: Handle, router_llm: Handle, ledger: Handle) -> tuple[Scorer, LiveCalibration]:
        made_with = identity(self._settings.embedder)
        profile = named(self._settings.router.calibration, made_with)
        scorer = Scorer(
            embedder=HandleEmbedder(embedder),
            assessor=HandleAssessor(router_llm),
            calibration=profile,
            settings=self._settings.router,
            observer=self._metrics,
            clock=self._clock,
            router_model=self._settings.router_llm.model.id,
        )
        refused = self._metrics.calibration_refused
        return scorer, LiveCalibration(profile, fetch=Shelf(ledger).part, embedder=made_with, put=self._take_over, refused=refused)

    def _take_over(self, live: Live, artefact: Artefact) -> None:
        """All at once: whoever asks for what is in force gets either the old or the new, never some of both."""
        if artefact is not self._scorer.calibration:
            self._scorer = self._scorer.with_calibration(artefact)
        self._live, self._digest = live, digest(self._settings, live)

    def _make_recorder(self, ledger: Ledger) -> Recorder:
        return Recorder(
            engines=self._engines,
            prices=self._prices,
            ledger=ledger,
            observer=self._metrics,
            clock=self._clock,
            fingerprint=Fingerprint(os.environ.get(HASH_KEY_ENV) or secrets.token_hex(16)),
            listeners=self._listeners(),
            store_prompts=self._settings.ledger.store_prompts,
        )

    def _listeners(self) -> Sequence[Callable[[Record], None]]:
        traced = [self._tracing.recorded] if self._tracing is not None else []
        return (self._access.settle, logs.recorded, lambda record: self._drift.recorded(record), *traced)  # noqa: PLW0108 - made after it

    def _make_mirror(self, ledger: Ledger) -> Mirror:
        return Mirror(
            engines=self._engines,
            prices=self._prices,
            ledger=ledger,
            observer=self._metrics,
            settings=self._settings.mirror,
        )

    def _make_pipeline(self) -> Pipeline:
        attempts = Attempts(
            engines=self._engines,
            failover=self._failover,
            gates=self._gates,
            timeouts=self._settings.timeouts,
            recorder=self._recorder,
            observer=self._metrics,
            clock=self._clock,
            early_exit=self._early_exit,
            waking=self._waking,
        )
        return Pipeline(
            guard=Guard(self._engines, {Tier.SMALL: _limits(self._settings.small), Tier.LARGE: _limits(self._settings.large)}),
            attempts=attempts,
            recorder=self._recorder,
            mirror=self._mirror,
            engines=self._engines,
            observer=self._metrics,
            clock=self._clock,
            in_force=self.in_force,
            waking=self._waking,
        )

    def _early_exit(self) -> EarlyExit:
        """Off where the small tier gives no log-probabilities."""
        return self._live.early_exit if self._settings.small.supports.logprobs else EarlyExit()

    def in_force(self) -> InForce:
        live, scorer = self._live, self._scorer
        return InForce(live, of_live(live, scorer.calibration.threshold, self._shift.shift), scorer, self._digest)

    def _artefact_status(self) -> Json:
        """With the ingress replicas that answered lately, by the hash of what they route by."""
        return {**self._calibration.status(), "replicas": dict(Counter(self._peers.each("calibration")))}

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(
            Gateway(
                settings=self._settings,
                pipeline=self._pipeline,
                engines=self._engines,
                ledger=self._records,
                receipts=self._recorder.get,
                clock=self._clock,
                translator=Translator(self._settings, self._tracing.begin if self._tracing is not None else None),
                in_force=self.in_force,
                calibration=lambda: self._scorer.calibration.sha256,
                artefact=self._artefact_status,
                drift=self._drift.status,
                breakers=self._failover.states,
                signals={name: self._watches[name].ready for name in ("embedder", "router_llm")},
                access=self._access,
                observer=self._metrics,
            )
        )

    async def reconfigure(self, user_config: Json) -> None:
        """Serve hands over the whole `user_config` anew; a bad one is refused as a whole and the old one stays.

        Serve sends no requests until this returns: only a replica that starts waits for the artefact, and not for long.
        """
        try:
            live = parse_live(self._settings.live, user_config)
            if problems := check_live(self._settings, live):
                raise SettingsError(problems)
            self._calibration.want(live)
        except SettingsError as error:
            log.error("user_config refused, the old one stays in force: %s", "; ".join(error.problems))
        if not self._configured:
            self._configured = True
            await self._calibration.settled(START_S)

    async def load_report(self) -> Json:
        """For its peers, which count each other, and tell of each other what they route by."""
        return {"running": sum(gate.in_flight for gate in self._gates.values()), "calibration": self._scorer.calibration.sha256}

    async def _ask_all(self) -> None:
        """Two seconds at most."""
        await asyncio.gather(self._peers.refresh(), *(watch.refresh() for watch in self._watches.values()))

    async def _watch(self) -> None:
        """Each second: ask the replicas for their queues, let them move the threshold, show what is in force."""
        while True:
            await self._ask_all()
            for starts in self._starts.values():
                starts.observe()
            loads = {tier: engine.load() for tier, engine in self._engines.items()}
            self._shift = capacity.step(self._live.capacity, self._shift, loads, self._clock.monotonic())
            self._show()
            await asyncio.sleep(REFRESH_S)

    def _show(self) -> None:
        now = self.in_force().policy
        self._metrics.threshold(now.threshold + now.shift)
        self._metrics.drift(self._drift.seen())
        self._metrics.backlog("ingress", self._records.waiting)
        for tier, state in self._failover.states().items():
            self._metrics.breaker(tier, state)
            self._metrics.in_flight(tier, self._gates[tier].in_flight)
            self._metrics.load(tier, self._engines[tier].load())

    async def __del__(self) -> None:
        """A leaving replica stops its mirrors, which nobody waits for, and hands over the records that are still on their way."""
        await self._waking.close()
        self._calibration.stop()
        self._tasks["mirror"].cancel()
        await asyncio.wait([self._tasks["mirror"]], timeout=SETTLE_S)
        await self._recorder.drain(SETTLE_S)
        await self._records.flush()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)

    async def check_health(self) -> None:
        """Serve replaces a replica whose background tasks have died."""
        for name, task in self._tasks.items():
            if task.done():
                raise RuntimeError(f"the ingress's task {name} stopped")


def _limits(tier: TierSettings) -> TierLimits:
    return TierLimits(tier.max_model_len, tier.supports)


class Fingerprint:
    """A keyed hash of a prompt: equal prompts can be found, but none can be guessed from the ledger without the key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def __call__(self, text: str) -> str:
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
