"""The forwarder as a process between two answering servers, for tests that kill and freeze them
under load."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path

from process_kit import FORWARDER, RunningProgram

from benchmarks.load import Server


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
        running = RunningProgram([*FORWARDER, str(file)], Path(folder) / "log")
        try:
            yield log
        finally:
            running.stop()
            log += running.log.read_text().splitlines()


@contextmanager
def scene_of(free_port, count=2, *settings):
    """(the forwarder's address, its servers, its log)."""
    with servers_started(free_port, count) as servers:
        port = free_port()
        with forwarder_started(servers, port, *settings) as log:
            yield ("127.0.0.1", port), servers, log
