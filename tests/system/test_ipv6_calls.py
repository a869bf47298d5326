"""Whole calls over IPv6: real phones, a real forwarder, real servers as processes, a real kill -9;
and what a forwarder of one address family says to the other."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request

import pytest
from phone_kit import Owner
from process_kit import RunningProgram, server_argv

from failover.cli import look_up
from failover.config.settings import read
from failover.forwarder import Forwarder
from failover.net.sockets import check_family
from plumbing.address import format_address
from softphone.ua.events import CallState


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this computer has no IPv6")


class Scene:
    """Two servers and a forwarder that listens on `listen`; phones join."""

    def __init__(self, folder, free_port, listen):
        self.address = ("::1", free_port())
        self.pages = {name: free_port() for name in ("server1", "server2")}
        ports = {name: free_port() for name in self.pages}
        self.programs = [
            RunningProgram(
                server_argv(
                    *(name, f"[::1]:{port}", format_address(self.address)),
                    *(folder / "store.sqlite", f"127.0.0.1:{self.pages[name]}"),
                ),
                folder / f"{name}.log",
            )
            for name, port in ports.items()
        ]
        lines = [f"{name}=[::1]:{port}" for name, port in ports.items()]
        text = "\n".join(
            [
                f"forwarder.listen={format_address((listen, self.address[1]))}",
                "admin.listen=",
                *lines,
            ]
        )
        self.forwarder = Forwarder(read(text, "test"))
        self.forwarder.start()
        self.phones = []

    def phone(self, user):
        self.phones.append(Owner(user, self.address, register=True, listen=("::1", 0)))
        return self.phones[-1]

    def bills(self, name):
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.pages[name]}/calls", timeout=10
        ) as answer:
            return json.load(answer)["calls"]

    def end(self):
        for phone in self.phones:
            phone.stop()
        self.forwarder.stop()
        for program in self.programs:
            program.stop()


@needs_ipv6
@pytest.mark.parametrize("listen", ["::1", "::"])
def test_a_call_over_ipv6_survives_its_server_and_is_billed_by_the_other(
    tmp_path, free_port, eventually, listen
):
    scene = Scene(tmp_path, free_port, listen)
    try:
        alice, bob = scene.phone("alice"), scene.phone("bob")
        eventually(lambda: alice.registered and bob.registered, timeout=10)
        alice.phone.call("bob")
        eventually(lambda: bob.state is CallState.INCOMING)
        bob.phone.answer()
        eventually(lambda: alice.state is bob.state is CallState.TALKING)
        scene.programs[0].stop(signal.SIGKILL)
        eventually(lambda: scene.forwarder.status()["hot"] == "server2")
        bob.phone.hang_up()
        eventually(lambda: alice.state is bob.state is CallState.ENDED)
        (bill,) = eventually(lambda: [bill for bill in scene.bills("server2") if bill["final"]])
        assert bill["why"] and bill["answered"] is not None
        assert scene.forwarder.status()["counters"].get("dropped.no-target", 0) == 0
    finally:
        scene.end()


def test_a_server_of_the_other_family_is_refused_with_both_addresses():
    with pytest.raises(OSError, match=r"not of the family of 127\.0\.0\.1:24001 \(\[::1\]:24002\)"):
        check_family(("127.0.0.1", 24001), ("::1", 24002))


def test_a_name_of_both_families_gives_the_one_that_is_wanted(monkeypatch):
    def both(host, port, type):
        assert host == "dual.example"
        return [
            (socket.AF_INET, type, 17, "", ("192.0.2.1", 0)),
            (socket.AF_INET6, type, 17, "", ("2001:db8::1", 0, 0, 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    assert look_up("dual.example", ipv6=False) == "192.0.2.1"
    assert look_up("dual.example", ipv6=True) == "2001:db8::1"
    assert look_up("192.0.2.9", ipv6=True) == "192.0.2.9", "an address is what it is"
