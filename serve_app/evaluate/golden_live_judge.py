"""What a small answer loses against the large one's, by the judge port. Both answers are of the same run, so that there is a baseline.

Where the router chose the large tier, both arms are the large model's: nothing is lost there, and nothing is judged.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np

from serve_app.domain import Tier
from serve_app.errors import RequestError, TierwiseError
from serve_app.evaluate import judge_reference, judge_run, recorded
from serve_app.evaluate.golden_live_answers import Answer, Arm, Run
from serve_app.evaluate.golden_live_client import body
from serve_app.evaluate.judge import Judge, NoReference, Undecided
from serve_app.evaluate.judge_llm import LlmJudge
from serve_app.evaluate.judge_pairs import Asked, Verdict
from serve_app.evaluate.judge_run import asking_of, client_of, local_judge
from serve_app.evaluate.labelled import Labelled
from serve_app.evaluate.routing_metrics import RESAMPLES, Interval, interval

CONCURRENCY = 4
BY = get_args(judge_run.By)


@dataclass(frozen=True, slots=True)
class Judging:
    """One of the judges of `tierwise judge`, and what it needs."""

    by: str
    reference: Path | None = None
    endpoint: judge_run.Endpoint = field(default_factory=judge_run.Endpoint)
    both_orders: bool = False


@dataclass(frozen=True, slots=True)
class Quality:
    """`small` and `large` are mean scores in [0, 1] of the pairs that were judged; `drift` is their difference, small less large.

    `overall` is what routing loses over all prompts, those that both arms answered large included, which lose nothing.
    `problem` says why the judge stopped early.
    """

    judge: str
    worth: str
    pairs: int
    judged: int
    faults: int
    without_reference: int
    small: float | None = None
    large: float | None = None
    drift: Interval | None = None
    overall: Interval | None = None
    problem: str | None = None


@dataclass
class Verdicts:
    """Owns what the judge said so far, by the prompt's id."""

    said: dict[str, Verdict]
    faults: int = 0
    without_reference: int = 0
    problem: str | None = None


async def judge_of(judging: Judging, config: Path, seed: int, environ: Mapping[str, str], stack: AsyncExitStack) -> Judge:
    """Made before anything is sent, so that what it lacks costs no run. Raises `RequestError`; `stack` closes its connections."""
    if judging.by not in BY:
        raise RequestError(f"--judge {judging.by}: none, or one of {', '.join(BY)}")
    source = recorded.Source(config)
    wanted = judge_run.Wanted(judging.by, source, endpoint=judging.endpoint, seed=seed, both_orders=judging.both_orders)  # type: ignore[arg-type]  # checked
    references = None if judging.reference is None else judge_reference.read(judging.reference)
    try:
        asking = asking_of(wanted)
        judge = await asyncio.to_thread(local_judge, wanted, references)  # an embedder is loaded for seconds
        if judge is not None:
            return judge
        return LlmJudge(await stack.enter_async_context(client_of(judging.endpoint, environ, None)), asking)
    except RequestError as error:
        raise RequestError(error.message.replace("--by", "--judge", 1)) from None


async def judged(run: Run, rows: Sequence[Labelled], by: Judge, *, seed: int, max_tokens: int) -> Quality:
    """Judge every prompt that went small; a reference may name it by its id. A judge that stops leaves what it said before."""
    small = [(one, large) for one, large in run.pairs if one.receipt is not None and one.receipt.tier is Tier.SMALL]
    prompts = {row.id: row.prompt for row in rows}
    found, waiting = Verdicts({}), iter(small)

    async def work() -> None:
        for one, large in waiting:
            if found.problem is None:
                asked = Asked(one.id, prompts[one.id], body(prompts[one.id], Arm.ROUTED, max_tokens))
                await _one(by, asked, one, large, found)

    await asyncio.gather(*(work() for _ in range(min(CONCURRENCY, len(small)))))
    return quality(by, len(small), len(run.pairs), found, seed=seed)


async def _one(by: Judge, asked: Asked, one: Answer, large: Answer, found: Verdicts) -> None:
    try:
        found.said[one.id] = await by.judge(asked, one.text, large.text)
    except NoReference:
        found.without_reference += 1
    except Undecided:
        found.faults += 1
    except TierwiseError as error:
        found.problem = error.message


def quality(by: Judge, small: int, prompts: int, found: Verdicts, *, seed: int, resamples: int = RESAMPLES) -> Quality:
    """`small` of `prompts` prompts that both arms answered went to the small tier."""
    known = Quality(by.name, by.worth, small, len(found.said), found.faults, found.without_reference, problem=found.problem)
    if not found.said:
        return known
    first, second = (np.array([getattr(one, side) for one in found.said.values()]) for side in ("first", "second"))
    random, lost = np.random.default_rng(seed), first - second
    drawn = lost[random.integers(0, len(lost), (resamples, len(lost)))].mean(axis=1)
    shares = random.binomial(prompts, small / prompts, resamples) / prompts
    return replace(
        known,
        small=float(first.mean()),
        large=float(second.mean()),
        drift=interval(float(lost.mean()), drawn),
        overall=interval(float(lost.mean()) * small / prompts, drawn * shares),
    )
