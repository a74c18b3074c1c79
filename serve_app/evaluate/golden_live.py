"""`tierwise golden`, apart from its options: the golden prompts through a running endpoint, and beside each the large tier on its own.

Both requests of a prompt follow each other, in an order drawn by the seed: what slows the machine down slows both arms.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from serve_app.domain import Json
from serve_app.errors import RequestError
from serve_app.evaluate import labelled, sources
from serve_app.evaluate.golden_live_answers import Answer, Arm, Run
from serve_app.evaluate.golden_live_client import Asking, client, look
from serve_app.evaluate.golden_live_cost import charge, hourly
from serve_app.evaluate.golden_live_figures import Figures, figures
from serve_app.evaluate.golden_live_floors import Check, checks
from serve_app.evaluate.golden_live_judge import Judging, Quality, judge_of, judged
from serve_app.evaluate.labelled import Labelled
from serve_app.settings import Settings
from serve_app.settings.golden import EndpointFloors

GIVE_UP = 20  # failures in a row: nobody is there, and every request would take its timeout
INTERRUPTED = "interrupted"
Ticking = Callable[[int], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command's options. `concurrency` counts prompts at a time; `floor` is the accuracy to reach, in place of the settings'."""

    url: str
    api_key: str = ""
    config: Path = Path("deployments.yaml")
    limit: int | None = None
    baseline: bool = True
    max_tokens: int = 64
    concurrency: int = 4
    seed: int = 0
    out: Path | None = None
    floor: float | None = None
    judging: Judging | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A run and what it says. `checks` are the floors of `args.golden.endpoint`."""

    wanted: Wanted
    rows: Sequence[Labelled]
    at: float
    run: Run
    figures: Figures
    checks: Sequence[Check]
    quality: Quality | None = None

    @property
    def passed(self) -> bool:
        """A run that was not whole has shown nothing."""
        return self.run.stopped is None and all(one.holds for one in self.checks)


@dataclass
class Course:
    """Owns the answers so far: whoever cancels `drive` still has them."""

    asking: Asking
    rows: Sequence[Labelled]
    step: Callable[[], None]
    baseline: bool = True
    seed: int = 0
    answers: list[Answer] = field(default_factory=list)
    in_a_row: int = 0  # failures since the last answer

    async def drive(self, concurrency: int) -> Run:
        """Send every prompt, so many at a time. A cancellation closes the streams that are open."""
        waiting = iter(self.rows)

        async def work() -> None:
            for row in waiting:
                await self._pair(row)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(concurrency, len(self.rows))):
                tasks.create_task(work())
        return self.run()

    def run(self, stopped: str | None = None) -> Run:
        stopped = f"{GIVE_UP} requests in a row failed" if self.in_a_row >= GIVE_UP else stopped
        return Run(tuple(self.answers), len(self.rows) * (1 + self.baseline), stopped)

    async def _pair(self, row: Labelled) -> None:
        for arm in order(row.id, self.seed) if self.baseline else (Arm.ROUTED,):
            if self.in_a_row >= GIVE_UP:
                return
            answer = await self.asking.ask(row.id, row.prompt, arm)
            self.in_a_row = self.in_a_row + 1 if answer.failure else 0
            self.answers.append(answer)
            self.step()


def order(name: str, seed: int) -> tuple[Arm, Arm]:
    """Which of a prompt's two requests comes first; the other may find its prompt in the engine's cache."""
    first, second = random.Random(f"{seed}/{name}").sample(list(Arm), 2)
    return first, second


@dataclass
class Outing:
    """Owns what a run has come to, so that Ctrl-C leaves it. `tiers` is what `/status` said of them."""

    wanted: Wanted
    rows: Sequence[Labelled]
    ticking: Ticking
    tiers: Json = field(default_factory=dict)
    course: Course | None = None
    whole: bool = False
    quality: Quality | None = None

    async def go(self, environ: Mapping[str, str], transport: httpx.AsyncBaseTransport | None) -> None:
        wanted, rows = self.wanted, self.rows
        async with AsyncExitStack() as stack:
            by = None if wanted.judging is None else await judge_of(wanted.judging, wanted.config, wanted.seed, environ, stack)
            http = await stack.enter_async_context(client(wanted.url, wanted.api_key, transport))
            self.tiers = await look(http)
            began = time.monotonic()
            asking = Asking(http, wanted.max_tokens, lambda: time.monotonic() - began)
            step = self.ticking(len(rows) * (1 + wanted.baseline))
            self.course = Course(asking, rows, step, wanted.baseline, wanted.seed)
            run = await self.course.drive(wanted.concurrency)
            self.whole = True
            if by is not None:
                self.quality = await judged(run, rows, by, seed=wanted.seed, max_tokens=wanted.max_tokens)

    def found(self, settings: Settings, at: float) -> Found:
        wanted, rows = self.wanted, self.rows
        run = Run((), 0, INTERRUPTED) if self.course is None else self.course.run(None if self.whole else INTERRUPTED)
        replicas = {name: max(1, int(one.get("replicas") or 1)) for name, one in self.tiers.items()}
        said = figures(rows, run, charge(run, hourly(settings, replicas)), seed=wanted.seed)
        return Found(wanted, rows, at, run, said, checks(_floors(wanted, settings), run, said), self.quality)


def run(wanted: Wanted, environ: Mapping[str, str], ticking: Ticking, transport: httpx.AsyncBaseTransport | None = None) -> Found:
    """`ticking` is told how many requests there are, and gives what is called after each.

    Ctrl-C ends the run, and what came until then is reported. Raises `TierwiseError` in one line when the options cannot be used, the
    endpoint is not ready, or it refuses the key: then nothing was sent.
    """
    check(wanted)
    settings, at = sources.settings_of(wanted.config), time.time()
    outing = Outing(wanted, labelled.split(labelled.packaged())[1][: wanted.limit], ticking)
    try:
        asyncio.run(outing.go(environ, transport))
    except KeyboardInterrupt:
        if outing.course is None:
            raise
    return outing.found(settings, at)


def _floors(wanted: Wanted, settings: Settings) -> EndpointFloors:
    floors = settings.golden.endpoint
    return floors if wanted.floor is None else floors.model_copy(update={"accuracy": wanted.floor})


def check(wanted: Wanted) -> None:
    """Raises `RequestError` for options that cannot be used, before anything is sent."""
    if wanted.judging is not None and not wanted.baseline:
        raise RequestError(f"--judge {wanted.judging.by}: needs the baseline's answers to compare with")
    if wanted.out is not None and not os.access(wanted.out.parent, os.W_OK):
        raise RequestError(f"{wanted.out}: cannot be written there")
