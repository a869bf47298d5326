"""What tests of the forwarder start."""

from __future__ import annotations

import pytest
from forwarder_program_kit import Running


@pytest.fixture
def program(tmp_path, free_port):
    """program(servers, *lines) -> a Running forwarder on loopback, its SIP address, its file;
    stopped at the end."""
    started = []

    def start(servers, *lines, options=()):
        file, port = tmp_path / "servers.properties", free_port()
        named = [f"{server.name}={server.address[0]}:{server.address[1]}" for server in servers]
        file.write_text(
            "\n".join([f"forwarder.listen=127.0.0.1:{port}", "admin.listen=", *named, *lines])
        )
        started.append(Running(file, *options))
        return started[-1], ("127.0.0.1", port), file

    yield start
    for running in started:
        if running.process.poll() is None:
            running.stop()
