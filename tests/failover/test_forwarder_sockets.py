"""The forwarder on real sockets of loopback: what the kernel tells it, and what it makes of
that."""

from __future__ import annotations

import select
import socket
import sys
from pathlib import Path

import pytest
from forwarder_kit import (
    ask,
    config,
    fake_servers,
    field,
    head,
    is_state,
    plain_phone,
    request,
    running,
    state_of,
)

from failover import forwarder as service
from failover.forwarder import Forwarder
from failover.net import own_address, sockets
from failover.net.own_address import OwnAddress
from failover.net.sockets import open_phones, open_side
from plumbing.address import format_address
from plumbing.udp_batch import DatagramIO
from plumbing.udp_socket import RECEIVE_BUFFER


@pytest.fixture
def one_by_one(monkeypatch):
    """As on a system that cannot move many datagrams in one call."""
    monkeypatch.setattr(service, "fastest_io", DatagramIO)


@pytest.fixture
def scene(free_port):
    """(forwarder, its address, [server1, server2], a phone), all answering."""
    with fake_servers(free_port) as servers, plain_phone() as phone:
        port = free_port()
        with running(config(port, servers)) as forwarder:
            yield forwarder, ("127.0.0.1", port), servers, phone


def test_a_request_is_answered_by_the_first_server_with_the_phone_s_own_via_only(scene):
    forwarder, address, _servers, phone = scene
    response = ask(phone, address, "z9hG4bK1")
    assert field(response, "X-Server") == "server1"
    assert [line for line in head(response) if line.startswith("Via")] == [
        f"Via: SIP/2.0/UDP 127.0.0.1:{phone.getsockname()[1]};branch=z9hG4bK1"
    ]
    status = forwarder.status()
    assert status["hot"] == "server1" and [s["requests"] for s in status["servers"]] == [1, 0]


def test_a_killed_server_s_refusal_moves_its_request_to_the_next_one_at_once(scene, eventually):
    forwarder, address, servers, phone = scene
    eventually(is_state(forwarder, "server2", "UP"))
    servers[0].kill()
    assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server2"
    failover = forwarder.status()["failovers"][-1]
    assert (failover["from"], failover["to"]) == ("server1", "server2")
    assert failover["noticed"] in ("its port refused a message", "its port refused a heartbeat")


def answered_by(phone, address, count):
    """Which server answered each of so many requests that were sent at once."""
    for n in range(count):
        phone.sendto(
            request("OPTIONS", source=phone.getsockname(), branch=f"z9hG4bKmany{n}"), address
        )
    return [field(phone.recv(65_535), "X-Server") for _ in range(count)]


def test_a_hundred_requests_at_once_are_all_answered_and_those_of_a_killed_server_by_the_next(
    scene, eventually
):
    forwarder, address, servers, phone = scene
    eventually(is_state(forwarder, "server2", "UP"))
    assert answered_by(phone, address, 100) == ["server1"] * 100
    servers[0].freeze()
    for n in range(100):
        phone.sendto(
            request("OPTIONS", source=phone.getsockname(), branch=f"z9hG4bKlost{n}"), address
        )
    eventually(lambda: forwarder.status()["counters"]["passed.requests"] >= 200)
    servers[0].kill()
    assert {field(phone.recv(65_535), "X-Server") for _ in range(100)} == {"server2"}
    assert answered_by(phone, address, 100) == ["server2"] * 100


def test_the_same_where_datagrams_go_one_by_one(one_by_one, free_port, eventually):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        address = ("127.0.0.1", free_port())
        with running(config(address[1], servers)) as forwarder:
            test_a_hundred_requests_at_once_are_all_answered_and_those_of_a_killed_server_by_the_next(
                (forwarder, address, servers, phone), eventually
            )


def test_a_hung_server_is_left_within_the_promised_time_and_fenced_when_it_thaws(scene, eventually):
    forwarder, address, servers, phone = scene
    servers[0].freeze()
    phone.sendto(request("INVITE", source=phone.getsockname(), branch="z9hG4bK1"), address)
    assert field(phone.recv(65_535), "X-Server") == "server2"
    failover = forwarder.status()["failovers"][-1]
    assert failover["noticed"] == "no answer to heartbeats" and failover["replayed"] == 1
    assert failover["gap_ms"] < 1000
    servers[0].thaw()
    eventually(is_state(forwarder, "server1", "UP"))
    assert forwarder.status()["counters"]["dropped.fenced"] >= 1
    phone.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        phone.recv(65_535)
    phone.settimeout(2.0)
    assert field(ask(phone, address, "z9hG4bK2"), "X-Server") == "server1"


def test_when_every_server_is_dead_the_phone_hears_503_and_service_again_when_one_is_back(
    scene, eventually, free_port
):
    forwarder, address, servers, phone = scene
    for server in servers:
        server.freeze()
    eventually(lambda: forwarder.status()["hot"] is None)
    assert head(ask(phone, address, "z9hG4bK1"))[0] == "SIP/2.0 503 Service Unavailable"
    servers[1].thaw()
    eventually(lambda: forwarder.status()["hot"] == "server2")
    assert field(ask(phone, address, "z9hG4bK2"), "X-Server") == "server2"


