"""Real servers, and the test as their forwarder."""

from __future__ import annotations

import pytest
from program_kit import Forwarder, Program, Site


@pytest.fixture
def forwarder(free_port):
    made = Forwarder(free_port())
    yield made
    made.sock.close()


@pytest.fixture
def program(free_port, tmp_path, forwarder):
    """program(name, *options) -> a server, not started; the same name gets the same ports again."""
    made, ports = [], {}

    def make(name, *options, store=tmp_path / "cluster.db"):
        port, page = ports.setdefault(name, (free_port(), free_port()))
        made.append(Program(name, store, forwarder.address, port, page, *options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def site(tmp_path, free_port):
    made = Site(tmp_path, free_port)
    made.server.start()
    yield made
    made.server.stop()
    made.server.stop()  # twice is fine
    made.sock.close()
