"""Two forwarders with one address, in one process: who has it, who gets it, and what the other does
meanwhile."""

from __future__ import annotations

import queue
import socket
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest
from forwarder_kit import answer, ask, fake_servers, field, plain_phone, request

from failover.config.settings import read
from failover.config.shared_secret import ephemeral
from failover.forwarder import Forwarder
from failover.net import active_standby
from failover.net.sockets import open_phones, open_side
from plumbing.address import format_address
from plumbing.udp_socket import bind_udp

HOST = "127.0.0.1"


class Pair:
    """Two servers that answer, a phone, and as many forwarders as are started, all with one secret
    and one address."""

    def __init__(self, servers, phone, address, secret):
        self.servers, self.phone, self.address, self.secret = servers, phone, address, secret
        self.lines = [
            f"forwarder.listen={format_address(address)}",
            "admin.listen=",
            *(f"{server.name}={format_address(server.address)}" for server in servers),
        ]
        self.started = []

    def start(self, *more):
        forwarder = Forwarder(read("\n".join([*self.lines, *more]), "test"), self.secret)
        self.started.append(forwarder)
        forwarder.start()
        return forwarder

    def served_by(self, branch, **options):
        return field(ask(self.phone, self.address, branch, **options), "X-Server")


@pytest.fixture
def pair(free_port):
    with scene(free_port) as made:
        yield made


@contextmanager
def scene(free_port, host=HOST):
    with ExitStack() as stack:
        servers = stack.enter_context(fake_servers(free_port, host=host))
        made = Pair(
            servers,
            stack.enter_context(plain_phone(host)),
            (host, free_port()),
            ephemeral("for a test"),
        )
        stack.callback(lambda: [forwarder.stop() for forwarder in made.started])
        yield made


def role(forwarder):
    return forwarder.status()["role"]


def is_active(forwarder):
    return lambda: role(forwarder) == "active"


def knows(forwarder, name, state):
    return lambda: (
        next(s for s in forwarder.status()["servers"] if s["name"] == name)["state"] == state
    )


def test_the_second_says_who_holds_the_address_and_serves_when_the_first_has_gone(
    pair, eventually, caplog
):
    caplog.set_level("INFO", "forwarder")
    first, second = pair.start(), pair.start()
    assert (role(first), role(second)) == ("active", "standby")
    where = format_address(pair.address)
    assert f"standby: {where} is held by another program" in caplog.messages
    assert second.summary().startswith(
        f"standby: {where} is held by another program; server1 is hot"
    )
    assert pair.served_by("z9hG4bK1") == "server1"
    first.stop()
    eventually(is_active(second), 1.0)
    assert pair.served_by("z9hG4bK2") == "server1"
    status = second.status()
    assert status["role_why"] == f"{where} is free, the program that held it is gone"
    (told,) = second.failovers()
    assert (told["kind"], told["from"], told["to"]) == ("takeover", "standby", "active")
    assert told["noticed"] == status["role_why"]
    assert told["at"] == pytest.approx(status["role_since"], abs=0.01)
    assert any(
        line.startswith(f"active: {status['role_why']}; it was on standby for ")
        for line in caplog.messages
    )
    assert (
        "forwarder_active 1" in second.metrics()
        and "forwarder_takeovers_total 1" in second.metrics()
    )


def test_one_on_standby_watches_the_servers_and_tells_none_that_it_is_hot(pair, eventually):
    first = pair.start()
    eventually(knows(first, "server1", "UP"))
    second = pair.start()
    eventually(knows(second, "server1", "UP"))
    pair.servers[0].kill()
    eventually(knows(second, "server1", "DOWN"))
    first.stop()
    eventually(is_active(second))
    pair.phone.sendto(
        request("INVITE", source=pair.phone.getsockname(), branch="z9hG4bK1"), pair.address
    )
    assert field(pair.phone.recv(65_535), "X-Server") == "server2"
    assert [each["requests"] for each in second.status()["servers"]] == [0, 1], (
        "none to the dead one"
    )


def test_an_answer_to_what_the_first_has_forwarded_passes_the_second(pair, eventually):
    first = pair.start()
    pair.servers[0].replies = False
    pair.phone.sendto(
        request("INVITE", source=pair.phone.getsockname(), branch="z9hG4bK1"), pair.address
    )
    eventually(lambda: pair.servers[0].heard)
    second = pair.start()
    first.stop()
    eventually(is_active(second))
    pair.servers[0].send(answer(pair.servers[0].heard[0], "180 Ringing"), pair.address)
    ringing = pair.phone.recv(65_535)
    assert ringing.startswith(b"SIP/2.0 180") and b"branch=z9hG4bK1" in ringing


