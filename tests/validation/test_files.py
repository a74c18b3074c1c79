"""`tierwise validate`: files that are no settings, this machine, the command, and what is read from Ray's and vLLM's source."""

import itertools
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.settings import parse
from serve_app.validate import Report, check_file
from serve_app.validation import document, engines, machine, serve_part, sources
from serve_app.validation.bounds import Bound
from tests.validation.common import (
    FILE,
    changed,
    report_of,
    run,
)

# --- files that are no settings


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "must be a mapping with http_options and applications, but it is empty"),
        (b"# nothing\n", "must be a mapping with http_options and applications, but it is empty"),
        (b"- a\n", "must be a mapping with http_options and applications, but it is a list"),
        (b"a: [1,\n  2", "line 2, column 4: invalid YAML: expected ',' or ']', but got '<stream end>'"),
        (b"a:\n\t- b\n", "line 2, column 1: invalid YAML: found character '\\t' that cannot start any token"),
        (b"a: *b\n", "line 1, column 4: invalid YAML: found undefined alias 'b'"),
        (b"a: 1\nb: 2\na: 3\n", "line 3, column 1: invalid YAML: the key 'a' stands twice"),
        (b"a: !!python/name:os.system x\n", None),
        (b"a: \xff\n", "line 1: is not UTF-8 (byte 0xff)"),
        (b"a: \x00\n", "invalid YAML: unacceptable character #x0000: special characters are not allowed"),
        (b"a: 2026-13-45\n", "invalid YAML: a value that does not fit its type (month must be in 1..12)"),
        (b"a: !!int x\n", None),
        (b"a: !!bool x\n", None),
        (b"a: !!timestamp x\n", None),
        (b"a: 0x" + b"f" * 9000, "line 1, column 4: invalid YAML: the number is too large"),
        (b"a: " + b"9" * 9000, None),
        (b"[" * 5000, "invalid YAML: nested too deeply"),
        (b"---\na: 1\n---\nb: 2\n", None),
        (b"#" * (document.MAX_BYTES + 1), "is larger than 1,048,576 bytes: no settings file"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_that_is_no_settings_file_is_one_line(tmp_path: Path, data: bytes, line: str | None) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(data)
    (found,) = check_file(file, check_machine=False).problems
    assert found.startswith(str(file))
    if line is not None:
        assert found.removeprefix(str(file)).lstrip(":, ") == line


def test_a_key_that_a_merge_brings_may_stand_beside_the_own_one(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: {b: {c: &one {<<: {d: 1}, d: 2}}}\ne: {<<: *one, d: 3}\n")
    report = Report()
    assert document.read(file, report) == {"a": {"b": {"c": {"d": 2}}}, "e": {"d": 3}}


def test_a_missing_file_and_a_directory_are_one_line(tmp_path: Path) -> None:
    assert check_file(tmp_path / "x").problems == [f"{tmp_path / 'x'}: no such file"]
    assert check_file(tmp_path).problems == [f"{tmp_path}: is a directory; name the file in it"]
    assert check_file(FILE / "x").problems == [f"{FILE / 'x'}: cannot be read: Not a directory"]


def test_a_line_break_or_an_escape_code_in_a_key_stays_in_its_line(tmp_path: Path) -> None:
    report = report_of(tmp_path, changed("http_options.a\nb\x1b[31m", 1))
    (line,) = report.problems
    assert line.startswith("http_options.a\\nb\\x1b[31m: unknown key; known: host, ")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=2),
    max_leaves=4,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


@pytest.fixture(scope="module")
def full() -> dict[Any, Any]:
    """The file with the whole g6e profile written out, so that every setting has a place."""
    config = changed("http_options.port", 8000)
    config["applications"][0]["args"] = parse({"profile": "g6e"}).model_dump()
    return config


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_nothing_that_a_file_can_hold_raises(full: dict[Any, Any], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(places(full)[1:]))
    config: Any = yaml.safe_load(json.dumps(full))
    target = config
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = data.draw(JUNK)
    file = tmp_path_factory.getbasetemp() / "junk.yaml"
    file.write_text(yaml.safe_dump(config, allow_unicode=False), encoding="utf-8")
    report = check_file(file)
    assert all("\n" not in line for line in [*report.problems, *report.warnings])


# --- this machine


def test_a_port_in_use_is_one_line_unless_the_machine_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "check_memory", lambda *_: None)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        config = changed("http_options.port", port)
        line = f"http_options.port: {port} is in use on this machine: stop what listens there, or choose another"
        assert report_of(tmp_path, config, check_machine=True).problems == [line]
        assert report_of(tmp_path, config).problems == []
    assert report_of(tmp_path, config, check_machine=True).problems == []


def test_an_address_of_another_machine_cannot_be_listened_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "check_memory", lambda *_: None)
    config = changed("http_options.host", "192.0.2.1")
    config["applications"][0]["args"]["auth"] = {"mode": "keys"}
    (line,) = report_of(tmp_path, config, check_machine=True).problems
    assert line.startswith("http_options.port: 192.0.2.1:8000 cannot be listened on: ")


