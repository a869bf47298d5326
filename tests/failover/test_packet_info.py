"""What is remembered of the addresses that peers use is bounded, and strangers push out no peer
that needs it."""

from __future__ import annotations

import socket
import sys

import pytest

from failover.net import own_address
from failover.net.own_address import OwnAddress
from plumbing import packet_info
from plumbing.packet_info import LocalAddresses

USUAL, OTHER, THIRD = (socket.inet_aton(host) for host in ("127.0.0.1", "127.0.0.9", "127.0.0.8"))
PEER = ("127.0.0.1", 5060)
MOST = 8

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the address")


@pytest.fixture
def told(monkeypatch):
    """What was noticed, newest last."""
    monkeypatch.setattr(packet_info, "MAX_PEERS", MOST)
    monkeypatch.setattr(packet_info, "usual_towards", lambda host: "127.0.0.1")
    return []


@pytest.fixture
def addresses(told):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 0))
        yield LocalAddresses(sock, lambda *noticed: told.append(noticed))


def flood(addresses, packed, count=5 * MOST):
    for n in range(count):
        addresses.note((f"127.0.1.{n}", 6000 + n), packed)


def sizes(addresses):
    return len(addresses.known), len(addresses.unlike), len(addresses._usual)


def test_strangers_who_use_the_usual_address_push_out_nobody_who_uses_another(addresses, told):
    addresses.note(PEER, OTHER)
    flood(addresses, USUAL)
    assert list(addresses.unlike) == [PEER] and sizes(addresses) == (MOST, 1, MOST)
    assert told == [(PEER, "127.0.0.9", False)]


def test_one_who_was_pushed_out_of_what_is_known_is_read_anew_and_nothing_has_changed(
    addresses, told
):
    addresses.note(PEER, OTHER)
    flood(addresses, USUAL)
    addresses.note(PEER, OTHER)
    assert told[-1] == (PEER, "127.0.0.9", False), "so no cache is emptied for it"
    flood(addresses, USUAL)
    addresses.note(PEER, THIRD)
    assert told[-1] == (PEER, "127.0.0.8", True)
    flood(addresses, USUAL)
    addresses.note(PEER, USUAL)
    assert told[-1] == (PEER, "", True) and not addresses.unlike


def test_of_many_who_use_another_the_oldest_goes_and_is_noted_at_its_next_datagram(addresses):
    addresses.note(PEER, OTHER)
    flood(addresses, OTHER, MOST - 1)
    assert PEER in addresses.unlike
    flood(addresses, OTHER, MOST)
    assert PEER not in addresses.unlike and PEER not in addresses.known
    assert sizes(addresses) == (MOST, MOST, MOST)
    addresses.note(PEER, OTHER)
    assert PEER in addresses.unlike and sizes(addresses) == (MOST, MOST, MOST)


def test_the_own_address_is_forgotten_of_the_oldest_peer_only(monkeypatch):
    monkeypatch.setattr(own_address, "MAX_USED", MOST)
    own = OwnAddress(("0.0.0.0", 5060), None)
    for port in range(MOST):
        own.uses(("127.0.0.1", port), "127.0.0.9")
    own.uses(("127.0.0.1", 0), "127.0.0.9")  # it is heard of again
    own.uses(("127.0.0.1", MOST), "127.0.0.9")
    assert [port for _, port in own._used] == [*range(2, MOST), 0, MOST]
    own.uses(("127.0.0.1", 0), "")
    assert own.towards_phone(("127.0.0.1", 0)) == ("127.0.0.1", 5060)
    assert own.towards_phone(("127.0.0.1", 2)) == ("127.0.0.9", 5060)
