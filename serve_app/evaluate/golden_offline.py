"""The golden set without engines: may this artefact go live? By the code that serves: rules first, then the score, no self-assessment.

`gate` is what `tierwise promote` asks; `problems` is empty when the floors of `settings.golden` hold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serve_app.domain import Request, Score, SignalState
from serve_app.evaluate import golden, labelled
from serve_app.evaluate.golden import Miss, Report, Routed
from serve_app.evaluate.labelled import Labelled
from serve_app.routing import features, lexical, neighbours, policy
from serve_app.routing.heads import Heads
from serve_app.routing.orders import without_orders
from serve_app.routing.score import Artefact, Calibration, final, of_gain
from serve_app.settings import Settings

Array = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Array]
SAMPLE = 240  # golden prompts that the gate perturbs, evenly spread; the command line takes all


@dataclass(frozen=True, slots=True)
class Gate:
    """What the golden set says of an artefact. `flips` holds the share of decisions that each perturbation changes."""

    accuracy: float
    interval: tuple[float, float]
    misses: tuple[Miss, ...]
    flips: Mapping[str, float]
    problems: tuple[str, ...]


def rows() -> list[Labelled]:
    """The golden part, which nothing was fitted on."""
    return labelled.split(labelled.packaged())[1]


def gate(artefact: Artefact, settings: Settings, embed: Embed) -> Gate:
    """Route every golden prompt by `artefact`, perturb some, and hold the results against the floors."""
    from serve_app.evaluate import robustness  # noqa: PLC0415 - it routes by this module

    every = rows()
    report = accuracy(every, artefact, settings, embed)
    some = [row.prompt for row in every[:: max(1, len(every) // SAMPLE)]]
    found = robustness.measure(some, artefact, settings, embed, seed=0)
    problems = [*below(report, artefact, settings), *robustness.problems(found, settings.golden.flip_rate)]
    return Gate(report.accuracy, report.interval, report.misses, {one.name: one.rate for one in found}, tuple(problems))


def accuracy(some: Sequence[Labelled], artefact: Artefact, settings: Settings, embed: Embed) -> Report:
    routed = route([row.prompt for row in some], artefact, settings, embed)
    return golden.compare(some, dict(zip([row.id for row in some], routed, strict=True)))


def below(report: Report, artefact: Artefact, settings: Settings) -> list[str]:
    """One line where too few prompts go where their label says; what a `gain` artefact aims at is not the label."""
    floor = settings.golden.gain_accuracy if isinstance(artefact, Heads) else settings.golden.accuracy
    return [] if report.accuracy >= floor else [f"golden accuracy {report.accuracy:.3f} is below {floor:g}"]


def route(prompts: Sequence[str], artefact: Artefact, settings: Settings, embed: Embed) -> list[Routed]:
    """Where each prompt goes; all that is to be embedded is embedded in one call."""
    texts = [_texts(prompt, artefact, settings) for prompt in prompts]
    scored = dict.fromkeys(each for few in texts for each in few)
    scores = dict(zip(scored, _scores(list(scored), artefact, settings, embed), strict=True))
    return [_decide(prompt, [scores[each] for each in few], artefact, settings) for prompt, few in zip(prompts, texts, strict=True)]


def _texts(prompt: str, artefact: Artefact, settings: Settings) -> list[str]:
    """The text, and what is left of it without what addresses the router."""
    both_ends = isinstance(artefact, Heads) or artefact.label is not None
    read = lexical.scanned(prompt) if both_ends else features.cut(prompt, settings.router.max_chars)
    plain = without_orders(read)
    text = prompt if isinstance(artefact, Heads) else read
    return [text] if plain is read or not plain else [text, plain]


def _scores(texts: Sequence[str], artefact: Artefact, settings: Settings, embed: Embed) -> list[Score]:
    return _gains(texts, artefact, settings, embed) if isinstance(artefact, Heads) else _labels(texts, artefact, settings, embed)


def _labels(texts: Sequence[str], artefact: Calibration, settings: Settings, embed: Embed) -> list[Score]:
    read = [artefact.read(text, settings.router.max_chars) for text in texts]
    distinct = list(dict.fromkeys(one.embedded for few in read for one in few))
    vectors = dict(zip(distinct, embed(distinct), strict=True)) if distinct else {}
    return [
        final(
            embedding=artefact.highest(few, [vectors[one.embedded] for one in few]),
            embedding_state=SignalState.OK,
            assessment=None,
            assessment_state=SignalState.SKIPPED,
            embedding_weight=settings.live.embedding_weight,
            calibration=artefact.sha256,
            novelty=artefact.novelty(features.cut(text, settings.router.max_chars)),
        )
        for text, few in zip(texts, read, strict=True)
    ]


def _gains(texts: Sequence[str], artefact: Heads, settings: Settings, embed: Embed) -> list[Score]:
    """The heads alone where they are clear; the embedder is asked for the rest."""
    judged = [artefact.judge(text) for text in texts]
    unclear = [place for place, one in enumerate(judged) if not artefact.clear(one.score, artefact.threshold)]
    cuts = [features.cut(neighbours.excerpt(texts[place]), settings.router.max_chars) for place in unclear]
    for place, vector in zip(unclear, embed(cuts) if cuts else (), strict=True):
        judged[place] = artefact.judge(texts[place], vector)
    asked = set(unclear)
    states = [SignalState.OK if place in asked else SignalState.SKIPPED for place in range(len(texts))]
    return [of_gain(one, state, artefact.sha256) for one, state in zip(judged, states, strict=True)]


def _decide(prompt: str, scores: Sequence[Score], artefact: Artefact, settings: Settings) -> Routed:
    request = Request("golden", "chat", {}, prompt, features.from_text(prompt), "auto")
    rules = policy.of_live(settings.live, artefact.threshold)
    score = max(scores, key=lambda one: -1.0 if one.value is None else one.value)
    decision = policy.decide_early(rules, request) or policy.decide(rules, request, score)
    return Routed(decision.tier, decision.score.value, decision.reason.value)