def test_of_two_on_standby_exactly_one_gets_the_address(pair, eventually):
    first, others = pair.start(), [pair.start(), pair.start()]
    for _ in range(3):
        first.stop()
        eventually(lambda those=others: any(role(each) == "active" for each in those))
        assert sorted(map(role, others)) == ["active", "standby"]
        assert pair.served_by("z9hG4bK1") == "server1"
        first = next(each for each in others if role(each) == "active")
        others = [next(each for each in others if each is not first), pair.start()]


def test_nobody_gets_in_between_the_winner_s_bind_and_its_sides(free_port):
    listen = (HOST, free_port())
    with bind_udp(listen) as winner:
        with pytest.raises(OSError, match="already in use"):
            open_phones(listen)
        winner.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that its sides can join
        with pytest.raises(OSError, match="already in use"):
            open_phones(listen)
        side, _ = open_side(listen, (HOST, free_port()))
    with side, pytest.raises(OSError, match="already in use"):
        open_phones(listen)
    open_phones(listen).close()


def test_what_happens_to_servers_meanwhile_is_no_failover_of_the_one_on_standby(pair, eventually):
    first = pair.start()
    second = pair.start()
    for forwarder in (first, second):
        eventually(knows(forwarder, "server1", "UP"))
    pair.servers[0].kill()
    for forwarder in (first, second):
        eventually(knows(forwarder, "server1", "DOWN"))
    assert [each["kind"] for each in first.failovers()] == ["failover"]
    assert second.failovers() == []
    first.stop()
    eventually(is_active(second))
    assert pair.served_by("z9hG4bK1") == "server2"
    assert [each["kind"] for each in second.failovers()] == ["takeover"]


def test_those_who_read_events_hear_of_the_takeover(pair, eventually):
    first, second = pair.start(), pair.start()
    reader = queue.Queue()
    second.subscribe(reader)
    assert reader.get(timeout=2.0)[1]["role"] == "standby"
    first.stop()
    takeover = next(
        told for name, told in iter(lambda: reader.get(timeout=2.0), None) if name == "takeover"
    )
    assert (takeover["to"], takeover["address"]) == ("active", format_address(pair.address))


def test_a_reload_on_standby_changes_whom_it_watches_and_then_serves(pair, eventually):
    first, second = pair.start(), pair.start()
    only = f"forwarder.listen={format_address(pair.address)}\nadmin.listen=\n"
    only += f"server2={format_address(pair.servers[1].address)}\nnewcomer=127.0.0.1:9"
    second.reload(read(only, "test"))
    assert [each["name"] for each in second.status()["servers"]] == ["server2", "newcomer"]
    assert role(second) == "standby" and pair.served_by("z9hG4bK1") == "server1"
    eventually(knows(second, "server2", "UP"))
    first.stop()
    eventually(is_active(second))
    assert pair.served_by("z9hG4bK2") == "server2"


def test_what_has_come_before_a_polite_stop_is_passed_on(pair, eventually):
    first = pair.start()
    eventually(knows(first, "server1", "UP"))

    def stop_with_a_hundred_in_hand():
        for n in range(100):
            pair.phone.sendto(
                request("OPTIONS", source=pair.phone.getsockname(), branch=f"z9hG4bK{n}"),
                pair.address,
            )
        first._loop.post(first._finish)

    first._loop.ask(stop_with_a_hundred_in_hand)
    first.stop()
    eventually(lambda: len(pair.servers[0].heard) == 100)


def test_ports_that_the_twin_has_are_not_the_second_one_s_which_takes_the_next(
    pair, free_port, caplog
):
    caplog.set_level("INFO", "forwarder")
    port = free_port()
    first, second = (
        pair.start(f"registration.listen={HOST}:{port}"),
        pair.start(f"registration.listen={HOST}:{port}"),
    )
    assert first.registration == (HOST, port) and second.registration[1] in range(
        port + 1, port + 10
    )
    taken = f"{HOST}:{port} is taken, perhaps by the other forwarder"
    assert f"servers register at {format_address(second.registration)}: {taken}" in caplog.messages


# -- an address that moves between computers -------------------------------------------------------


@pytest.fixture
def virtual(monkeypatch, free_port):
    """(a pair on an address that may move, a switch: is it here?)."""
    here = [False]
    monkeypatch.setattr(active_standby, "can_move", lambda listen: True)
    monkeypatch.setattr(active_standby, "has_address", lambda host: here[0])
    with scene(free_port) as made:
        yield made, here