def test_a_server_that_was_never_there_is_down_without_a_failover(free_port, eventually):
    with fake_servers(free_port, 1) as servers, plain_phone() as phone:
        port = free_port()
        settings = config(
            port,
            [],
            f"server0=127.0.0.1:{free_port()}",
            f"server1=127.0.0.1:{servers[0].address[1]}",
        )
        with running(settings) as forwarder:
            eventually(is_state(forwarder, "server0", "DOWN"))
            assert forwarder.status()["failovers"] == []
            assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK1"), "X-Server") == "server1"


def test_a_server_that_answers_heartbeats_with_503_gets_no_new_calls(scene, eventually):
    forwarder, address, servers, phone = scene
    servers[0].heartbeat = "503 Service Unavailable"
    eventually(lambda: forwarder.status()["hot"] == "server2")
    assert state_of(forwarder, "server1") == "UP"
    assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server2"


def test_a_server_s_request_reaches_the_phone_and_its_answer_comes_back(scene):
    _forwarder, address, servers, phone = scene
    host, port = phone.getsockname()
    servers[1].send(request("INVITE", f"sip:bob@{host}:{port}", source=servers[1].address), address)
    invite, source = phone.recvfrom(65_535)
    assert source == address and invite.startswith(b"INVITE")
    assert field(invite, "Record-Route").startswith(f"<sip:127.0.0.1:{address[1]};lr;hint=")


def test_what_the_system_refuses_to_send_is_counted_and_nothing_stops(scene, eventually):
    forwarder, address, servers, phone = scene
    servers[0].send(request("MESSAGE", "sip:x@127.255.255.255", source=servers[0].address), address)
    eventually(lambda: forwarder.status()["counters"].get("trouble.send"))
    assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"


def test_noise_from_strangers_is_counted_and_the_next_request_passes(scene):
    forwarder, address, _servers, phone = scene
    for noise in (
        b"",
        b"\r\n\r\n",
        b"\x00\x01\x00\x00stun",
        b"\xff" * 2000,
        b"SIP/2.0 200 OK\r\n\r\n",
        b"INVITE\r\n\r\n",
    ):
        phone.sendto(noise, address)
    assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
    counters = forwarder.status()["counters"]
    assert (
        counters["dropped.malformed"] == 3
        and counters["dropped.not-ours"] == 1
        and counters["keepalives"] == 2
    )


def test_one_that_is_not_to_stand_by_cannot_start_on_a_taken_address_and_a_third_can_after_the_first(
    free_port,
):
    with fake_servers(free_port) as servers:
        port = free_port()
        settings = config(port, servers, "forwarder.standby=no")
        with running(settings):
            second = Forwarder(settings)
            with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
                second.start()
            second.stop()
        with running(settings) as third:
            assert third.status()["listen"] == f"127.0.0.1:{port}"


def test_stop_may_be_called_twice_and_before_start(free_port):
    with fake_servers(free_port) as servers:
        Forwarder(config(free_port(), servers)).stop()
        forwarder = Forwarder(config(free_port(), servers))
        forwarder.start()
        forwarder.stop()
        forwarder.stop()


def test_without_shared_ports_every_side_has_its_own_and_all_works_the_same(
    free_port, eventually, monkeypatch
):
    monkeypatch.setattr(sockets, "SHARES_PORTS", False)
    with fake_servers(free_port) as servers, plain_phone() as phone:
        port = free_port()
        with running(config(port, servers)) as forwarder:
            address = ("127.0.0.1", port)
            assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
            host, own = phone.getsockname()
            servers[0].send(
                request("INVITE", f"sip:bob@{host}:{own}", source=servers[0].address), address
            )
            assert phone.recv(65_535).startswith(b"INVITE"), "known by where it came from"
            servers[0].kill()
            assert field(ask(phone, address, "z9hG4bK2"), "X-Server") == "server2"
            assert forwarder.status()["failovers"]


def test_a_phone_s_datagram_that_lands_on_a_side_before_it_is_connected_is_not_lost(
    free_port, monkeypatch
):
    listen, server = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    with open_phones(listen), plain_phone() as phone:
        real = sockets.bind_udp

        def bind_and_receive(address, share=False):
            sock = real(address, share=share)
            phone.sendto(b"too early", listen)
            select.select([sock], [], [], 2.0)
            return sock

        monkeypatch.setattr(sockets, "bind_udp", bind_and_receive)
        side, landed = open_side(listen, server)
        side.close()
        assert landed == [(b"too early", phone.getsockname())]


def test_the_phones_socket_hears_everybody_but_the_server_whose_side_is_connected(free_port):
    listen, server = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    with (
        open_phones(listen) as phones,
        plain_phone() as phone,
        socket.socket(type=socket.SOCK_DGRAM) as speaker,
    ):
        speaker.bind(server)
        side, _ = open_side(listen, server)
        with side:
            phone.sendto(b"phone", listen)
            speaker.sendto(b"server", listen)
            assert select.select([side], [], [], 2.0)[0] and side.recv(100) == b"server"
            assert select.select([phones], [], [], 2.0)[0] and phones.recv(100) == b"phone"


