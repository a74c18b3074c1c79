"""Debian's PostgreSQL in a folder of its own, on a socket: no port, nothing left behind. It refuses to run as root, so root steps down."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

OWNER = "postgres"  # Debian's package makes the account
FAST = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "shared_buffers=16MB", "max_connections=40"]


def binaries() -> Path | None:
    """Debian keeps the server's programs out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextmanager
def running(programs: Path, options: list[str] | None = None) -> Iterator[Path]:
    """The folder of the socket of a server that runs; it is stopped and deleted at the end."""
    folder = Path(tempfile.mkdtemp(prefix="tierwise-pg-"))  # not pytest's: its folders are closed to other accounts
    who: dict[str, Any] = {"user": OWNER, "group": OWNER, "extra_groups": []} if os.getuid() == 0 else {}
    try:
        if who:
            shutil.chown(folder, OWNER, OWNER)
        data = folder / "data"
        initdb = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--no-locale"]
        subprocess.run(initdb, check=True, capture_output=True, timeout=60, cwd=folder, **who)
        settings = [argument for option in (FAST if options is None else options) for argument in ("-c", option)]
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, *settings],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            **who,
        )
        try:
            _wait(folder)
            yield folder
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown: connections are closed
            server.wait(30)
    finally:
        shutil.rmtree(folder)


def _wait(folder: Path) -> None:
    for _ in range(200):
        try:
            psycopg.connect(f"host={folder} user=postgres dbname=postgres").close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("PostgreSQL did not start")


def new_database(folder: Path, name: str) -> str:
    """Its URL."""
    with psycopg.connect(f"host={folder} user=postgres dbname=postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}")  # ours
    return f"postgresql+psycopg://postgres@/{name}?host={folder}"
