"""Mirrored pairs of answers become scores of both models: who judges stands behind one port, what is judged already is not asked again.

A pair that could not be judged leaves a mark, is counted, and is tried again by the next run.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from serve_app.domain import Json
from serve_app.errors import TierwiseError
from serve_app.evaluate.judge_pairs import Asked, Judged, Known, Pair, Verdict

GIVE_UP = 10  # faults in a row: nobody is there, and every pair would take its retries
Pages = Callable[[int], Awaitable[Sequence[Pair]]]


class NoReference(Exception):
    """There is nothing to compare this pair with: it is left out and counted, and no fault."""


class Undecided(Exception):
    """This pair could not be judged; `why` is short and holds no text of an answer."""

    def __init__(self, why: str):
        super().__init__(why)
        self.why = why


class Judge(Protocol):
    name: str  # with what it depends on: two judges of one name say the same
    worth: str  # what its scores stand for, in a sentence

    async def judge(self, asked: Asked, first: str, second: str) -> Verdict:
        """How good two answers are; the first is the small model's. Raises `NoReference` or `Undecided`, and `TierwiseError` to stop."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the pairs. `known` were judged before; `weak` and `strong` are sums of scores, of those too."""

    pairs: int = 0
    judged: int = 0
    known: int = 0
    faults: int = 0
    without_reference: int = 0
    small_better: int = 0
    large_better: int = 0
    weak: float = 0.0
    strong: float = 0.0
    in_a_row: int = 0  # faults since the last verdict
    why: Mapping[str, int] = field(default_factory=dict)  # of the faults

    def with_one(self, found: Judged | None, *, known: bool = False) -> "Tally":
        """One more pair; None had no reference."""
        if found is None:
            return replace(self, pairs=self.pairs + 1, without_reference=self.without_reference + 1)
        if found.verdict is None:
            why = {**self.why, str(found.fault): self.why.get(str(found.fault), 0) + 1}
            return replace(self, pairs=self.pairs + 1, faults=self.faults + 1, in_a_row=self.in_a_row + 1, why=why)
        weak, strong = found.verdict.first, found.verdict.second
        return replace(
            self,
            pairs=self.pairs + 1,
            judged=self.judged + (not known),
            known=self.known + known,
            small_better=self.small_better + (weak > strong),
            large_better=self.large_better + (strong > weak),
            weak=self.weak + weak,
            strong=self.strong + strong,
            in_a_row=self.in_a_row if known else 0,
        )


@dataclass
class Bench:
    """Owns one run: what was judged before, where verdicts are kept, and the tally. `step` is told of each pair that is done."""

    judge: Judge
    keepers: Sequence[Known]
    now: Callable[[], float]
    concurrency: int = 4
    step: Callable[[], None] = lambda: None
    tally: Tally = field(default_factory=Tally)

    async def run(self, pages: Pages, limit: int | None = None) -> Tally:
        """Judge page by page, up to `limit` new pairs. Raises `TierwiseError` when the judge does not answer; what it said is kept."""
        last = 0
        while page := await pages(last):
            last = page[-1].number
            known = {pair.number: verdict for pair in page if (verdict := self._known(pair)) is not None}
            await asyncio.to_thread(self._share, [self._found(pair, known[pair.number]) for pair in page if pair.number in known])
            new = [pair for pair in page if pair.number not in known]
            left = len(new) if limit is None else max(0, limit - self.tally.judged - self.tally.faults)
            await self._page(new[:left])
            if self.tally.in_a_row >= GIVE_UP:
                why = ", ".join(self.tally.why)
                raise TierwiseError(f"the judge failed {self.tally.in_a_row} times in a row ({why}); what it said before is kept")
            if left < len(new):
                break
        return self.tally

    def _known(self, pair: Pair) -> Verdict | None:
        name = pair.asked.decision_id
        return next((keeper.known[name] for keeper in self.keepers if name in keeper.known), None)

    def _share(self, found: Sequence[Judged]) -> None:
        """What was judged before is given to the keepers that do not have it yet."""
        for keeper in self.keepers:
            if missing := [one for one in found if one.pair.asked.decision_id not in keeper.known]:
                keeper.keep(missing)
        for one in found:
            self._count(one, known=True)

    async def _page(self, pairs: Sequence[Pair]) -> None:
        """A few at a time; what was said until a cancellation or the end of a judge is kept."""
        waiting, done = iter(pairs), list[Judged]()

        async def work() -> None:
            for pair in waiting:
                if self.tally.in_a_row >= GIVE_UP:
                    return
                found = await self._judged(pair)
                self._count(found)
                done.extend([found] if found is not None else [])

        tasks = [asyncio.create_task(work()) for _ in range(min(self.concurrency, len(pairs)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self._keep, done)

    async def _judged(self, pair: Pair) -> Judged | None:
        found = self._found(pair)
        try:
            return replace(found, verdict=await self.judge.judge(pair.asked, pair.small, pair.large))
        except NoReference:
            return None
        except Undecided as error:
            return replace(found, fault=error.why)

    def _found(self, pair: Pair, verdict: Verdict | None = None) -> Judged:
        return Judged(pair, self.judge.name, self.now(), verdict)

    def _count(self, found: Judged | None, *, known: bool = False) -> None:
        self.tally = self.tally.with_one(found, known=known)
        self.step()

    def _keep(self, done: Sequence[Judged]) -> None:
        if done:
            for keeper in self.keepers:
                keeper.keep(done)


def summary(judge: Judge, tally: Tally) -> Json:
    scored = tally.judged + tally.known
    return {
        "judge": judge.name,
        "worth": judge.worth,
        **{name: getattr(tally, name) for name in ("pairs", "judged", "known", "faults", "without_reference")},
        "why": dict(tally.why),
        "small_better": tally.small_better,
        "large_better": tally.large_better,
        "same": scored - tally.small_better - tally.large_better,
        "weak_score": round(tally.weak / scored, 6) if scored else None,
        "strong_score": round(tally.strong / scored, 6) if scored else None,
    }


def as_lines(found: Json) -> list[str]:
    means = "-" if found["weak_score"] is None else f"small {found['weak_score']:.3f}, large {found['strong_score']:.3f}"
    why = ", ".join(f"{count} {name}" for name, count in found["why"].items())
    done = f"{found['judged']} judged, {found['known']} judged before, {found['faults']} faults{f' ({why})' if why else ''}"
    return [
        f"{found['pairs']} pairs: {done}, {found['without_reference']} without a reference",
        f"small better {found['small_better']}, large better {found['large_better']}, same {found['same']}; mean scores: {means}",
        f"judge {found['judge']}: {found['worth']}",
    ]