def test_own_address_is_what_the_operator_says_else_what_it_listens_on_else_the_system_s_choice():
    assert OwnAddress(("0.0.0.0", 5060), ("sip.example", 5070)).towards("127.0.0.1") == (
        "sip.example",
        5070,
    )
    assert OwnAddress(("127.0.0.2", 5060), None).towards("127.0.0.1") == ("127.0.0.2", 5060)
    wildcard = OwnAddress(("0.0.0.0", 5060), None)
    assert wildcard.towards("127.0.0.1") == ("127.0.0.1", 5060)
    for n in range(3000):
        wildcard.towards(f"127.0.{n // 250}.{n % 250 + 1}")
    assert len(wildcard._routes) <= own_address.MAX_CACHED


def test_listening_on_every_address_still_gives_the_servers_their_sides(free_port):
    with fake_servers(free_port) as servers, plain_phone() as phone:
        port = free_port()
        with running(config(port, servers, host="0.0.0.0")):
            response = ask(phone, ("127.0.0.1", port), "z9hG4bK1", "INVITE")
            assert field(response, "Record-Route").startswith(f"<sip:127.0.0.1:{port};lr;")


def test_over_ipv6_it_is_all_the_same(free_port, eventually):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this computer has no IPv6")
    with fake_servers(free_port, host="::1") as servers, plain_phone("::1") as phone:
        port = free_port()
        with running(config(port, servers, host="::1")):
            response = ask(phone, ("::1", port), "z9hG4bK1", "INVITE")
            assert field(response, "X-Server") == "server1"
            assert field(response, "Record-Route").startswith(f"<sip:[::1]:{port};lr;hint=")
            servers[0].kill()
            assert field(ask(phone, ("::1", port), "z9hG4bK2"), "X-Server") == "server2"


# -- reload ----------------------------------------------------------------------------------------


def test_a_reload_brings_a_server_in_once_it_answers_and_lets_one_go(free_port, eventually):
    with fake_servers(free_port, 3) as servers, plain_phone() as phone:
        port = free_port()
        address = ("127.0.0.1", port)
        with running(config(port, servers[:2])) as forwarder:
            assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
            where = f"127.0.0.1:{servers[2].address[1]}"
            changed = forwarder.reload(config(port, [servers[2], servers[1]], "heartbeat.fall=4"))
            assert changed == [
                f"- server1 127.0.0.1:{servers[0].address[1]}",
                f"+ server3 {where}",
                "heartbeat.fall 3 -> 4",
            ]
            assert field(ask(phone, address, "z9hG4bK2"), "X-Server") == "server2", (
                "server3 has to answer first"
            )
            eventually(is_state(forwarder, "server3", "UP"))
            assert field(ask(phone, address, "z9hG4bK3"), "X-Server") == "server3"
            assert [server["name"] for server in forwarder.status()["servers"]] == [
                "server3",
                "server2",
            ]


def test_a_reload_keeps_what_is_known_about_servers_that_stay(scene, eventually):
    forwarder, address, servers, _phone = scene
    servers[0].freeze()
    eventually(is_state(forwarder, "server1", "DOWN"))
    assert forwarder.reload(config(address[1], servers)) == []
    assert state_of(forwarder, "server1") == "DOWN"
    servers[0].thaw()
    eventually(is_state(forwarder, "server1", "UP"))


def test_a_server_whose_side_cannot_be_opened_is_down_and_the_others_serve(
    scene, monkeypatch, eventually
):
    forwarder, address, servers, phone = scene
    eventually(is_state(forwarder, "server1", "UP"))

    def refuse(*_):
        raise OSError(101, "Network is unreachable")

    with monkeypatch.context() as broken:
        broken.setattr("failover.net.server_links.open_side", refuse)
        last = format_address(servers[1].address)
        forwarder.reload(config(address[1], servers[:1], f"moved={last}"))
        told = forwarder.status()["servers"][1]
        assert (told["state"], told["why"]) == (
            "DOWN",
            f"{last} cannot be reached: network is unreachable",
        )
        assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server1"
    eventually(is_state(forwarder, "moved", "UP"))


def test_a_reload_says_what_has_to_wait_for_the_next_start(scene, free_port):
    forwarder, address, servers, _phone = scene
    changed = forwarder.reload(config(free_port(), servers))
    assert len(changed) == 1 and changed[0].endswith("(at the next start)")
    assert forwarder.status()["listen"] == f"127.0.0.1:{address[1]}"


@pytest.mark.skipif(sys.platform != "linux", reason="how the system counts a buffer is Linux's")
def test_what_waits_for_the_forwarder_has_the_room_that_was_asked_for(free_port):
    with (
        open_phones(("127.0.0.1", free_port())) as phones,
        sockets.bind_udp(("127.0.0.1", 0)) as side,
    ):
        granted = [
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2 for sock in (phones, side)
        ]
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    asked = [sockets.PHONES_BUFFER, RECEIVE_BUFFER]
    assert granted == asked or granted == [min(most, octets) for octets in asked], (
        "the second: without root's rights"
    )
