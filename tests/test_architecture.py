"""The rules of the house, held against the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import serve_app

ROOT = Path(serve_app.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
MAX_FILE, MAX_FUNCTION = 400, 40
PURE = sorted(
    {"serve_app.pipeline", "serve_app.domain", "serve_app.scoring", "serve_app.stream", "serve_app.ports"}
    | {f"serve_app.routing.{path.stem}" for path in (ROOT / "routing").glob("*.py") if path.stem != "__init__"}
)
FRAMEWORKS = {"ray", "vllm", "torch", "fastapi", "starlette", "sentence_transformers", "transformers", "sqlalchemy", "httpx"}
ENGINE_MODULE = "serve_app.deployments.vllm_server"
BY_HAND = "serve_app.demo.measure"  # measures the demonstration checkpoints; nothing imports it
MEASURING = {"serve_app.bench.load", "serve_app.bench.canned_engine"}  # vLLM's load generator, and an engine in vLLM's place


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in SOURCES}


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Dotted names; `from a import b` gives `a` and `a.b`, since `b` may be a module."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that an import executes: not the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from run_at_import(child)


def reached(module: str) -> set[str]:
    """Everything that importing `module` imports, through our own modules."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        waiting += [current.rpartition(".")[0]] if "." in current else []
        if current in FILES:
            waiting += imported(run_at_import(tree(current)))
    return found


def top_level(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("module", PURE)
def test_the_core_imports_no_framework(module: str) -> None:
    assert top_level(reached(module)) & FRAMEWORKS == set()


def test_the_scan_sees_what_a_module_imports() -> None:
    """The rule above would hold for anything if the scan found nothing."""
    assert "fastapi" in top_level(reached("serve_app.gateway.app"))
    assert "ray" in top_level(reached("serve_app.app"))
    assert "serve_app.routing.features" in reached("serve_app.pipeline")


def test_only_one_module_knows_the_engine() -> None:
    """`ray.serve.llm`, Ray's inside of it, and vLLM: also inside functions."""
    engines = {
        module
        for module in FILES
        if any(name.split(".")[0] == "vllm" or name.startswith(("ray.serve.llm", "ray.llm")) for name in imported(ast.walk(tree(module))))
    }
    assert engines == {ENGINE_MODULE, BY_HAND, *MEASURING}
    assert [module for module in FILES if BY_HAND in imported(ast.walk(tree(module)))] == []
    others = [module for module in FILES if not module.startswith("serve_app.bench.")]
    assert [module for module in others if MEASURING & imported(ast.walk(tree(module)))] == ["serve_app.cli_bench"]


def test_the_engine_module_is_imported_inside_functions_only() -> None:
    """The builder must not pay for importing vLLM."""
    assert [module for module in FILES if module != ENGINE_MODULE and ENGINE_MODULE in imported(run_at_import(tree(module)))] == []


def test_importing_the_core_starts_nothing() -> None:
    """In a fresh interpreter: no thread, no heavy module, no output, no file written."""
    code = f"""
import importlib, sys, threading
for name in {PURE!r}:
    importlib.import_module(name)
assert threading.active_count() == 1, threading.enumerate()
heavy = {sorted(FRAMEWORKS)!r}
assert not [name for name in heavy if name in sys.modules], [name for name in heavy if name in sys.modules]
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_line_starts_without_a_framework() -> None:
    """`tierwise --help` answers at once: a command imports what it needs."""
    assert top_level(reached("serve_app.cli")) & (FRAMEWORKS | {"sklearn", "numpy"}) == set()


@pytest.mark.parametrize("module", FILES)
def test_files_stay_short(module: str) -> None:
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= MAX_FILE


@pytest.mark.parametrize("module", FILES)
def test_functions_stay_short(module: str) -> None:
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {node.name: lines for node in functions if (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION}
    assert long == {}


def is_broad(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds)


@pytest.mark.parametrize("module", FILES)
def test_a_broad_except_says_why_or_raises(module: str) -> None:
    lines = FILES[module].read_text(encoding="utf-8").splitlines()
    silent = [
        node.lineno
        for node in ast.walk(tree(module))
        if isinstance(node, ast.ExceptHandler)
        and is_broad(node)
        and " - " not in lines[node.lineno - 1].partition("#")[2]
        and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
    ]
    assert silent == []


@pytest.mark.parametrize("module", FILES)
def test_nothing_is_called_at_import_but_declarations(module: str) -> None:
    """A bare call at module level is an effect; one that completes a class of the same module is part of its declaration."""
    own = {node.name for node in tree(module).body if isinstance(node, ast.ClassDef)}
    calls = [node.value.func for node in tree(module).body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    effects = [ast.unparse(call) for call in calls if ast.unparse(call).split(".")[0] not in own]
    assert effects == []
