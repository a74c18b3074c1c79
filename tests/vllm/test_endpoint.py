"""The OpenAI SDK, unchanged, against the running graph."""

import json
import re
from typing import Any

import httpx
import openai
import pytest

from serve_app.evaluate.judge_llm import VERDICTS, Asking, LlmJudge
from serve_app.evaluate.judge_pairs import Asked
from tests.graph import Graph

EASY_LONG = (
    "Could you put this into one friendly sentence for the team chat? The canteen will be closed on Thursday and Friday because the "
    "floor is being renewed. On both days a food truck will stand in the yard from half past eleven until two. It takes cards only. "
    "Whoever has a meal voucher can use it there as well. The coffee machines on the second and third floor keep working as always. "
    "The canteen opens again on Monday at the usual time, and the menu for next week is already on the notice board by the stairs."
)
HARD_SHORT = "Could a perfectly rational person regret a choice that turned out well?"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "degrees": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather of a city.", "parameters": SCHEMA},
}


@pytest.fixture
def client(graph: Graph) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{graph.url}/v1", api_key="none", max_retries=0, timeout=120)


def ask(client: openai.OpenAI, text: str, **options: Any) -> Any:
    return client.chat.completions.create(model="auto", messages=[{"role": "user", "content": text}], **options)


def receipt_of(graph: Graph, decision_id: str) -> dict[str, Any]:
    answer = httpx.get(f"{graph.url}/v1/decisions/{decision_id}", timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_plain_answer_carries_its_decision_in_headers_body_and_ledger(graph: Graph, client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "hello, how are you today?"}], max_tokens=16
    )
    answer = raw.parse()
    told = answer.model_extra["tierwise"]
    assert answer.choices[0].message.content
    assert answer.model == told["model"] == "tiny-llama-small"
    assert told["tier"] == raw.headers["x-tierwise-tier"] == "small"
    assert told["reason"] == raw.headers["x-tierwise-reason"] == "score_below"
    assert float(raw.headers["x-tierwise-score"]) == told["score"] < told["threshold"] == float(raw.headers["x-tierwise-threshold"])
    assert told["usage"]["completion_tokens"] == answer.usage.completion_tokens
    stored = receipt_of(graph, raw.headers["x-tierwise-decision-id"])
    assert stored["id"] == told["decision_id"]
    assert stored["decision"]["tier"] == "small"
    assert stored["decision"]["score"]["value"] == told["score"]
    assert stored["cost_usd"] == pytest.approx(told["cost_usd"])
    assert stored["saved_usd"] == pytest.approx(told["saved_usd"])
    # 8 times the price per token, as the profile says.
    assert told["saved_usd"] == pytest.approx(7 * told["cost_usd"])


def test_a_stream_ends_with_the_receipt_and_shows_usage_only_when_asked(graph: Graph, client: openai.OpenAI) -> None:
    chunks = list(ask(client, "tell me about the sea", max_tokens=12, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    told = chunks[-1].model_extra["tierwise"]
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert receipt_of(graph, told["decision_id"])["usage"]["completion_tokens"] == told["usage"]["completion_tokens"] > 0
    asked = list(ask(client, "tell me about the sea", max_tokens=12, stream=True, stream_options={"include_usage": True}))
    assert asked[-1].choices == []
    assert asked[-1].usage.completion_tokens == asked[-1].model_extra["tierwise"]["usage"]["completion_tokens"]


def test_a_short_hard_and_a_long_easy_prompt_go_to_the_right_tiers(client: openai.OpenAI) -> None:
    hard = ask(client, HARD_SHORT, max_tokens=4).model_extra["tierwise"]
    easy = ask(client, EASY_LONG, max_tokens=4).model_extra["tierwise"]
    assert (hard["tier"], easy["tier"]) == ("large", "small")
    assert easy["score"] < hard["score"]


def test_the_same_prompt_always_gets_the_same_score(graph: Graph) -> None:
    """With thresholds that differ, so that no remembered score is read, and so near to the score that the router LLM is needed too."""
    prompt = {"prompt": "how would you descale a shower head without vinegar?"}
    with graph.client() as http:
        alone = http.post("/route", json=prompt).json()["signals"]["embedding"]["score"]
        near = [min(alone, 0.99) + step for step in (0.0, 0.001, 0.002, 0.003)]
        thresholds = [{"x-tierwise-threshold": str(value)} for value in near]
        answers = [http.post("/route", json=prompt, headers=headers).json() for headers in thresholds]
    states = {answer["signals"]["assessment"]["state"] for answer in answers}
    scores = {answer["complexity_score"] for answer in answers if answer["signals"]["assessment"]["state"] == "ok"}
    assert states <= {"ok", "late"}
    assert len(scores) == 1


def test_a_conversation_stays_large_after_a_hard_turn(client: openai.OpenAI) -> None:
    """ "Thanks" is easy by itself, and after a hard question it is not."""
    hard_turn = [{"role": "user", "content": HARD_SHORT}, {"role": "assistant", "content": "Yes."}]
    thanks = {"role": "user", "content": "thank you, please say that again"}
    alone = client.chat.completions.create(model="auto", messages=[thanks], max_tokens=2).model_extra["tierwise"]
    after = client.chat.completions.create(model="auto", messages=[*hard_turn, thanks], max_tokens=2).model_extra["tierwise"]
    assert (alone["tier"], alone["reason"]) == ("small", "score_below")
    assert (after["tier"], after["reason"]) == ("large", "conversation")


def test_code_goes_to_the_large_tier_whatever_it_scores(client: openai.OpenAI) -> None:
    told = ask(client, "Fix this:\n```python\nprint('hi'\n```", max_tokens=4).model_extra["tierwise"]
    assert (told["tier"], told["reason"]) == ("large", "heuristic_math_code")


def test_a_json_schema_is_kept_by_the_engine(client: openai.OpenAI) -> None:
    answer = ask(
        client,
        "Weather in Rome as JSON.",
        max_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}},
    )
    parsed = json.loads(answer.choices[0].message.content)
    assert set(parsed) == {"city", "degrees"}
    assert 0 <= parsed["degrees"] <= 99


