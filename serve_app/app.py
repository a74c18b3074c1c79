"""The graph: six deployments, wired.

client -> Ingress -> Embedder             score the request
                  -> RouterLLM            rate it, beside the embedding
                  -> SmallTier|LargeTier  answer it
                  -> Ledger               record it
"""

import os
from typing import Any

from ray import serve
from ray.serve import Application

from serve_app.deployments.embedder import EmbedderServer
from serve_app.deployments.ingress import Ingress
from serve_app.deployments.ledger import LedgerServer
from serve_app.deployments.tier_engine import RouterLLM, TierEngine, engine_options
from serve_app.errors import SettingsError
from serve_app.settings import Settings, check_live, parse

FOR_OPERATORS = 64  # places beside the generations, so that /health, /status and /ready get through whatever the load
LEDGER_CHECK_S = 2.0  # a dead ledger is back before the queues of 10,000 are full at 1,000 records a second; Serve's own is 10
LAST_RECORDS_S = 30.0  # of a leaving ingress, once its last request has ended


def build(args: dict[str, Any]) -> Application:
    """What `import_path: serve_app.app:build` names; `args` are those of deployments.yaml."""
    settings = parse(args)
    refuse_unsafe(settings)
    if problems := check_live(settings, settings.live, "args.live"):
        raise SettingsError(problems)
    router_llm = serve.deployment(RouterLLM, name="RouterLLM", **engine_options(settings.router_llm))
    small = serve.deployment(TierEngine, name="SmallTier", **engine_options(settings.small))
    large = serve.deployment(TierEngine, name="LargeTier", **engine_options(settings.large))
    return wire(
        settings,
        router_llm=router_llm.bind(settings.router_llm, settings.router.assess_max_tokens),
        small=small.bind(settings.small),
        large=large.bind(settings.large),
    )


def wire(settings: Settings, *, router_llm: Application, small: Application, large: Application) -> Application:
    """The graph around any three engines that keep the contract: vLLM's, or fakes in tests."""
    embedder = serve.deployment(
        EmbedderServer,
        name="Embedder",
        max_ongoing_requests=2 * settings.embedder.max_batch_size,
        max_queued_requests=settings.ingress.max_ongoing_requests,
        ray_actor_options={"num_cpus": settings.embedder.num_cpus},
        max_surge_percent=settings.embedder.max_surge_percent,
        logging_config={"enable_access_log": False},
    )
    ledger = serve.deployment(
        LedgerServer,
        name="Ledger",
        max_ongoing_requests=64,
        health_check_period_s=LEDGER_CHECK_S,
        ray_actor_options={"num_cpus": 0.1},
        logging_config={"enable_access_log": False},
    )
    ingress = serve.deployment(
        Ingress,
        name="Ingress",
        max_ongoing_requests=settings.ingress.max_ongoing_requests + FOR_OPERATORS,
        max_queued_requests=settings.ingress.max_queued_requests,
        backpressure_config={"status_code": 429, "retry_after_s": 2.0},
        logging_config={"enable_access_log": False},  # `observe/logs.py` writes a line for each request
        # Every stream runs through here too: Serve's own 20 s would cut those short that a tier lets end.
        graceful_shutdown_timeout_s=settings.timeouts.request_s + LAST_RECORDS_S,
        ray_actor_options={"num_cpus": settings.ingress.num_cpus},
        max_surge_percent=settings.ingress.max_surge_percent,
    )
    return ingress.bind(
        settings,
        embedder=embedder.bind(settings.embedder),
        router_llm=router_llm,
        small=small,
        large=large,
        ledger=ledger.bind(settings.ledger),
    )


def refuse_unsafe(settings: Settings) -> None:
    """HAProxy binds every address, so that nobody may be let in without a key behind it."""
    if settings.auth.mode == "open" and os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        raise SettingsError(["args.auth.mode: open is refused with HAProxy, which listens on every address: use keys"])
