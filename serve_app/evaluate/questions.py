"""Which rows ask the same question: those must never lie on both sides of a split. Pure.

Two prompts ask the same when four fifths of the eight-word runs of the shorter one, its answer options left out, are in the
other too. Runs that many prompts share are a template and decide nothing.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

RUN = 8
SHORT = 5  # words; a shorter prompt is only the same as its equal
COMMON = 12  # prompts; a run that more of them hold is a template
SHARED, RARE_SHARED = 0.8, 0.6
_WORDS = re.compile(r"[a-z0-9]+")
_OPTIONS = re.compile(r"\n\s*\(?A[.)]\s|\n\s*Options:|\n?After careful thought, put you|\n?Print only a single")
Run = tuple[str, ...]


def groups_of(prompts: Sequence[str]) -> list[str]:
    """A name for the question of each prompt, equal where the question is."""
    runs = [_runs(prompt) for prompt in prompts]
    holders: defaultdict[Run, list[int]] = defaultdict(list)
    for index, mine in enumerate(runs):
        for run in mine:
            holders[run].append(index)
    parent = list(range(len(prompts)))
    first_of: dict[str, int] = {}
    for index, prompt in enumerate(prompts):
        _join(parent, index, first_of.setdefault(prompt, index))
    for a, b in _same(runs, holders):
        _join(parent, a, b)
    return [str(_root(parent, index)) for index in range(len(prompts))]


def _same(runs: list[frozenset[Run]], holders: dict[Run, list[int]]) -> list[tuple[int, int]]:
    rare = [sum(len(holders[run]) <= COMMON for run in mine) for mine in runs]
    together: Counter[tuple[int, int]] = Counter()
    for holding in holders.values():
        if 2 <= len(holding) <= COMMON:
            together.update(itertools.combinations(holding, 2))
    return [
        (a, b)
        for (a, b), count in together.items()
        if count >= RARE_SHARED * min(rare[a], rare[b]) and len(runs[a] & runs[b]) >= SHARED * min(len(runs[a]), len(runs[b]))
    ]


def _runs(prompt: str) -> frozenset[Run]:
    """Eight-word runs of the question; the whole of a short one; none of one of a few words."""
    options = _OPTIONS.search(prompt, 20)
    words = _WORDS.findall((prompt if options is None else prompt[: options.start()]).lower())
    if len(words) < SHORT:
        return frozenset()
    return frozenset(tuple(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1)))


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def _join(parent: list[int], a: int, b: int) -> None:
    """The lower index names the group, so that the names do not depend on the order of the pairs."""
    low, high = sorted((_root(parent, a), _root(parent, b)))
    parent[high] = low
