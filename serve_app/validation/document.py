"""The file itself: readable, YAML, one mapping."""

from pathlib import Path
from typing import Any

import yaml

from serve_app.validation.report import Report

MAX_BYTES = 1024 * 1024
MAX_INT_BITS = 64  # longer ones cannot even be printed: Python refuses more than 4,300 digits
# What PyYAML's constructors let through for a value that does not fit its tag, such as `!!int x` or 2026-13-45.
BAD_VALUES = (ValueError, KeyError, AttributeError, TypeError, ArithmeticError)


class Loader(yaml.SafeLoader):
    """`yaml.safe_load` keeps the last of two equal keys in silence; here the second one is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Here and not in `construct_mapping`: by then `<<` has put other mappings' keys beside a mapping's own."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        if value.bit_length() > MAX_INT_BITS:
            raise yaml.constructor.ConstructorError(None, None, "the number is too large", node.start_mark)
        return value


Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)


def read(path: Path, report: Report) -> dict[Any, Any] | None:
    """The file's mapping, or None with the reason in `report`."""
    text = _text(path, report)
    if text is None:
        return None
    try:
        config = yaml.load(text, Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:
        report.problem(f"{path}{_position(error)}", f"invalid YAML: {_reason(error)}")
        return None
    except RecursionError:
        report.problem(str(path), "invalid YAML: nested too deeply")
        return None
    except BAD_VALUES as error:
        report.problem(str(path), f"invalid YAML: a value that does not fit its type ({error})")
        return None
    if not isinstance(config, dict):
        found = "empty" if config is None else f"a {type(config).__name__}"
        report.problem(str(path), f"must be a mapping with http_options and applications, but it is {found}")
        return None
    return config


def _text(path: Path, report: Report) -> str | None:
    try:
        if path.is_dir():
            report.problem(str(path), "is a directory; name the file in it")
            return None
        with path.open("rb") as file:  # not `read_bytes`: a pipe or a device may never end
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        report.problem(str(path), "no such file")
        return None
    except OSError as error:
        report.problem(str(path), f"cannot be read: {error.strerror}")
        return None
    if len(data) > MAX_BYTES:
        report.problem(str(path), f"is larger than {MAX_BYTES:,} bytes: no settings file")
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        report.problem(f"{path}, line {line}", f"is not UTF-8 (byte 0x{data[error.start]:02x})")
        return None


def _position(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""


def _reason(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or str(error).splitlines()[0]
