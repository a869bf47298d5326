"""plumbing.address and plumbing.udp_socket: addresses as people write them, sockets that say where
they failed."""

import pytest

from plumbing.address import format_address, parse_address
from plumbing.udp_socket import bind_udp


@pytest.mark.parametrize(
    "text, address",
    [
        ("127.0.0.1:5060", ("127.0.0.1", 5060)),
        (" server1 : 5070 ", ("server1", 5070)),
        ("[::1]:5060", ("::1", 5060)),
        ("[2001:DB8::0001] : 5060", ("2001:db8::1", 5060)),
        ("h:0", ("h", 0)),
    ],
)
def test_addresses_are_read_as_people_write_them(text, address):
    assert parse_address(text) == address
    assert parse_address(format_address(address)) == address


def test_a_default_port_fills_in():
    assert parse_address("h", default_port=5060) == ("h", 5060)
    assert parse_address("[::1]", default_port=5060) == ("::1", 5060)


@pytest.mark.parametrize(
    "text, says",
    [
        ("h", "'h' has no port; write h:PORT"),
        ("8060", "'8060' is a port without an address; write 127.0.0.1:8060, say"),
        ("256.1.1.1:5060", "'256.1.1.1' is not an IP address in '256.1.1.1:5060'"),
        ("127.1:5060", "'127.1' is not an IP address in '127.1:5060'"),
        ("::1:5060", "brackets"),
        ("h:70000", "0 to 65535"),
        ("h:sip", "not a port"),
        ("", "not host:port"),
        ("[::zz]:1", "not an IP address"),
    ],
)
def test_a_wrong_address_gets_a_sentence(text, says):
    with pytest.raises(ValueError, match=says):
        parse_address(text)


def test_a_name_is_refused_where_only_a_literal_will_do():
    with pytest.raises(ValueError, match="not an IP address"):
        parse_address("server1:5060", literal=True)


def test_the_second_to_bind_is_told_which_address_is_taken():
    with bind_udp(("127.0.0.1", 0)) as first:
        address = first.getsockname()
        with pytest.raises(OSError, match=format_address(address)):
            bind_udp(address)
