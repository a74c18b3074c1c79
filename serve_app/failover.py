"""Which tier is asked next when one fails or rests. Owns the tiers' breakers and the retry budget of one ingress replica."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from serve_app.domain import Decision, Reason, Tier
from serve_app.errors import NotReady, RequestError, UpstreamError
from serve_app.ports import Clock
from serve_app.resilience import Breaker, BreakerState, RetryBudget, Ticket, backoff
from serve_app.routing.policy import EXPLICIT
from serve_app.settings import FailureSettings

RESTS = "The model is recovering from a failure."


@dataclass(frozen=True, slots=True)
class Admission:
    """A decision whose tier may be asked now, and the breaker's ticket for that call."""

    decision: Decision
    ticket: Ticket


class Failover:
    """`chance` gives numbers in [0, 1), for the jitter."""

    def __init__(self, settings: FailureSettings, clock: Clock, chance: Callable[[], float]) -> None:
        self._settings = settings
        self._chance = chance
        self._breakers = {tier: Breaker(settings.breaker, clock) for tier in Tier}
        self._budget = RetryBudget(settings.retry)

    def states(self) -> dict[Tier, BreakerState]:
        return {tier: breaker.state for tier, breaker in self._breakers.items()}

    def begin(self, decision: Decision) -> Admission:
        """The decision, or the other tier's when the chosen one rests. Raises `NotReady` when nobody may be asked."""
        self._budget.deposit()
        admission = self._admitted(decision)
        if admission is None:
            raise NotReady(RESTS, retry_after=self._settings.breaker.open_s)
        return admission

    def after(self, failed: Admission, error: BaseException, tries: int) -> Admission | None:
        """What to try after `error` before the first byte, the `tries`-th failure of this request; None when nothing is.

        Only faults of an engine are tried again: a client's mistake would be refused again, and a full queue must not be filled
        twice. The budget is for retries at the tier that failed; the other tier is asked without, since that multiplies nothing
        where the fault is. Does not `report` the failure.
        """
        if not isinstance(error, UpstreamError) or tries > self._settings.retry.most:
            return None
        decision = failed.decision
        if (elsewhere := self._elsewhere(decision, last=tries == self._settings.retry.most)) is not None:
            return elsewhere
        if not self._budget.has_one() or (ticket := self._breakers[decision.tier].admit()) is None:
            return None
        self._budget.withdraw()
        return Admission(decision, ticket)

    def _elsewhere(self, failed: Decision, *, last: bool) -> Admission | None:
        """Large at once; small, where degraded answers are allowed, when large gets no other try."""
        other = failed.tier.other
        if other not in failed.allowed:
            return None
        if other is Tier.SMALL:
            may = self._settings.degraded_answers and failed.reason not in (*EXPLICIT, Reason.FALLBACK_ENGINE_ERROR)
            rests = self._breakers[failed.tier].state is BreakerState.OPEN
            if not may or not (last or rests or not self._budget.has_one()):
                return None
        ticket = self._breakers[other].admit()
        reason = Reason.FALLBACK_ENGINE_ERROR if other is Tier.LARGE else Reason.DEGRADED
        return Admission(replace(failed, tier=other, reason=reason), ticket) if ticket is not None else None

    def escalated(self, doubted: Admission) -> Admission | None:
        """The large tier instead of a small one that doubts itself; None when it rests: the doubtful answer is one."""
        decision = replace(doubted.decision, tier=Tier.LARGE, reason=Reason.ESCALATED_LOW_CONFIDENCE)
        ticket = self._breakers[Tier.LARGE].admit() if Tier.LARGE in decision.allowed else None
        return Admission(decision, ticket) if ticket is not None else None

    def report(self, admission: Admission, error: BaseException | None) -> None:
        """Tell the tier's breaker how a call went: None once its first token is there, or what broke it."""
        breaker = self._breakers[admission.decision.tier]
        if error is None:
            breaker.succeeded(admission.ticket)
        elif isinstance(error, Exception) and not isinstance(error, RequestError) and not _is_backpressure(error):
            breaker.failed(admission.ticket)
        else:
            breaker.abandoned(admission.ticket)

    def pause(self, tries: int) -> float:
        """Seconds to wait before the next try."""
        return backoff(tries - 1, self._settings.retry, self._chance())

    def _admitted(self, decision: Decision) -> Admission | None:
        if (ticket := self._breakers[decision.tier].admit()) is not None:
            return Admission(decision, ticket)
        other = decision.tier.other
        may_switch = other is Tier.LARGE or (self._settings.degraded_answers and decision.reason not in EXPLICIT)
        if not may_switch or other not in decision.allowed or (ticket := self._breakers[other].admit()) is None:
            return None
        reason = Reason.TIER_UNAVAILABLE if other is Tier.LARGE else Reason.DEGRADED
        return Admission(replace(decision, tier=other, reason=reason), ticket)


def _is_backpressure(error: Exception) -> bool:
    return getattr(type(error), "status", 500) in (429, 503)
