"""A server that was frozen finds in its socket what phones said long ago."""

from __future__ import annotations

import contextlib
import threading

import pytest
from program_kit import Forwarder
from slee_kit import phone_request, register

from sip.message import parse
from slee_mock.server import Server
from slee_mock.settings import Settings


@pytest.fixture
def frozen(tmp_path, monkeypatch, free_port):
    """(forwarder, server, go on): a server whose thread stands still for longer than it may."""
    monkeypatch.setattr("slee_mock.server.STALE", 1.2)  # more than two turns of an idle loop
    forwarder = Forwarder(free_port())
    address = forwarder.sock.getsockname()
    server = Server(
        Settings("server1", ("127.0.0.1", free_port()), address, str(tmp_path / "cluster.db"))
    )
    server.start()
    server.port = server._settings.listen[1]
    stands, thaw = threading.Event(), threading.Event()
    server._loop.post(lambda: stands.set() or thaw.wait(10.0))
    assert stands.wait(5.0)
    yield forwarder, server, thaw
    server.stop()
    forwarder.sock.close()


def test_a_server_that_thaws_takes_no_registration_that_is_over_but_answers_all_else(frozen):
    forwarder, server, thaw = frozen
    forwarder.send(register(cseq=1), server)
    forwarder.send(phone_request("BYE", "sip:bob@failover.test", call_id="long-ago"), server)
    threading.Timer(1.3, thaw.set).start()
    assert parse(forwarder.sock.recv(65_535)).cseq.method == "BYE"
    forwarder.sock.settimeout(0.5)
    heard = None
    for _ in range(20):  # as a phone that still waits does
        with contextlib.suppress(TimeoutError):
            heard = forwarder.ask(register(cseq=1), server)
            break
    assert heard is not None and heard.status == 200
