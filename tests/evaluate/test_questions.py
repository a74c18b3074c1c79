"""The same question in other words around it is one group."""

from serve_app.evaluate.questions import groups_of

QUESTION = "A train leaves the old station at noon with forty passengers and seven crates of apples; how many apples arrive in the evening?"


def test_the_same_question_with_other_options_or_frame_is_one_group() -> None:
    prompts = [f"{QUESTION}\nA) 1\nB) 2", f"{QUESTION}\nA) 3\nB) 4", f"Think first, then answer. {QUESTION}"]
    assert len(set(groups_of(prompts))) == 1


def test_different_questions_in_the_same_frame_are_not() -> None:
    frame = "Answer the question below as well as you can and give only the final letter. "
    prompts = [f"{frame}{topic} {i} {QUESTION.split()[i]}" for i, topic in enumerate(["bread", "ships", "snow"] * 6)]
    assert len(set(groups_of(prompts))) == len(prompts)


def test_equal_prompts_are_one_group_however_short() -> None:
    assert groups_of(["hi", "Why?", "hi"]) == ["0", "1", "0"]


def test_short_prompts_that_differ_are_not() -> None:
    assert len(set(groups_of(["What is 2+2?", "What is 2+3?", "hello", "what is"]))) == 4
