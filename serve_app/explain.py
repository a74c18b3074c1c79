"""What is wrong with settings, in words: one line per problem, its path, and the nearest known key."""

import difflib
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, model: type[BaseModel], root: str) -> list[str]:
    """One line per problem: its path, what is wrong, and for an unknown key the nearest known one."""
    lines: dict[str, str] = {}
    for item in error.errors(include_url=False, include_context=False):
        path = [part for part in item["loc"] if not _is_union_tag(part)]
        where = ".".join([root, *map(str, path)])
        if item["type"] == "extra_forbidden":
            known = sorted(known_keys(model, path[:-1]))
            text = f"unknown key{nearest(str(path[-1]), known)}"
        elif item["type"] == "missing":
            text = "needed, but missing"
        else:
            text = f"{item['msg'][0].lower()}{item['msg'][1:]}, got {_short(item['input'])}"
        lines[where] = f"{lines[where]}; or {text}" if where in lines else f"{where}: {text}"
    return list(lines.values())


def _is_union_tag(part: int | str) -> bool:
    """pydantic puts the branch of a union into the path; that is no key of the file."""
    return isinstance(part, str) and (part in {"float", "constrained-float"} or "[" in part)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """`, did you mean X?` or nothing."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}" if len(known) <= 12 else ""


def known_keys(model: type[BaseModel], path: list[int | str]) -> set[str]:
    """The keys that `model` knows at `path`."""
    for part in path:
        if isinstance(part, int):
            continue
        inner = next(_models_in(model.model_fields[part].annotation), None) if part in model.model_fields else None
        if inner is None:
            return set()
        model = inner
    return set(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, Annotated, list):
        for argument in get_args(annotation):
            yield from _models_in(argument)
