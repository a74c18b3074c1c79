"""Early exit: whether the small tier doubts what it is saying, read from the log-probabilities of its own tokens. Pure.

The first tokens of its answer are held back while they are watched. Below a measured threshold nothing of them goes out, and the
large tier answers. Only requests are watched whose answer would otherwise look the same: the log-probabilities that are asked
for here are cut out again (`logprobs.py`).
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from serve_app.domain import Confidence, Decision, Json, Kind, Mode, Reason, Request, Tier
from serve_app.settings import EarlyExit

WINDOW = 4
CANDIDATES = 2  # the sampled token and its runner-up; vLLM counts the sampled one among a chat's candidates
BY_SCORE = (Reason.SCORE_BELOW, Reason.CAPACITY, Reason.NOVELTY)
ROUTED = (Mode.NORMAL, Mode.CANARY)
# Early exit was not tried with the first four; with the others, log-probabilities tell of the constraint as much as of the model.
UNTESTED = ("tools", "response_format", "structured_outputs", "echo", "logit_bias", "bad_words", "min_tokens", "ignore_eos")


class Watch:
    """Owns the sums over the tokens that it was shown; only the first `most` count, all of them when it is None."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._logprobs = 0.0
        self._leads = 0.0
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._low: float | None = None
        self.tokens = 0

    @property
    def full(self) -> bool:
        """Whether more tokens would not change a thing."""
        return self._most is not None and self.tokens >= self._most

    def add(self, tokens: Iterable[tuple[float, float]]) -> None:
        """Look at more tokens, each as its log-probability and its lead over the runner-up."""
        for logprob, lead in tokens:
            if self.full:
                return
            self.tokens += 1
            self._logprobs += logprob
            self._leads += lead
            self._last.append(logprob)
            if len(self._last) == WINDOW:
                mean = sum(self._last) / WINDOW
                self._low = mean if self._low is None else min(self._low, mean)

    def confidence(self) -> Confidence:
        """What the tokens so far say; zeros before the first one."""
        if not self.tokens:
            return Confidence(0, 0.0, 0.0, 0.0)
        mean = self._logprobs / self.tokens
        return Confidence(self.tokens, mean, mean if self._low is None else self._low, self._leads / self.tokens)


def watches(request: Request, decision: Decision, settings: EarlyExit) -> bool:
    """Whether this answer of the small tier may be given up for one of the large tier, and can be watched unseen."""
    return (
        settings.enabled
        and decision.tier is Tier.SMALL
        and decision.reason in BY_SCORE
        and decision.mode in ROUTED
        and decision.chosen in (None, Tier.SMALL)
        and request.explicit_tier is None
        and Tier.LARGE in decision.allowed
        and Tier.LARGE in request.client.tiers
        and _can_be_watched(request.body)
    )


def _can_be_watched(body: Mapping[str, Any]) -> bool:
    """One plain text whose log-probabilities the client does not want itself."""
    if any(body.get(field) for field in UNTESTED) or body.get("n") not in (None, 1):
        return False
    logprobs, prompt = body.get("logprobs"), body.get("prompt")
    wanted = logprobs is not None and logprobs is not False  # a completion's 0 asks for the sampled tokens' own
    return not wanted and (not isinstance(prompt, list) or len(prompt) == 1)


def doubts(confidence: Confidence, settings: EarlyExit, *, whole: bool = False) -> bool:
    """Whether the chosen statistic is below its threshold: another one for a `whole` answer, which has more tokens to be unsure of.

    Without any token there is nothing to doubt.
    """
    statistic: float = getattr(confidence, settings.statistic)
    own = settings.whole_threshold if whole else None
    return confidence.tokens > 0 and statistic < (settings.threshold if own is None else own)


def asked(kind: Kind, body: Json) -> Json:
    """The engine's body with log-probabilities switched on. Does not change which tokens are sampled."""
    if kind == "chat":
        return {**body, "logprobs": True, "top_logprobs": CANDIDATES}
    return {**body, "logprobs": CANDIDATES}
