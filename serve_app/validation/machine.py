"""What surrounds the file: who may reach it, the environment, this machine's port and memory, the packaged calibration."""

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serve_app.addresses import is_address, is_loopback
from serve_app.calibrations import named
from serve_app.embedding import identity
from serve_app.errors import CalibrationError, SettingsError
from serve_app.keys import KeyRing
from serve_app.settings import Auth, Settings
from serve_app.validation.bounds import Bound
from serve_app.validation.report import Report

SERVE_HOST = "0.0.0.0"  # noqa: S104 - Serve's default for a file without one, named to be refused
SERVE_PORT = 8000
HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
PORT = Bound(1, 65535, whole=True)
MEMINFO = Path("/proc/meminfo")


def check_access(config: Mapping[Any, Any], settings: Settings, report: Report) -> None:
    """Nobody may be let in without a key from other machines."""
    host = _http(config, "host", SERVE_HOST)
    if settings.auth.mode == "keys":
        _check_keys(settings.auth, report)
        if os.environ.get(HA_PROXY) == "1" and isinstance(host, str) and is_loopback(host):
            report.warning("http_options.host", f"HAProxy on one node cannot reach replicas of another that listen on {host}: use 0.0.0.0")
    elif isinstance(host, str) and not is_loopback(host):
        shown = (
            f"http_options.host {host!r}" if _http(config, "host", None) is not None else f"no http_options.host, which means {SERVE_HOST},"
        )
        report.problem("args.auth.mode", f"open with {shown} lets in anyone who reaches this machine: use keys, or host 127.0.0.1")
    elif os.environ.get(HA_PROXY) == "1":
        report.problem("args.auth.mode", "open is refused with HAProxy, which listens on every address: use keys")


def _check_keys(auth: Auth, report: Report) -> None:
    """What keeps the keys from being used at the start; that none are here is only a warning: they may be on the cluster."""
    names = (auth.keys_env, auth.admin_keys_env)
    given = any(key.strip() for name in names for key in os.environ.get(name, "").split(","))
    if auth.keys_file is None and not given:
        report.warning("args.auth", f"no keys file, and neither {names[0]} nor {names[1]} holds keys here")
    elif auth.keys_file is not None and not _is_there(auth.keys_file):
        report.warning("args.auth.keys_file", f"{auth.keys_file} is not on this machine: it must be on every node")
    else:
        try:
            KeyRing(auth, os.environ)
        except SettingsError as error:
            report.under("", error.problems)


def _is_there(file: str) -> bool:
    """Also what may not be looked at is there."""
    try:
        Path(file).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a NUL in it
        return False
    except OSError:
        pass
    return True


def check_calibration(settings: Settings, report: Report) -> None:
    try:
        named(settings.router.calibration, identity(settings.embedder))
    except CalibrationError as error:
        report.problem("args.router.calibration", f"{error.message}: `tierwise calibrate` makes one")


def check_environment(settings: Settings, report: Report) -> None:
    if settings.profile == "g6e" and os.environ.get("RAY_SERVE_THROUGHPUT_OPTIMIZED") != "1":
        report.warning("RAY_SERVE_THROUGHPUT_OPTIMIZED", "not 1 here: the g6e profile is meant for Serve's throughput mode")


def check_host(config: Mapping[Any, Any], report: Report) -> None:
    options = config.get("http_options")
    if isinstance(options, Mapping) and not isinstance(host := options.get("host", SERVE_HOST), str):
        report.problem("http_options.host", f"must be a string, got {host!r:.60}")


def check_port(config: Mapping[Any, Any], report: Report) -> None:
    """Bind it and let go. A host that is a name is not looked up: that may take seconds."""
    host, port = _http(config, "host", SERVE_HOST), _http(config, "port", SERVE_PORT)
    host = "127.0.0.1" if host == "localhost" else host
    if not isinstance(host, str) or not is_address(host) or PORT.complaint(port):
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            report.problem("http_options.port", f"{port} is in use on this machine: stop what listens there, or choose another")
        else:
            report.problem("http_options.port", f"{host}:{port} cannot be listened on: {error.strerror}")


def check_memory(settings: Settings, report: Report, meminfo: Path = MEMINFO) -> None:
    """The local profile runs on this machine."""
    available, needed = _available_gib(meminfo), settings.fleet[0].memory_gib
    if settings.profile == "local" and available is not None and available < needed:
        report.problem("args.fleet.0.memory_gib", f"the local profile needs {needed:g} GiB, this machine has {available:.1f} GiB available")


def _available_gib(meminfo: Path) -> float | None:
    """None where there is no such file, as on a Mac."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024**2 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def _http(config: Mapping[Any, Any], key: str, default: Any) -> Any:
    """None when http_options is no mapping, which `serve_part` says."""
    options = config.get("http_options", {})
    return options.get(key, default) if isinstance(options, Mapping) else None
