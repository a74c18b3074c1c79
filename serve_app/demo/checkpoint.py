"""Write a checkpoint folder: weights, configuration and tokenizer."""

from pathlib import Path

from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from serve_app.demo import quantize
from serve_app.demo.architectures import Model

MODELS = Path(__file__).parent / "models"


def save(model: Model, tokenizer: PreTrainedTokenizerFast, name: str, int4: bool = False) -> Path:
    """Write `models/<name>` in bf16, its linear layers packed to INT4 if asked; files of that name are replaced."""
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    fields: dict[str, object] = {"architectures": [type(model).__name__], "dtype": "bfloat16"}
    if int4:
        fields["quantization_config"] = quantize.CONFIG
    model.config.update(fields)
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = folder / "model.safetensors"
    save_file(quantize.state(model, int4), weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    return folder
