"""`tierwise audit`: recorded prompts through the router before anything runs: how they would be split, and what that would save."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import ValidationError

from serve_app.calibrations import named
from serve_app.domain import Decision, Json, Reason, Request, Score, Tier
from serve_app.embedding import identity
from serve_app.errors import RequestError, SettingsError
from serve_app.evaluate.audit_input import Bad, Prompt, body_tokens, read
from serve_app.evaluate.audit_journal import Journal, key_of
from serve_app.evaluate.audit_totals import Scored, Totals
from serve_app.explain import explain
from serve_app.offline import LazyEmbedder, scored
from serve_app.routing import conversation, drift, features, policy
from serve_app.routing.score import Artefact
from serve_app.settings import Settings, TokenPrice, parse
from serve_app.settings.digest import digest
from serve_app.settings.strict import Strict

__all__ = ["Audit", "Router", "Wanted", "run"]
KEPT_CHARS = 2000  # of a prompt that is an example
REMEMBERED = 4096  # scores of turns, since a conversation's earlier ones come again
BY_SCORE = (Reason.SCORE_ABOVE, Reason.SCORE_BELOW, Reason.NOVELTY)
EARLIER = 16
STDIN = "-"
Seen = Callable[[int, int, int], None]  # prompts, bytes read, bytes in all (0: not known)
Embed = Callable[[list[str]], Sequence[npt.NDArray[np.float32]]]


class Prices(Strict):
    small: TokenPrice
    large: TokenPrice


@dataclass(frozen=True, slots=True)
class Wanted:
    """`prices`: a YAML file, or None for the profile's. `answer_tokens`: of answers that the data does not have."""

    source: str
    out: Path
    form: str = "auto"
    calibration: str = "builtin"
    profile: str = "local"
    prices: Path | None = None
    answer_tokens: int = 200
    examples: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Audit:
    """What was found. `router` is as the prompts were routed by it; `resumed` prompts were scored by an earlier run."""

    wanted: Wanted
    router: "Router"
    totals: Totals
    resumed: int


class Router:
    """Serving's own decision without a fleet: rules, score, novelty, conversation. Owns a few scores that may come again."""

    def __init__(self, fitted: Artefact, settings: Settings, embedder: LazyEmbedder) -> None:
        self.fitted = fitted
        self.live = settings.live
        self.policy = policy.of_live(settings.live, fitted.threshold)
        self._score: Callable[[str], Score] = lru_cache(REMEMBERED)(lambda text: scored(text, fitted, embedder, settings))

    def decide(self, prompt: Prompt) -> tuple[Decision, str]:
        """The decision, and the text that was scored. Without the router LLM, which only a running endpoint has."""
        body, text = prompt.body, features.scored_text(prompt.body)
        request = Request(prompt.id, "chat", body, text, features.from_body(text, body), "auto")
        decision = policy.decide_early(self.policy, request)
        if decision is None:
            decision = policy.decide(self.policy, request, self._score(text))
        if decision.tier is Tier.SMALL:
            decision = policy.in_conversation(decision, self._hardest_before(request))
        return decision, text

    def _hardest_before(self, request: Request) -> float | None:
        turns = conversation.earlier_turns(request.body, min(EARLIER, self.live.conversation_turns))
        if any(conversation.needs_no_score(turn, math_code_heuristic=self.live.math_code_heuristic) for turn in turns):
            return conversation.HARDEST
        return conversation.hardest([policy.standing(self.policy, request, self._score(turn)) for turn in turns])