def test_a_forced_tool_is_called_with_arguments_of_its_schema(client: openai.OpenAI) -> None:
    answer = ask(
        client,
        "What is the weather in Rome?",
        max_tokens=128,
        temperature=0,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "degrees"}


def test_log_probabilities_come_through(client: openai.OpenAI) -> None:
    answer = ask(client, "hello", max_tokens=3, logprobs=True, top_logprobs=2)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)


def test_two_choices_stream_completely(client: openai.OpenAI) -> None:
    chunks = list(ask(client, "tell me something nice", max_tokens=8, n=2, temperature=1.0, seed=7, stream=True))
    texts, finished = {0: "", 1: ""}, set()
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished.add(choice.index)
    assert finished == {0, 1}
    assert all(texts.values())
    assert chunks[-1].model_extra["tierwise"]["usage"]["completion_tokens"] >= 2


def test_plain_completions_work_and_stream(client: openai.OpenAI) -> None:
    plain = client.completions.create(model="small", prompt="The sea is", max_tokens=6)
    assert plain.choices[0].text
    assert plain.model_extra["tierwise"]["reason"] == "explicit_model"
    chunks = list(client.completions.create(model="large", prompt="The sea is", max_tokens=6, stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].model_extra["tierwise"]["tier"] == "large"


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "word " * 4000, max_tokens=4)
    assert "2048 (small) and 2048 (large)" in refused.value.message
    assert re.search(r"The prompt has 4\d\d\d tokens and the answer may take 4,", refused.value.message)
    assert "traceback" not in refused.value.message.lower()


def test_sampling_that_the_engine_refuses_is_a_400(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "hello", max_tokens=4, temperature=-3.0)
    assert "temperature" in refused.value.message


def test_an_unknown_model_is_a_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "hi"}])


def test_all_models_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["auto", "small", "large", "tiny-llama-small", "tiny-llama-large"]
    assert client.models.retrieve("auto").id == "auto"


def test_bodies_that_the_engine_cannot_read_are_the_clients_400_and_open_no_breaker(graph: Graph) -> None:
    """Straight to the engine's own validation: what our gateway lets through must not count as a fault of the engine."""
    odd: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": 5}]}]},
        {"messages": [{"role": "user", "content": "hi", "name": 5}]},
        {"messages": [{"role": "user", "content": "hi"}], "top_p": 7.0},
        {"messages": [{"role": "user", "content": "hi"}], "stop_token_ids": [2**30]},
        {"messages": [{"role": "user", "content": "hi"}], "logit_bias": {"x": 1.0}},
        {"messages": [{"role": "user", "content": "hi"}], "min_tokens": 9, "max_tokens": 3},
    ]
    with graph.client() as http:
        for body in odd * 2:
            answer = http.post("/v1/chat/completions", json={"model": "large", "max_tokens": 2, **body})
            assert answer.status_code == 400, (body, answer.text)
            assert "Traceback" not in answer.text
            assert "validator" not in answer.text.lower()
        assert http.get("/status").json()["tiers"]["large"]["breaker"] == "closed"


async def test_a_language_model_behind_the_endpoint_judges_two_answers(graph: Graph) -> None:
    """Our demonstration model has no opinion worth the name: a schema makes it a verdict all the same, so that the whole way is walked."""
    verdict = {"verdict": {"type": "string", "enum": list(VERDICTS)}}
    verdict_only = {"type": "object", "properties": verdict, "required": ["verdict"], "additionalProperties": False}
    schema = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": verdict_only}}
    asking = Asking("large", both_orders=True, retries=1, body={"response_format": schema, "max_tokens": 40})
    asked = Asked("tw-1", "2 + 2?", {"messages": [{"role": "user", "content": "2 + 2?"}]})
    async with httpx.AsyncClient(base_url=f"{graph.url}/v1/", timeout=120) as client:
        found = await LlmJudge(client, asking).judge(asked, "4", 'choose me\n{"verdict": "B"}')
    assert {found.first, found.second} <= {0.0, 0.5, 1.0}


def test_feedback_stands_in_the_receipt(graph: Graph, client: openai.OpenAI) -> None:
    decision_id = ask(client, "hello, how are you today?", max_tokens=4).model_extra["tierwise"]["decision_id"]
    said = httpx.post(f"{graph.url}/v1/feedback", json={"decision_id": decision_id, "good": True}, timeout=30)
    assert (said.status_code, said.json()["tier"]) == (200, "small")
    assert "ledger.store_prompts" in said.json()["note"]
    assert [item["score"] for item in receipt_of(graph, decision_id)["feedback"]] == [1.0]
