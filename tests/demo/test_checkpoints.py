"""The packaged demonstration checkpoints are what their cards say."""

import json
import random
import re
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from serve_app import demo
from serve_app.demo import dialogues, router_data
from serve_app.demo.rating import ratings
from serve_app.evaluate import labelled

EASY = (
    "What is the capital of Norway?",
    "How do I clean a coffee machine?",
    "Translate to French: good evening, my friends",
    "hi, where can i see my last bill?",
    "Give me three names for a dog",
)
HARD = (
    "Prove that every finite integral domain is a field, and say where finiteness is used.",
    "Design a cache that stays consistent across regions during a network partition, and explain the trade-offs.",
    "Two clauses of our supply contract contradict each other. Which one governs under English law, and how would the other side argue?",
    "Derive the variance of the estimator and compare its bias with that of the bootstrap.",
    "After each failover a few orders are processed twice. Analyse the possible causes and propose a protocol that rules them out.",
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(demo.path("tiny-qwen-router"))


@pytest.fixture(scope="module")
def router() -> Any:
    torch.set_num_threads(1)
    return load("tiny-qwen-router")


def load(name: str) -> Any:
    """A checkpoint in fp32, ready to be run."""
    model: Any = AutoModelForCausalLM.from_pretrained(demo.path(name), dtype=torch.float32)
    return model.eval()


def config(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((demo.path(name) / "config.json").read_text())
    return found


def test_an_unknown_name_is_refused_with_the_valid_ones() -> None:
    """A typo in a profile says what there is."""
    with pytest.raises(FileNotFoundError, match="tiny-llama-large, tiny-llama-small, tiny-qwen-router"):
        demo.path("tiny-lama")


def test_the_models_are_small_enough_for_git() -> None:
    """All checkpoints together stay under 30 MB."""
    files = [file for name in demo.NAMES for file in demo.path(name).rglob("*")]
    assert 1_000_000 < sum(file.stat().st_size for file in files) < 30_000_000


@pytest.mark.parametrize("name", demo.NAMES)
def test_dimensions_suit_the_cpu_kernels(name: str) -> None:
    """vLLM's CPU kernels need multiples of 32, and head sizes of at least 32."""
    found = config(name)
    head = found.get("head_dim") or found["hidden_size"] // found["num_attention_heads"]
    dimensions = [found["hidden_size"], found["intermediate_size"], found["vocab_size"], head, head * found["num_key_value_heads"]]
    assert [value % 32 for value in dimensions] == [0] * 5
    assert found["max_position_embeddings"] >= 2048
    assert found["tie_word_embeddings"] is True


def test_the_large_model_is_much_deeper() -> None:
    """A decode step costs what its layers cost, so that depth makes the large tier dear."""
    assert config("tiny-llama-large")["num_hidden_layers"] >= 10 * config("tiny-llama-small")["num_hidden_layers"]


def test_the_small_model_is_int4_in_groups_of_32() -> None:
    """w4a16 in compressed-tensors' packed format: eight weights in an int32, one scale for each 32."""
    quantization = config("tiny-llama-small")["quantization_config"]
    weights = quantization["config_groups"]["group_0"]["weights"]
    assert (quantization["quant_method"], quantization["format"]) == ("compressed-tensors", "pack-quantized")
    assert (weights["num_bits"], weights["group_size"], weights["symmetric"]) == (4, 32, True)
    assert quantization["config_groups"]["group_0"]["input_activations"] is None
    with safe_open(demo.path("tiny-llama-small") / "model.safetensors", "pt") as tensors:
        prefix = "model.layers.0.mlp.down_proj.weight"
        rows, columns = tensors.get_tensor(f"{prefix}_shape").tolist()
        assert tensors.get_tensor(f"{prefix}_packed").shape == (rows, columns // 8)
        assert tensors.get_tensor(f"{prefix}_scale").shape == (rows, columns // 32)


@pytest.mark.parametrize("name", ["tiny-llama-large", "tiny-qwen-router"])
def test_other_weights_are_bf16(name: str) -> None:
    """No checkpoint carries twice the bytes that it needs."""
    with safe_open(demo.path(name) / "model.safetensors", "pt") as tensors:
        assert {tensors.get_slice(key).get_dtype() for key in tensors.keys()} == {"BF16"}  # noqa: SIM118 - not a mapping


def test_the_models_share_one_tokenizer() -> None:
    """The three folders hold the same tokenizer, byte for byte."""
    assert len({(demo.path(name) / "tokenizer.json").read_bytes() for name in demo.NAMES}) == 1


def test_digits_are_single_tokens(tokenizer: Any) -> None:
    """A rating is one token, and a number is as many tokens as digits."""
    assert [len(tokenizer.encode(digit)) for digit in "0123456789"] == [1] * 10
    assert tokenizer.tokenize("2048") == ["2", "0", "4", "8"]
    assert tokenizer.decode(tokenizer.encode("naïve 42 – ok\n")) == "naïve 42 – ok\n"


def test_special_tokens_in_user_text_can_be_split(tokenizer: Any) -> None:
    """A user's text cannot close its own delimiter, yet the template's markers are single tokens."""
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.encode("<|im_end|>") == [end] == [tokenizer.eos_token_id]
    split = tokenizer.encode("a<|im_end|>b", split_special_tokens=True)
    assert end not in split
    assert tokenizer.decode(split) == "a<|im_end|>b"


def test_the_chat_template_takes_tools(tokenizer: Any) -> None:
    """Tool definitions, tool calls, tool answers and content parts are rendered."""
    function = {"name": "weather", "arguments": {"city": "Oslo"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Is it cold in Oslo?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "1", "content": "-3 degrees"},
    ]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nBe brief.\n\n")
    assert text.endswith("<tool_response>\n-3 degrees\n</tool_response><|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|im_start|>system") == 1
    assert "Is it cold in Oslo?" in text
    assert '{"name": "weather", "arguments": {"city": "Oslo"}}' in text


def test_easy_prompts_are_rated_below_hard_ones(router: Any, tokenizer: Any) -> None:
    """Every clearly easy prompt is below every clearly hard one, and the two groups lie well apart."""
    easy, hard = ratings(router, tokenizer, EASY), ratings(router, tokenizer, HARD)
    assert easy.max() < hard.min()
    assert hard.mean() - easy.mean() > 0.3


def test_the_same_prompt_gets_the_same_rating(router: Any, tokenizer: Any) -> None:
    """A rating depends on the prompt alone, however long it is."""
    texts = [HARD[0], "word " * 2000, HARD[0], ""]
    first = ratings(router, tokenizer, texts)
    assert first.tolist() == ratings(router, tokenizer, texts).tolist()
    assert first[0] == first[2]
    assert ((first >= 0) & (first <= 1)).all()


def test_a_chat_answer_is_english_and_ends() -> None:
    """The large checkpoint answers a question of its own corpus and stops by itself."""
    model, tokenizer = load("tiny-llama-large"), AutoTokenizer.from_pretrained(demo.path("tiny-llama-large"))
    messages = [{"role": "user", "content": "What is a hammer used for?"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0, inputs.input_ids.shape[1] :].tolist()
    assert output[-1] == tokenizer.eos_token_id
    assert "hammer" in tokenizer.decode(output)


def test_the_corpus_holds_no_labelled_prompt() -> None:
    """What the chat models and the router's invented requests are made of never repeats a prompt that routing is judged by."""
    corpus = dialogues.load()
    asked = {question for part in (corpus.train, corpus.held_grammar, corpus.held_written) for talk in part for question, _ in talk.turns}
    invented = {text for text, _ in router_data.requests(random.Random(0))}
    assert len(asked) > 4000
    judged = [*labelled.first(), *labelled.split(labelled.packaged())[1]]
    assert not {plain(row.prompt) for row in judged} & {plain(text) for text in asked | invented}


def plain(text: str) -> str:
    """Letters and digits only, so that casing and marks do not hide a repetition."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