def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16777216 kB\nMemAvailable: 5242880 kB\n")
    report = Report()
    machine.check_memory(parse({"profile": "local"}), report, meminfo)
    assert report.problems == ["args.fleet.0.memory_gib: the local profile needs 7 GiB, this machine has 5.0 GiB available"]


@pytest.mark.parametrize("text", ["MemAvailable: 99999999 kB\n", "MemFree: 1 kB\n", "MemAvailable: much\n"])
def test_memory_that_suffices_or_is_unknown_is_no_problem(tmp_path: Path, text: str) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(text)
    report = Report()
    machine.check_memory(parse({"profile": "local"}), report, meminfo)
    machine.check_memory(parse({"profile": "g6e"}), report, tmp_path / "gone")
    assert report.problems == []


# --- the command


def test_the_command_says_fine(capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    done = run("--no-machine", FILE)
    seconds = time.monotonic() - start
    with capfd.disabled():
        print(f"\ntierwise validate took {seconds:.2f} s")
    assert (done.returncode, done.stdout) == (0, f"{FILE}: fine\n")
    assert seconds < 6


def test_the_command_answers_a_mistake_with_exit_code_2_and_one_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(json.dumps(changed("http_options.prot", 1)))
    done = run("--no-machine", file)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "http_options.prot: unknown key, did you mean 'port'?\n")


def test_the_command_speaks_json(tmp_path: Path) -> None:
    done = run("--json", tmp_path / "gone")
    assert done.returncode == 2
    assert json.loads(done.stdout) == {"ok": False, "problems": [f"{tmp_path / 'gone'}: no such file"], "warnings": []}


def test_the_check_never_imports_ray_or_vllm() -> None:
    code = (
        "import sys; from pathlib import Path; from serve_app.validate import check_file; check_file(Path(sys.argv[1]));"
        "print([name for name in sys.modules if name.partition('.')[0] in ('ray', 'vllm', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code, FILE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


# --- what is read from the source text is what Ray and vLLM really know


@pytest.mark.filterwarnings("default")
def test_the_keys_read_from_rays_source_are_the_ones_that_ray_knows() -> None:
    schema, config = pytest.importorskip("ray.serve.schema"), pytest.importorskip("ray.serve.config")
    for name in serve_part.SCHEMAS:
        model = getattr(schema, name, None) or getattr(config, name)
        assert sources.serve_keys(name) == frozenset(model.model_fields), name


@pytest.mark.filterwarnings("default")
def test_every_bounded_key_is_one_of_serves() -> None:
    for name, bounds in serve_part.BOUNDS.items():
        assert set(bounds) <= (sources.serve_keys(name) or set()), name
    for name, children in serve_part.CHILDREN.items():
        assert set(children) <= (sources.serve_keys(name) or set()), name


@pytest.mark.vllm
@pytest.mark.filterwarnings("default")
def test_the_names_read_from_vllms_source_are_the_ones_that_vllm_knows() -> None:
    import dataclasses

    arguments = pytest.importorskip("vllm.engine.arg_utils").AsyncEngineArgs
    frontend = pytest.importorskip("vllm.entrypoints.launchers.cli_args").FrontendArgs
    cache = pytest.importorskip("vllm.config.cache").CacheConfig
    known = {field.name for cls in (arguments, frontend) for field in dataclasses.fields(cls)}
    assert sources.vllm_keys() == frozenset(name for name in known if not name.startswith("_"))
    assert sources.gpu_memory_utilization() == cache.gpu_memory_utilization
    for profile in ("local", "g6e"):
        for engine in parse({"profile": profile}).engines.values():
            assert set(engine.engine_kwargs) <= known


@pytest.mark.vllm
@pytest.mark.filterwarnings("default")
def test_a_batch_is_refused_exactly_where_vllm_refuses_it() -> None:
    scheduler = pytest.importorskip("vllm.config.scheduler").SchedulerConfig
    small = parse({"profile": "local"}).small
    for tokens, seqs, chunked, threshold in itertools.product((8, 1024, 2048, 4096), (1, 16, 3000), (True, False), (0, 2048, 2049)):
        kwargs = {"max_num_batched_tokens": tokens, "max_num_seqs": seqs, "enable_chunked_prefill": chunked}
        kwargs["long_prefill_token_threshold"] = threshold
        report = Report()
        engine = small.model_copy(update={"engine_kwargs": {"max_model_len": 2048, **kwargs}})
        engines._check_batch(engine, 2048, "args.small", report)
        try:
            scheduler(max_model_len=2048, is_encoder_decoder=False, **kwargs)
            refused = False
        except ValueError:
            refused = True
        assert bool(report.problems) == refused, kwargs


def test_a_bound_says_what_it_wants() -> None:
    assert Bound(0, 1, above=True).complaint(0) == "must be a number above 0 and at most 1, got 0"
    assert Bound().complaint(float("nan")) == "must be a number of at least 0, got nan"
    assert Bound(nullable=True).complaint(None) is None
    assert Bound(1, whole=True).complaint(1.0) == "must be a whole number of at least 1, got 1.0"
