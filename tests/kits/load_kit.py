"""The forwarder as a process between two answering servers, for tests that kill and freeze them
under load."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import Server

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def servers_started(free_port, count=2, host="127.0.0.1"):
    servers = [Server(f"server{n + 1}", (host, free_port())) for n in range(count)]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.stop()


@contextmanager
def forwarder_started(servers, port, *settings, host="127.0.0.1"):
    """Yields the list that its log lines will be in once the block is left."""
    log = []
    lines = [f"{server.name}={server.address[0]}:{server.address[1]}" for server in servers]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "servers.properties"
        file.write_text(
            "\n".join([*lines, f"forwarder.listen={host}:{port}", "admin.listen=", *settings])
        )
        process = subprocess.Popen(
            [sys.executable, "-S", str(ROOT / "forwarder.py"), str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            said = iter(process.stdout.readline, "")
            if not any(line.startswith("ready: ") for line in said):
                raise RuntimeError(process.stderr.read())
            yield log
        finally:
            process.terminate()
            log += process.communicate(timeout=10)[1].splitlines()


@contextmanager
def scene_of(free_port, count=2, *settings):
    """(the forwarder's address, its servers, its log)."""
    with servers_started(free_port, count) as servers:
        port = free_port()
        with forwarder_started(servers, port, *settings) as log:
            yield ("127.0.0.1", port), servers, log
