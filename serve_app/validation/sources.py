"""The names that the installed Ray and vLLM know, read from their source text: importing either takes seconds."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

SERVE_FILES = ("serve/schema.py", "serve/config.py")
VLLM_FILES = ("engine/arg_utils.py", "entrypoints/launchers/cli_args.py", "config/cache.py")
VLLM_CLASSES = ("AsyncEngineArgs", "FrontendArgs")  # Ray sorts `engine_kwargs` into these two
GPU_MEMORY_UTILIZATION = 0.92  # vLLM 0.29's default, where vLLM is not installed


def serve_keys(schema: str) -> frozenset[str] | None:
    """The keys of one of Serve's schemas; None when the installed Ray has no such class, or there is no Ray."""
    return _fields(schema, _classes("ray", SERVE_FILES))


def vllm_keys() -> frozenset[str] | None:
    """All names that `engine_kwargs` may hold; None without vLLM or with one that keeps them elsewhere."""
    known = [_fields(name, _classes("vllm", VLLM_FILES)) for name in VLLM_CLASSES]
    return None if None in known else frozenset[str]().union(*(names for names in known if names))


@cache
def gpu_memory_utilization() -> float:
    """vLLM's default, from `CacheConfig`."""
    cls = _classes("vllm", VLLM_FILES).get("CacheConfig")
    for node in cls.body if cls else ():
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "gpu_memory_utilization" and isinstance(node.value, ast.Call):
            defaults = [keyword.value for keyword in node.value.keywords if keyword.arg == "default"]
            if defaults and isinstance(defaults[0], ast.Constant) and isinstance(defaults[0].value, float):
                return defaults[0].value
    return GPU_MEMORY_UTILIZATION


@cache
def _classes(package: str, files: tuple[str, ...]) -> dict[str, ast.ClassDef]:
    """The classes of these files by name. A top-level `find_spec` imports nothing; `find_spec("ray.serve")` would import Ray."""
    spec = find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    found: dict[str, ast.ClassDef] = {}
    for folder in folders or ():
        for file in files:
            found.update(_classes_in(Path(folder) / file))
    return found


def _classes_in(file: Path) -> dict[str, ast.ClassDef]:
    try:
        module = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    return {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}


def _fields(name: str, classes: dict[str, ast.ClassDef]) -> frozenset[str] | None:
    """The annotated names of a class and of those of its bases that stand in the same files."""
    cls = classes.get(name)
    if cls is None:
        return None
    own = {node.target.id for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _is_field(node)}
    inherited = (_fields(ast.unparse(base), classes) for base in cls.bases)
    return frozenset(own).union(*(names for names in inherited if names))


def _is_field(node: ast.AnnAssign) -> bool:
    """A leading underscore is private to pydantic, and nothing that a file should set in vLLM's dataclasses."""
    return not ast.unparse(node.target).startswith("_") and not ast.unparse(node.annotation).startswith("ClassVar")
