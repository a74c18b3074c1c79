"""The shapes of the three checkpoints. Every dimension is a multiple of 32, as vLLM's CPU kernels need."""

from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from serve_app.demo.make_tokenizer import VOCABULARY

Model = Any
"""A transformers causal language model; its attributes have no types that a checker could follow."""

SMALL_LAYERS = 2
MIDDLE_LAYERS = 8
LARGE_LAYERS = 40
ROUTER_LAYERS = 3
PAD_ID, END_ID = 0, 2


def shape(layers: int) -> dict[str, Any]:
    """The fields that all configurations share. Width and heads are small: depth alone decides the time of a decode step."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "pad_token_id": PAD_ID,
        "eos_token_id": END_ID,
    }


def generation(**fields: Any) -> GenerationConfig:
    """Generation defaults that stop at the end of a message."""
    return GenerationConfig(eos_token_id=END_ID, pad_token_id=PAD_ID, **fields)


def llama(layers: int) -> Model:
    """A chat model with random weights; its generation defaults are cool, because a tiny model is soon off the rails."""
    model: Model = LlamaForCausalLM(LlamaConfig(**shape(layers)))
    model.generation_config = generation(do_sample=True, temperature=0.2, top_p=0.9)
    return model


def router() -> Model:
    """A complexity rater with random weights."""
    model: Model = Qwen2ForCausalLM(Qwen2Config(**shape(ROUTER_LAYERS)))
    model.generation_config = generation(do_sample=False)
    return model


def grow(model: Model, layers: int) -> Model:
    """A deeper model that computes the same as `model`: its layers, each followed by new ones that add nothing yet.

    Growing a trained shallow model costs far less than training the deep one from the start.
    """
    deep = llama(layers)
    old, new = model.model.layers, deep.model.layers
    every = len(new) // len(old)
    deep.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    deep.model.norm.load_state_dict(model.model.norm.state_dict())
    with torch.no_grad():
        for index, layer in enumerate(new):
            if index % every == 0:
                layer.load_state_dict(old[index // every].state_dict())
            else:
                silence(layer.self_attn.o_proj)
                silence(layer.mlp.down_proj)
    return deep


def silence(linear: nn.Linear) -> None:
    """Make a projection return zeros; its gradient is not zero, so that training brings it to life."""
    linear.weight.zero_()
