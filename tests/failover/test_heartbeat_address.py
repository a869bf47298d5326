"""Heartbeats leave from the address that the forwarder listens on: a server's firewall may let
nothing else in."""

from __future__ import annotations

import errno
import os

import pytest
from forwarder_kit import answer, field, running
from hosts_kit import lonely_host, run, unfit

from failover.config.settings import read
from failover.net.options_ping import PingSockets
from plumbing.event_loop import Loop
from plumbing.udp_socket import bind_udp

VIRTUAL, OWN, SERVER = "192.0.2.10", "192.0.2.11", "192.0.2.21"


class Firewalled:
    """A server that answers heartbeats, and remembers where each came from, and who it said it
    was."""

    def __init__(self, address):
        self.heard = []
        self.deaf_to = ""  # its answers to there go to another computer
        self._sock = bind_udp(address)
        self._loop = Loop("server")
        self._loop.watch(self._sock, self._ready)
        self._loop.start()

    def _ready(self):
        data, source = self._sock.recvfrom(65_535)
        self.heard.append((source[0], field(data, "From").partition("@")[2].partition(":")[0]))
        if source[0] != self.deaf_to:
            self._sock.sendto(answer(data), source)

    def close(self):
        self._loop.stop()
        self._sock.close()


def forwarder_for(server, listen):
    return running(read(f"server1={server}\nforwarder.listen={listen}\nadmin.listen=\n", "test"))


def test_heartbeats_come_from_where_messages_come_from(free_port, eventually):
    port = free_port()
    server = Firewalled(("127.0.0.1", port))
    try:
        with forwarder_for(f"127.0.0.1:{port}", f"127.0.0.2:{free_port()}") as forwarder:
            eventually(lambda: forwarder.status()["servers"][0]["state"] == "UP")
        assert set(server.heard) == {("127.0.0.2", "127.0.0.2")}
    finally:
        server.close()


def test_a_server_that_the_listen_address_cannot_reach_is_asked_from_another_one(
    free_port, eventually
):
    """Loopback reaches nothing beyond this computer, so the system refuses 127.0.0.1 as a source
    for 192.0.2.1."""
    try:
        heartbeat = PingSockets(("192.0.2.1", 5060), "token", "127.0.0.1")
    except OSError as error:
        pytest.skip(f"this computer has no route: {error}")
    host = heartbeat.host
    for sock in heartbeat.socks:
        sock.close()
    assert not host.startswith("127.")


class Refusing:
    """A socket that sends nothing."""

    def __init__(self, error):
        self.error = error

    def send(self, data):
        raise OSError(self.error, os.strerror(self.error))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errno.EADDRNOTAVAIL, False),
        (errno.EINVAL, False),
        (errno.ENETUNREACH, False),
        (errno.EPERM, True),
        (errno.ECONNREFUSED, True),
    ],
)
def test_a_heartbeat_whose_address_has_just_left_leaves_from_the_other_one(error, told):
    """A firewall that forbids the listen address is told of instead."""
    with bind_udp(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        pings = PingSockets(server.getsockname(), "token", "127.0.0.1")
        second = pings.socks[0]
        pings.socks.insert(0, Refusing(error))
        with second:
            if told:
                with pytest.raises(OSError, match=os.strerror(error)):
                    pings.send(100.0, 0.2, "")
            else:
                pings.send(100.0, 0.2, "")
                assert server.recv(65_535).startswith(b"OPTIONS ")


@pytest.mark.skipif(bool(unfit()), reason=unfit() or "-")
def test_heartbeats_move_with_the_virtual_address(eventually):
    """On standby they come from this computer's own address, for it has no other. With a virtual
    one they come from there, until it leaves. While another computer believes to have it too, and
    gets the answers, every second one comes from this one's own. Nothing of it looks like death."""
    with lonely_host("forwarder"):
        for host in (OWN, SERVER):
            run("ip", "addr", "add", f"{host}/32", "dev", "lo")
        server = Firewalled((SERVER, 5060))
        try:
            with forwarder_for(f"{SERVER}:5060", f"{VIRTUAL}:5060") as forwarder:
                follow(server, forwarder, eventually)
        finally:
            server.close()


def follow(server, forwarder, eventually):
    def role_is(role):
        return lambda: (
            forwarder.status()["role"] == role and forwarder.status()["servers"][0]["state"] == "UP"
        )

    def failed():
        return forwarder.status()["counters"].get("trouble.heartbeat", 0)

    def heard_since_now():
        known = len(server.heard)
        eventually(lambda: len(server.heard) > known + 5)
        return {source for source, _ in server.heard[known + 2 :]}

    eventually(role_is("standby"))
    assert VIRTUAL not in heard_since_now()
    run("ip", "addr", "add", f"{VIRTUAL}/32", "dev", "lo")
    eventually(role_is("active"))
    assert heard_since_now() == {VIRTUAL}
    server.deaf_to = VIRTUAL
    eventually(lambda: heard_since_now() - {VIRTUAL})
    server.deaf_to = ""
    eventually(lambda: heard_since_now() == {VIRTUAL})
    assert failed() == 0
    run("ip", "addr", "del", f"{VIRTUAL}/32", "dev", "lo")
    eventually(role_is("standby"))
    assert VIRTUAL not in heard_since_now()
    assert failed() == 0, "nor by those that were due before the forwarder looked for its address"
    assert forwarder.status()["servers"][0]["falls"] == 0
