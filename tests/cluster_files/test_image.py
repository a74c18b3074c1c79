"""cluster/Dockerfile, read: no Docker is needed, and none was there when it was written."""

import re
import shlex

import pytest
import yaml

from tests.cluster_files.sync import RAYSERVICE, ROOT

TEXT = (ROOT / "cluster/Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(`RUN`, its text) and so on, without comments, continued lines joined."""
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined]


def texts(name: str) -> list[str]:
    return [text for instruction, text in instructions() if instruction == name]


def copied() -> list[str]:
    return [source for text in texts("COPY") for source in shlex.split(text)[:-1]]


def test_it_copies_what_is_there() -> None:
    assert copied()
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*", "everything is left out, then let in again"
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied())


def test_the_base_is_one_version() -> None:
    (base,) = texts("ARG")
    name, value = base.split("=", 1)
    assert texts("FROM") == [f"${{{name}}}"]
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-devel-ubuntu24\.04(@sha256:[0-9a-f]{64})?", value)


def test_its_cuda_is_what_the_locked_torch_was_built_for() -> None:
    lock = (ROOT / "requirements/gpu.lock").read_text(encoding="utf-8")
    (runtime,) = re.findall(r"^nvidia-cuda-runtime==(\d+\.\d+)\S* ; sys_platform != 'darwin'", lock, re.MULTILINE)
    assert f"nvidia/cuda:{runtime}." in texts("ARG")[0]


def test_it_installs_the_lock_with_the_same_uv_as_everybody() -> None:
    run = "\n".join(texts("RUN"))
    assert "uv pip sync" in run
    assert "--require-hashes" in run
    assert "requirements/gpu.lock" in run
    (version,) = re.findall(r"^uv_version=(\S+)$", (ROOT / "requirements/setup.sh").read_text(encoding="utf-8"), re.MULTILINE)
    assert f'"uv=={version}"' in run


def test_it_does_not_run_as_root() -> None:
    names = [name for name, _ in instructions()]
    user = int(texts("USER")[-1].split(":")[0])
    assert names.index("USER") > max(number for number, name in enumerate(names) if name == "RUN")
    spec = yaml.safe_load(RAYSERVICE.read_text(encoding="utf-8"))["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert user == spec["securityContext"]["runAsUser"] != 0


def test_apt_leaves_nothing_behind() -> None:
    (apt,) = (text for text in texts("RUN") if "apt-get install" in text)
    assert "--no-install-recommends" in apt
    assert apt.rstrip().endswith("rm -rf /var/lib/apt/lists/*")


@pytest.mark.parametrize("word", ["TOKEN", "KEY", "PASSWORD", "SECRET", "LEDGER_URL"])
def test_no_secret_is_baked_in(word: str) -> None:
    assert [text for name, text in instructions() if name in ("ENV", "ARG") and word in text] == []


def test_the_probes_find_their_tool() -> None:
    """bash and grep are part of Ubuntu, wget is not."""
    assert "wget" in RAYSERVICE.read_text(encoding="utf-8")
    assert any("wget" in text.split() for text in texts("RUN") if "apt-get install" in text)
