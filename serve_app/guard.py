"""The hard guards: which tiers may answer at all. Asks a tier to count only when the prompt is near its context length."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.domain import Reason, Request, Tier
from serve_app.errors import Forbidden, RequestError, UpstreamError
from serve_app.ports import Engines
from serve_app.routing.guards import Counted, TierLimits, answer_tokens, at_most_tokens, lacks, too_long

log = logging.getLogger(__name__)
COUNT_S = 5.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Tiers that may answer, and the guard that left one out."""

    tiers: tuple[Tier, ...]
    reason: Reason | None = None


class Guard:
    def __init__(self, engines: Engines, limits: Mapping[Tier, TierLimits]) -> None:
        self._engines = engines
        self._limits = limits

    async def check(self, request: Request) -> Verdict:
        """Raises `RequestError` when no tier, or not the tier that was asked for, can do what the request needs."""
        permitted = request.client.tiers
        able = self._able(request, permitted)
        fitting = await self._fitting(request, able)
        if len(fitting) < len(able):
            return Verdict(fitting, Reason.GUARD_CONTEXT)
        if len(able) < len(permitted):
            return Verdict(able, Reason.GUARD_CAPABILITY)
        return Verdict(able, Reason.GUARD_POLICY if len(permitted) < len(Tier) else None)

    def _able(self, request: Request, permitted: tuple[Tier, ...]) -> tuple[Tier, ...]:
        missing = {tier: lacks(request.body, request.features, self._limits[tier].supports) for tier in permitted}
        able = tuple(tier for tier, what in missing.items() if not what)
        named = request.explicit_tier
        if named is not None and named not in permitted:
            raise Forbidden(f"This API key may not use the {named.value} tier.")
        if named is not None and named not in able:
            raise RequestError(f"The {named.value} tier does not support {' or '.join(missing[named])}.", code="unsupported")
        if not able:
            raise RequestError(f"No tier that may answer supports {' or '.join(missing[permitted[-1]])}.", code="unsupported")
        return able

    async def _fitting(self, request: Request, able: tuple[Tier, ...]) -> tuple[Tier, ...]:
        near = self._near(able, at_most_tokens(request.body))
        counts = await asyncio.gather(*(self._count(tier, request) for tier in near))
        counted = {tier: count for tier, count in zip(near, counts, strict=True) if count is not None}
        fitting = tuple(tier for tier in able if tier not in counted or counted[tier].fits(self._limits[tier].context))
        if not fitting or (request.explicit_tier is not None and request.explicit_tier not in fitting):
            raise RequestError(too_long(counted, self._limits), code="context_length_exceeded", param="messages")
        return fitting

    def _near(self, able: tuple[Tier, ...], tokens: int) -> list[Tier]:
        """Tiers whose context length `tokens`, a bound, may exceed; an unknown one is the engine's business."""
        return [tier for tier in able if (context := self._limits[tier].context) is not None and tokens > context]

    async def _count(self, tier: Tier, request: Request) -> Counted | None:
        """None when the tier cannot say: the engine will refuse what is too long."""
        try:
            async with asyncio.timeout(COUNT_S):
                tokens = await self._engines[tier].count(request.kind, dict(request.body))
        except (UpstreamError, TimeoutError) as error:
            log.warning("the %s tier did not count a prompt: %s", tier.value, type(error).__name__)
            return None
        return Counted(tokens, answer_tokens(request.body))
