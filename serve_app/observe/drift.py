"""What a replica's decisions of the last hour say of the calibration: are they still like the rows that it was fitted on?"""

from collections.abc import Callable
from dataclasses import asdict

from serve_app.domain import Json, Record
from serve_app.ports import Clock
from serve_app.routing.drift import Drift, Window, bin_of_decision
from serve_app.routing.score import Artefact


class DriftMonitor:
    """Owns one replica's window. `counted` is told the bin of every decision, so that the fleet's index can be computed elsewhere."""

    def __init__(self, artefact: Callable[[], Artefact], counted: Callable[[int], None], clock: Clock) -> None:
        self._artefact = artefact
        self._counted = counted
        self._clock = clock
        self._window = Window()
        self._calibration = artefact().sha256

    def recorded(self, record: Record) -> None:
        """A decision is counted when its request has ended. Another calibration has other bins: then counting starts anew."""
        artefact, decision = self._artefact(), record.decision
        if artefact.sha256 != self._calibration:
            self._window, self._calibration = Window(), artefact.sha256
        number = bin_of_decision(decision, artefact)
        if number is None:
            return
        novel = None if decision.score.novelty is None else decision.novel is not None
        self._window.add(number, novel=novel, now=self._clock.now())
        self._counted(number)

    def seen(self) -> Drift:
        return self._window.seen(self._clock.now())

    def status(self) -> Json:
        """For `/status`: figures of this replica alone, rounded; None is not known."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self.seen()).items()}
