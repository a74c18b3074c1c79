"""Ways to send the same request differently: seeded, and what is asked stays in it."""

import pytest

from serve_app.evaluate import perturb

PROMPTS = [
    "Why is the night sky dark?",
    "Translate to German: good evening, dear neighbours, and welcome to the garden",
    "日本で一番長い川は何ですか？",
]


@pytest.mark.parametrize("name", perturb.ALL)
def test_the_same_seed_gives_the_same_texts_whatever_else_is_perturbed(name: str) -> None:
    alone = [perturb.perturbed([prompt], name, 3)[0] for prompt in PROMPTS]
    assert perturb.perturbed(PROMPTS, name, 3) == alone


@pytest.mark.parametrize("name", sorted(set(perturb.ALL) - {"typos", "lower", "upper"}))
def test_the_request_stays_in_it_word_for_word(name: str) -> None:
    for prompt, changed in zip(PROMPTS, perturb.perturbed(PROMPTS, name, 0), strict=True):
        assert prompt in changed
        assert len(changed) > len(prompt)


def test_typos_change_a_few_letters_and_never_the_first_of_a_word() -> None:
    long = PROMPTS[1] * 20
    (changed,) = perturb.perturbed([long], "typos", 0)
    assert changed != long
    assert 0 <= len(long) - len(changed) < len(long) / 20
    assert [word[0] for word in changed.split()] == [word[0] for word in long.split()]


def test_another_seed_gives_other_texts() -> None:
    assert perturb.perturbed(PROMPTS * 3, "politeness", 0) != perturb.perturbed(PROMPTS * 3, "politeness", 1)
