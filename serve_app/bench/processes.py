"""A contender's processes: their CPU seconds and memory, told apart by what runs in them, and their end."""

import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

REPLICA = re.compile(r"ServeReplica:(?P<app>[^:]+):(?P<deployment>[\w.-]+)")
MIB = 1024 * 1024
Part = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds so far of all processes, and of those that are the engine's."""

    total: float
    engine: float

    def since(self, before: "Used") -> "Used":
        return Used(self.total - before.total, self.engine - before.engine)


class Processes:
    """Owns the seconds of processes that have ended meanwhile, so that a sum never falls."""

    def __init__(self, root: int, is_engine: Part) -> None:
        self._root = root
        self._is_engine = is_engine
        self._seen: dict[int, tuple[bool, float]] = {}

    def used(self) -> Used:
        for process in self.all():
            with suppress(psutil.Error):
                times, title = process.cpu_times(), title_of(process)
                self._seen[process.pid] = (self._is_engine(title), times.user + times.system)
        return Used(sum(one for _, one in self._seen.values()), sum(one for engine, one in self._seen.values() if engine))

    def memory_mib(self, part: Part) -> float:
        """Proportional set size of the processes whose title `part` takes: shared pages are counted once."""
        found = 0.0
        for process in self.all():
            with suppress(psutil.Error):
                if part(title_of(process)):
                    found += process.memory_full_info().pss / MIB
        return found

    def all(self) -> Iterable[psutil.Process]:
        with suppress(psutil.Error):
            root = psutil.Process(self._root)
            return [root, *root.children(recursive=True)]
        return []


def title_of(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def replica_of(title: str) -> tuple[str, str] | None:
    """(application, deployment) of a Serve replica's process title."""
    found = REPLICA.search(title)
    return None if found is None else (found["app"], found["deployment"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop(process: subprocess.Popen[bytes], patience_s: float = 15.0) -> None:
    """Ctrl-C is how a user stops `serve run`; whatever is left after some patience is killed, so that nothing outlives the caller."""
    started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)
    for left in started:
        with suppress(psutil.Error):
            left.kill()
