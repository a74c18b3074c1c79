"""How many decisions change when a request is sent as another person would send it (`perturb`). Seeded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.domain import Tier
from serve_app.evaluate import perturb
from serve_app.evaluate.golden_offline import Embed, route
from serve_app.routing.score import Artefact
from serve_app.settings import Settings

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Flips:
    """Shares of the prompts: whose tier changed, to the large one and to the small one."""

    name: str
    up: float
    down: float

    @property
    def rate(self) -> float:
        """Text that addresses the router may make a request dearer, never cheaper: only that counts there."""
        return self.down if self.name in perturb.ADDRESSING else round(self.up + self.down, 6)


def measure(
    prompts: Sequence[str], artefact: Artefact, settings: Settings, embed: Embed, *, seed: int, names: Sequence[str] = tuple(perturb.ALL)
) -> list[Flips]:
    """One line for each way of perturbing; what is to be embedded is embedded in one call for each."""
    before = _large(prompts, artefact, settings, embed)
    found = []
    for name in names:
        after = _large(perturb.perturbed(prompts, name, seed), artefact, settings, embed)
        found.append(Flips(name, _share(after & ~before), _share(before & ~after)))
    return found


def problems(found: Sequence[Flips], most: float) -> list[str]:
    """What is wrong, one line each. Nothing that addresses the router may make a request cheaper."""
    bounds = dict.fromkeys(perturb.ADDRESSING, 0.0)
    return [
        f"{one.name}: {one.rate:.1%} of the decisions change, at most {bounds.get(one.name, most):.1%} may"
        for one in found
        if one.rate > bounds.get(one.name, most)
    ]


def _large(prompts: Sequence[str], artefact: Artefact, settings: Settings, embed: Embed) -> Flags:
    return np.asarray([one.tier is Tier.LARGE for one in route(prompts, artefact, settings, embed)])


def _share(flags: Flags) -> float:
    return round(float(flags.mean()), 6)
