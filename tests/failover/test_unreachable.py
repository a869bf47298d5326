"""A server that no route leads to keeps nobody from the others, and is used once there is one,
without a restart."""

from __future__ import annotations

import contextlib
import itertools
from contextlib import contextmanager

import pytest
from forwarder_kit import FakeServer, ask, fake_servers, field, plain_phone
from heartbeat_kit import beat, body
from hosts_kit import lonely_host, run, unfit

from failover.config.settings import read
from failover.forwarder import Forwarder
from plumbing.address import format_address

FAR = "192.0.2.1"
SENTENCE = "cannot be reached: network is unreachable"


@pytest.fixture
def computer():
    reason = unfit()
    if reason:
        pytest.skip(reason)
    with lonely_host("computer"):
        yield


@contextmanager
def running(port, servers, *more):
    """A forwarder, and a phone."""
    forwarder = Forwarder(settings(port, servers, *more))
    forwarder.start()
    try:
        with plain_phone() as phone:
            yield forwarder, phone
    finally:
        forwarder.stop()


def settings(port, servers, *more):
    named = [f"{name}={format_address(address)}" for name, address in servers.items()]
    return read(
        "\n".join([f"forwarder.listen=0.0.0.0:{port}", "admin.listen=", *named, *more]), "test"
    )


def server(forwarder, name):
    return next(each for each in forwarder.status()["servers"] if each["name"] == name)


def is_up(forwarder, *names):
    return lambda: all(server(forwarder, name)["state"] == "UP" for name in names)


@contextmanager
def comes(port):
    """The route, and a server at its end."""
    run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
    far = FakeServer("far", (FAR, port))
    try:
        yield far
    finally:
        far.kill()


def test_it_starts_without_a_route_to_server1_and_uses_it_once_there_is_one(
    computer, free_port, eventually
):
    port, far = free_port(), (FAR, free_port())
    with (
        fake_servers(free_port, 1) as (near,),
        running(port, {"far": far, "near": near.address}) as (forwarder, phone),
    ):
        eventually(is_up(forwarder, "near"))
        told = server(forwarder, "far")
        assert told["state"] == "DOWN" and SENTENCE in told["why"], told
        assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK1"), "X-Server") == near.name
        assert forwarder.status()["counters"]["trouble.open"] == 1, (
            "told once, not at every attempt"
        )
        with comes(far[1]):
            eventually(is_up(forwarder, "far"))
            assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK2"), "X-Server") == "far"
        assert forwarder.status()["errors"] == 0


def test_on_standby_too(computer, free_port, eventually):
    port, far = free_port(), (FAR, free_port())
    with (
        fake_servers(free_port, 1) as (near,),
        running(port, {"near": near.address}) as (first, _),
        running(port, {"far": far, "near": near.address}) as (second, phone),
    ):
        assert second.status()["role"] == "standby"
        eventually(is_up(second, "near"))
        assert SENTENCE in server(second, "far")["why"]
        first.stop()
        eventually(lambda: second.status()["role"] == "active")
        with comes(far[1]):
            eventually(is_up(second, "far"))
            assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK2"), "X-Server") == "far"


def test_a_reload_may_name_it(computer, free_port, eventually):
    port, far = free_port(), (FAR, free_port())
    with (
        fake_servers(free_port, 1) as (near,),
        running(port, {"near": near.address}) as (forwarder, phone),
    ):
        both = {"far": far, "near": near.address}
        assert (
            forwarder.reload(settings(port, both, "heartbeat.fall=4"))[-1]
            == "heartbeat.fall 3 -> 4"
        )
        assert SENTENCE in server(forwarder, "far")["why"]
        assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK1"), "X-Server") == near.name
        with comes(far[1]):
            eventually(is_up(forwarder, "far"))
            assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK2"), "X-Server") == "far"


def test_a_server_may_register_for_one_that_has_no_route_yet(computer, free_port, eventually):
    port, desk, far = free_port(), ("127.0.0.1", free_port()), (FAR, free_port())
    lines = [
        f"registration.listen={format_address(desk)}",
        "registration.foreign=yes",
        f"registration.allow=127.0.0.0/8, {FAR}",
    ]
    with (
        fake_servers(free_port, 1) as (near,),
        running(port, {"near": near.address}, *lines) as (forwarder, phone),
    ):
        phone.sendto(beat(body(*far), via=format_address(phone.getsockname())), desk)
        assert phone.recv(4096).startswith(b"SIP/2.0 200")
        name = forwarder.status()["registration"]["servers"][0]["name"]
        assert (
            server(forwarder, name)["state"] == "DOWN"
            and SENTENCE in server(forwarder, name)["why"]
        )
        eventually(is_up(forwarder, "near"))
        assert field(ask(phone, ("127.0.0.1", port), "z9hG4bK1"), "X-Server") == near.name
        with comes(far[1]):
            eventually(is_up(forwarder, name))


def test_a_route_that_goes_and_comes_back_under_another_own_address_is_used_again(
    computer, free_port, eventually
):
    """A connected socket keeps its own address of that moment, and never sends again once that is
    gone."""
    port, far = free_port(), (FAR, free_port())
    with fake_servers(free_port, 1) as (near,), comes(far[1]):
        run("ip", "address", "add", "198.51.100.1/32", "dev", "lo")
        run(*f"ip route replace local {FAR} dev lo table local src 198.51.100.1".split())
        with running(port, {"far": far, "near": near.address}) as (forwarder, phone):
            eventually(is_up(forwarder, "far", "near"))
            run("ip", "address", "del", "198.51.100.1/32", "dev", "lo")
            run(*f"ip route replace local {FAR} dev lo table local src {FAR}".split())
            eventually(lambda: forwarder.status()["counters"].get("trouble.heartbeat"))
            phone.settimeout(0.3)
            numbers = itertools.count()

            def answers():
                with contextlib.suppress(TimeoutError):
                    return (
                        field(
                            ask(phone, ("127.0.0.1", port), f"z9hG4bK{next(numbers)}"), "X-Server"
                        )
                        == "far"
                    )

            eventually(answers)
