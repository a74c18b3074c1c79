"""Demonstration checkpoints of the `local` profile: two tiny chat models and a complexity rater, made by `serve_app.demo.make`."""

from pathlib import Path

BUILTIN = "builtin:"
NAMES = ("tiny-llama-large", "tiny-llama-small", "tiny-qwen-router")


def path(name: str) -> Path:
    """The folder of a packaged checkpoint; `FileNotFoundError` names the valid names."""
    folder = Path(__file__).parent / "models" / name
    if name not in NAMES or not folder.is_dir():
        raise FileNotFoundError(f"no packaged checkpoint {name!r}; there are {', '.join(NAMES)}")
    return folder


def resolve(source: str) -> str:
    """The folder of `builtin:NAME`, anything else as it is; `FileNotFoundError` as in `path`."""
    return str(path(source.removeprefix(BUILTIN))) if source.startswith(BUILTIN) else source