def test_an_address_that_is_elsewhere_is_waited_for_and_let_go_when_it_has_left(
    virtual, eventually, caplog
):
    caplog.set_level("INFO", "forwarder")
    pair, here = virtual
    one = pair.start()
    where = format_address(pair.address)
    assert (
        role(one) == "standby"
        and f"standby: {where} is not an address of this computer now" in caplog.messages
    )
    here[0] = True
    eventually(is_active(one), 1.0)
    assert pair.served_by("z9hG4bK1") == "server1"
    pair.servers[0].replies = False
    pair.phone.sendto(
        request("INVITE", source=pair.phone.getsockname(), branch="z9hG4bK2"), pair.address
    )
    eventually(lambda: len(pair.servers[0].heard) == 2)
    assert one.status()["in_flight"] == 1
    here[0] = False
    eventually(lambda: role(one) == "standby", 1.0)
    assert one.status()["in_flight"] == 0, "the other forwarder sees to it"
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(pair.address)  # nobody is there any more
    assert [told["to"] for told in one.failovers()] == ["active", "standby"]
    here[0] = True
    eventually(is_active(one), 1.0)
    pair.servers[0].replies = True
    assert pair.served_by("z9hG4bK3") == "server1"


def test_what_the_system_lets_us_bind_is_not_ours_unless_an_interface_has_it(virtual):
    pair, _ = virtual
    one = pair.start()
    assert role(one) == "standby" and one.status()["servers"][0]["requests"] == 0
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(pair.address)  # it was not even tried


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="lowers the limit of this very process"
)
def test_without_descriptors_it_says_so_once_a_second_and_serves_on(
    free_port, eventually, caplog, monkeypatch
):
    """The forwarder looks with a socket whether its address is here; not to get one tells nothing of
    the address."""
    monkeypatch.setattr(active_standby, "can_move", lambda listen: True)
    monkeypatch.setitem(sys.modules, "netifaces", None)
    with scene(free_port) as pair:
        one, two = pair.start("heartbeat.fall=100"), pair.start("heartbeat.fall=100")
        assert (role(one), role(two)) == ("active", "standby")
        began = time.monotonic()
        with no_descriptors():
            eventually(lambda: caplog.text.count("cannot look") >= 3)
            assert pair.served_by("z9hG4bK1") == "server1", "what it has it keeps"
        passed = time.monotonic() - began
        told = [line for line in caplog.messages if "cannot look" in line]
        assert len(told) <= 2 * (passed + 1) and "Traceback" not in caplog.text
        assert "Too many open files" in told[0] and format_address(pair.address) in told[0]
        assert (role(one), role(two)) == ("active", "standby")
        one.stop()
        eventually(is_active(two))
        assert pair.served_by("z9hG4bK2") == "server1"


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="lowers the limit of this very process"
)
def test_without_descriptors_a_new_phone_is_still_served_where_we_listen_on_every_address(
    free_port, eventually, caplog
):
    """The system is asked with a socket which of our addresses a peer sees; else its last answer
    holds."""
    caplog.set_level("INFO", "forwarder")
    with scene(free_port) as pair:
        port = free_port()
        pair.lines[0] = f"forwarder.listen=0.0.0.0:{port}"
        pair.address = (HOST, port)
        registration = ("registration.foreign=yes", "registration.allow=0.0.0.0/0")
        one = pair.start(
            "heartbeat.fall=100", f"registration.listen={HOST}:{free_port()}", *registration
        )
        eventually(knows(one, "server1", "UP"))
        assert pair.served_by("z9hG4bK1") == "server1"
        with plain_phone("127.0.0.9") as stranger, no_descriptors():
            assert field(ask(stranger, pair.address, "z9hG4bK2"), "X-Server") == "server1"
            stranger.sendto(heartbeat(f"192.0.2.77:{port}"), one.registration)
            eventually(lambda: "cannot look: a registration of 127.0.0.9" in caplog.text)
        assert "Traceback" not in caplog.text


def heartbeat(address):
    """One with which the server at this address registers itself."""
    host, port = address.split(":")
    body = f"hostname=late\nip={host}\nudpPort={port}\n".encode()
    octets = request("OPTIONS", branch="z9hG4bKbeat", extra=("Mobicents-Heartbeat: 1",))
    return octets.replace(b"Content-Length: 0", b"Content-Length: %d" % len(body)) + body


@contextmanager
def no_descriptors():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    "host, moves",
    [
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("::", False),
        ("192.0.2.10", True),
        ("2001:db8::1", True),
    ],
)
def test_loopback_and_every_address_never_leave(host, moves):
    assert active_standby.can_move((host, 5060)) is moves


@pytest.mark.parametrize("installed", [True, False])
def test_this_computer_s_addresses_are_known_with_and_without_netifaces(installed, monkeypatch):
    if installed:
        pytest.importorskip("netifaces")
    else:
        monkeypatch.setitem(sys.modules, "netifaces", None)
    assert active_standby.has_address("127.0.0.1")
    assert not active_standby.has_address("192.0.2.10") and not active_standby.has_address(
        "2001:db8::1"
    )
