"""Round a model's linear layers to INT4 (w4a16, groups of 32) in compressed-tensors' packed format, as vLLM reads it."""

from typing import Any

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from torch import Tensor, nn

BITS = 4
GROUP = 32
LEVELS = 2 ** (BITS - 1)

CONFIG: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "input_activations": None,
            "output_activations": None,
            "weights": {"num_bits": BITS, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP, "dynamic": False},
        }
    },
}


def linear_names(model: nn.Module) -> list[str]:
    """The layers that are quantized: every linear one except the tied output head."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]


def grouped(matrix: Tensor) -> Tensor:
    """[rows, columns] as fp32 of shape [rows, columns / GROUP, GROUP]."""
    return matrix.detach().float().reshape(matrix.shape[0], -1, GROUP)


def scales(weight: Tensor) -> Tensor:
    """One bf16 scale for each row and each `GROUP` inputs: [rows, columns / GROUP]."""
    groups = grouped(weight)
    return (groups.abs().amax(-1) / (LEVELS - 0.5)).clamp(min=1e-5).bfloat16()


def integers(weight: Tensor, scale: Tensor) -> Tensor:
    """The nearest integers in [-8, 7], as int8 of the weight's shape."""
    groups = grouped(weight) / scale.float().unsqueeze(-1)
    nearest: Tensor = groups.round().clamp(-LEVELS, LEVELS - 1)
    return nearest.flatten(1).to(torch.int8)


def rounded(weight: Tensor) -> Tensor:
    """The weight as the engine will see it after packing and unpacking."""
    scale = scales(weight)
    groups = grouped(integers(weight, scale)) * scale.float().unsqueeze(-1)
    return groups.flatten(1).to(weight.dtype)


def state(model: nn.Module, int4: bool) -> dict[str, Tensor]:
    """What a checkpoint stores: bf16 tensors; if `int4`, each linear weight as `weight_packed`, `weight_scale` and `weight_shape`."""
    linear = {f"{name}.weight" for name in linear_names(model)} if int4 else set()
    tensors: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if key in linear:
            tensors.update(packed(key, value))
        elif key != "lm_head.weight":  # tied to the embedding
            tensors[key] = value.bfloat16().contiguous()
    return tensors


def packed(key: str, weight: Tensor) -> dict[str, Tensor]:
    """The three tensors that stand for one quantized weight; eight integers share one int32."""
    scale = scales(weight)
    return {
        f"{key}_packed": pack_to_int32(integers(weight, scale), BITS).contiguous(),
        f"{key}_scale": scale.contiguous(),
        f"{key}_shape": torch.tensor(weight.shape),
    }
