"""Does a golden run pass? The floors of `args.golden.endpoint`, each held against its figure. Pure."""

from dataclasses import dataclass

from serve_app.evaluate.golden_live_answers import Run
from serve_app.evaluate.golden_live_figures import Figures
from serve_app.settings.golden import EndpointFloors


@dataclass(frozen=True, slots=True)
class Check:
    """`value` is None where the run has no such figure: then the floor is missed. `least`: the value must not be lower, else not higher."""

    name: str
    value: float | None
    bound: float
    least: bool

    @property
    def holds(self) -> bool:
        if self.value is None:
            return False
        return self.value >= self.bound if self.least else self.value <= self.bound

    def __str__(self) -> str:
        shown = "unknown" if self.value is None else f"{self.value:.4g}"
        return f"{self.name} {shown}, {'at least' if self.least else 'at most'} {self.bound:g}: {'holds' if self.holds else 'missed'}"


def checks(floors: EndpointFloors, run: Run, found: Figures) -> tuple[Check, ...]:
    """A floor that is not set is not checked; that nothing failed always is, unless the settings say how much may."""
    routed = next((group for group in found.groups if group.name == "routed"), None)
    accuracy = None if found.routing is None else found.routing.accuracy
    saved = found.dollars.saved_same_tokens if found.dollars.saved is None else found.dollars.saved.value
    failed = len(run.failures) / len(run.answers) if run.answers else None
    wanted = [
        ("accuracy", accuracy, floors.accuracy, True),
        ("p99 TTFT in seconds", None if routed is None else routed.ttft.p99, floors.p99_ttft_s, False),
        ("saved by token prices", saved, floors.saved, True),
        ("failed", failed, floors.failed, False),
    ]
    return tuple(Check(name, value, bound, least) for name, value, bound, least in wanted if bound is not None)