def run(wanted: Wanted, *, say: Callable[[str], None], seen: Seen, embedder: LazyEmbedder | None = None) -> Audit:
    """Read, score and count. Raises `TierwiseError` when nothing can be read; what is scored already is kept beside `out`."""
    settings = parse({"profile": wanted.profile})
    embedder = embedder or LazyEmbedder(settings.embedder)
    router = Router(named(wanted.calibration, identity(settings.embedder)), settings, embedder)
    margin, edges = settings.live.decisive_margin, drift.edges(router.fitted)
    totals = Totals(router.policy.threshold, margin, _prices(wanted, settings), wanted.seed, edges)
    made_with = {"audit": 1, "calibration": router.fitted.sha256, "settings": digest(settings, settings.live)}
    path = wanted.out.with_name(f"{wanted.out.name}.scores.jsonl")
    with _opened(wanted.source) as stream, Journal(path, made_with, say) as journal:
        for piece in _watched(stream, wanted, seen):
            if isinstance(piece, Bad):
                totals.unreadable(piece)
            else:
                _take(piece, router, journal, totals, wanted.answer_tokens)
    if not totals.prompts:
        first = f", the first at {totals.bad_shown[0].number}: {totals.bad_shown[0].why}" if totals.bad else ""
        raise RequestError(f"{wanted.source}: no prompt could be read ({totals.bad} pieces could not{first})")
    return Audit(wanted, router, totals, journal.resumed)


def _take(prompt: Prompt, router: Router, journal: Journal, totals: Totals, answer_tokens: int) -> None:
    key, text = key_of(prompt.body), features.scored_text(prompt.body)
    row = journal.known(key)
    if row is None:
        decision, text = router.decide(prompt)
        found = _scored(prompt.id, decision)
        journal.add({"key": key, **asdict(found)})
    else:
        found = Scored(prompt.id, Tier(row["tier"]), row["reason"], row["score"], row["novel"], row["by_score"])
    told = prompt.answer_tokens
    tokens = body_tokens(prompt.body) if prompt.prompt_tokens is None else prompt.prompt_tokens
    totals.add(found, text[:KEPT_CHARS], tokens, answer_tokens if told is None else told, told=told is not None)


def _scored(name: str, decision: Decision) -> Scored:
    by_score = decision.reason in BY_SCORE
    return Scored(name, decision.tier, decision.reason.value, decision.score.value, decision.novel is not None, by_score)


@contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    if source == STDIN:
        yield sys.stdin.buffer
        return
    with Path(source).open("rb") as stream:
        yield stream


def _watched(stream: BinaryIO, wanted: Wanted, seen: Seen) -> Iterator[Prompt | Bad]:
    size = Path(wanted.source).stat().st_size if wanted.source != STDIN else 0
    for number, piece in enumerate(read(stream, wanted.form), start=1):
        yield piece
        seen(number, stream.tell() if size else 0, size)


def _prices(wanted: Wanted, settings: Settings) -> dict[Tier, TokenPrice]:
    """Raises `SettingsError` naming what is wrong in the file of prices."""
    if wanted.prices is None:
        return {Tier.SMALL: settings.small.price, Tier.LARGE: settings.large.price}
    try:
        data: Any = yaml.safe_load(wanted.prices.read_text(encoding="utf-8"))
        read_prices = Prices.model_validate(data)
    except yaml.YAMLError:
        raise SettingsError([f"{wanted.prices}: not valid YAML"]) from None
    except ValidationError as error:
        raise SettingsError(explain(error, Prices, str(wanted.prices))) from None
    return {Tier.SMALL: read_prices.small, Tier.LARGE: read_prices.large}


def summary(audit: Audit) -> Json:
    """The figures, for `--json`. Dollars are of all prompts together."""
    totals = audit.totals
    before, after = totals.dollars(Tier.LARGE), totals.dollars()
    low, high = totals.interval()
    return {
        "prompts": totals.prompts,
        "unreadable": totals.bad,
        "resumed": audit.resumed,
        "calibration": audit.router.fitted.sha256,
        "kind": audit.router.fitted.kind,
        "threshold": totals.threshold,
        "large": totals.large,
        "large_share": totals.large / totals.prompts,
        "large_share_low": low,
        "large_share_high": high,
        "all_large_usd": before,
        "routed_usd": after,
        "saved_share": 1.0 - after / before if before > 0 else None,
        "answers_told": totals.told_answers,
        "uncertain": totals.banded,
        "uncertain_margin": totals.margin,
        "novel": totals.novel,
        "drift": totals.drift(),
        "reasons": {f"{reason}, {tier.value}": count for (reason, tier), count in totals.reasons.most_common()},
        "out": str(audit.wanted.out),
    }
