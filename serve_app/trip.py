"""What one request gathers on its way; lives as long as the request and belongs to the pipeline."""

from dataclasses import dataclass, field, replace

from serve_app.admission import Place
from serve_app.domain import Attempt, Decision, Outcome, Request, Usage
from serve_app.failover import Admission
from serve_app.routing.cascade import Watch


@dataclass(slots=True)
class Trip:
    """`started` is monotonic, `created` Unix time; `overhead` is the seconds that the decision took."""

    request: Request
    decision: Decision
    created: float
    started: float
    overhead: float
    attempts: tuple[Attempt, ...] = ()
    unsettled: dict[int, str] = field(default_factory=dict)  # attempts that were cut off, and the ids that the engine knows them by
    watch: Watch | None = None  # of the running attempt, where early exit looks at it
    place: Place | None = None  # before the running attempt's tier
    reserved: Place | None = None  # before the next attempt's tier
    admission: Admission = field(init=False)
    attempt: Attempt = field(init=False)

    def admit(self, admission: Admission) -> None:
        self.admission, self.decision = admission, admission.decision

    def start_attempt(self, model: str, elapsed: float) -> str:
        """Begin the next attempt on the decision's tier; gives its id in the engine."""
        self.attempt = Attempt(self.decision.tier, model, Outcome.FAILED, Usage(), 0.0, elapsed, None, 0.0)
        return f"{self.request.id}-{len(self.attempts)}"

    def end_attempt(self, outcome: Outcome, elapsed: float, error: str | None, *, cut_off: bool) -> None:
        """The place is given back, whatever happened. Of a generation that was `cut_off` the engine knows best what it used."""
        if self.place is not None:
            self.place.leave(finished=outcome is Outcome.OK)
        confidence = self.watch.confidence() if self.watch is not None and self.watch.tokens else None
        self.attempt = replace(self.attempt, outcome=outcome, error=error, ended=elapsed, confidence=confidence)
        if cut_off:
            self.unsettled[len(self.attempts)] = f"{self.request.id}-{len(self.attempts)}"
        self.attempts = (*self.attempts, self.attempt)
        self.watch, self.place = None, None

    def give_back(self) -> None:
        """A reserved place that nobody will use."""
        if self.reserved is not None:
            self.reserved.leave(finished=False)
            self.reserved = None
