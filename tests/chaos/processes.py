"""The processes of a running graph, to be killed, stopped and watched."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.graph import Graph

PROXY = "ProxyActor"


class Processes:
    """Finds them by their titles; looks anew each time, since Serve replaces what dies."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def replicas(self, deployment: str) -> list[int]:
        return sorted(self._graph.replicas().get(deployment, set()))

    def first(self, deployment: str) -> int:
        """Raises AssertionError while there is none."""
        pids = self.replicas(deployment)
        assert pids, f"no replica of {deployment}"
        return pids[0]

    def engine_core(self, deployment: str) -> int:
        """The vLLM engine's own process, below its replica."""
        for process in self._graph.processes():
            try:
                parent = process.parent()
                if "EngineCore" in " ".join(process.cmdline()) and parent is not None and deployment in " ".join(parent.cmdline()):
                    return process.pid
            except psutil.Error:
                continue
        raise AssertionError(f"no engine process of {deployment}")

    def proxies(self) -> list[int]:
        return [process.pid for process in self._graph.processes() if PROXY in _title(process)]

    def memory(self, *deployments: str) -> float:
        """Private memory of the replicas of `deployments` in MiB; the deployment `ProxyActor` means Serve's proxies."""
        pids = [pid for name in deployments for pid in (self.proxies() if name == PROXY else self.replicas(name))]
        total = 0.0
        for pid in pids:
            with suppress(psutil.Error):
                total += psutil.Process(pid).memory_full_info().uss / 2**20
        return total

    def wait_for_new(self, find: Callable[[], int | None], old: int, seconds: float) -> float | None:
        """Seconds until `find` names another process than `old`; None when it never does."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            with suppress(AssertionError, psutil.Error):
                if (new := find()) is not None and new != old:
                    return time.monotonic() - started
            time.sleep(0.25)
        return None


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that is there and does nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def cpu_seconds(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        with suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
