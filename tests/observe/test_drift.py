"""A replica's drift monitor: what it counts of the records that end, and what it tells."""

from dataclasses import replace

from serve_app.domain import Novel, Score, SignalState
from serve_app.observe.drift import DriftMonitor
from serve_app.routing.score import Artefact
from tests.fakes import FakeClock, calibration
from tests.observe.common import record


class Fleet:
    """A monitor with the artefact in force and the bins that it counted."""

    def __init__(self) -> None:
        self.artefact: Artefact = calibration()
        self.counted: list[int] = []
        self.clock = FakeClock()
        self.monitor = DriftMonitor(lambda: self.artefact, self.counted.append, self.clock)

    def ends(self, value: float, *, new: float | None = 0.0, made_by: str = "fake-hash") -> None:
        score = Score(value, value, SignalState.OK, calibration=made_by, novelty=new)
        made = record("tw-1")
        novel = Novel(0.5) if new is not None and new > 0.5 else None
        self.monitor.recorded(replace(made, decision=replace(made.decision, score=score, novel=novel)))


def test_every_decision_by_a_score_is_counted_here_and_for_the_fleet() -> None:
    fleet = Fleet()
    for number in range(500):
        fleet.ends(0.95 if number % 2 else number % 10 / 10 + 0.05, new=0.9 if number % 4 == 0 else 0.0)
    assert sorted(set(fleet.counted)) == [0, 2, 4, 6, 8, 9]
    told = fleet.monitor.status()
    assert (told["decisions"], told["novel_share"]) == (500, 0.25)
    assert told["score_psi"] > 0.25
    assert told["novelty_psi"] > 0.25
    fleet.clock.advance(3600)
    assert fleet.monitor.status() == {"decisions": 0, "score_psi": None, "novelty_psi": None, "novel_share": None}


def test_a_decision_without_a_score_or_by_another_calibration_is_not_counted() -> None:
    fleet = Fleet()
    made = record("tw-1")
    fleet.monitor.recorded(replace(made, decision=replace(made.decision, score=Score(None))))
    fleet.ends(0.5, made_by="another")
    assert (fleet.counted, fleet.monitor.seen().decisions) == ([], 0)


def test_counting_starts_anew_with_another_calibration() -> None:
    fleet = Fleet()
    fleet.ends(0.5)
    fleet.artefact = replace(calibration(), sha256="next")
    fleet.ends(0.5, made_by="next")
    assert fleet.monitor.seen().decisions == 1


def test_a_calibration_that_tells_no_novelty_has_none() -> None:
    fleet = Fleet()
    fleet.ends(0.5, new=None)
    assert fleet.monitor.status()["novel_share"] is None
