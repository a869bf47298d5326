"""What a running server does with datagrams that it does not answer: old ones, keep-alives."""

from __future__ import annotations

import contextlib
import threading

import pytest
from program_kit import Forwarder, address_of, status_page
from slee_kit import phone_request, register

from sip.message import parse
from slee_mock.server import Server
from slee_mock.settings import Settings


@pytest.fixture
def running(tmp_path, free_port):
    """(the forwarder's socket, a server)"""
    forwarder = Forwarder(free_port())
    address = forwarder.sock.getsockname()
    server = Server(
        Settings("server1", ("127.0.0.1", free_port()), address, str(tmp_path / "cluster.db"))
    )
    server.start()
    server.port = address_of(server)[1]
    yield forwarder, server
    server.stop()
    forwarder.sock.close()


@pytest.fixture
def frozen(running, monkeypatch):
    """(forwarder, server, go on): a server whose thread stands still for longer than it may."""
    # more than two turns of an idle loop
    monkeypatch.setattr("slee_mock.receive_queue.STALE_SECONDS", 1.2)
    forwarder, server = running
    stands, thaw = threading.Event(), threading.Event()
    server._loop.post(lambda: stands.set() or thaw.wait(10.0))
    assert stands.wait(5.0)
    yield forwarder, server, thaw
    thaw.set()


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


def test_whatever_keeps_a_hole_open_is_counted_as_that_and_not_as_garbage(running):
    forwarder, server = running
    stun = b"\0\x01\0\0" + b"\x21\x12\xa4\x42" + b"x" * 12  # RFC 8489 5: a binding request
    for data in (b"\r\n\r\n", b"\0\0\0\0", b" \t", b"jaK", stun, b"this is no SIP message"):
        forwarder.sock.sendto(data, ("127.0.0.1", server.port))
    assert forwarder.ask(register(), server).status == 200
    dropped = status_page(server)["dropped"]
    assert (dropped["keepalive"], dropped["unreadable"]) == (5, 1)
