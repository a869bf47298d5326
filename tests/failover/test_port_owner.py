"""Who has an address: Linux's own answer, for sockets of this process."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from failover.net.port_owner import port_owner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def bound(host):
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((host, 0))
    except OSError:
        sock.close()
        pytest.skip(f"this computer does not have {host}")
    return sock


@pytest.mark.parametrize(
    "has, wanted",
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("::1", "::1"),
        ("::", "::1"),
    ],
)
def test_the_holder_is_named_with_its_command_and_pid(has, wanted):
    with bound(has) as sock:
        who = port_owner((wanted, sock.getsockname()[1]))
    assert who.endswith(f" (pid {os.getpid()})") and "pytest" in who


def test_nobody_is_named_where_nobody_is_or_only_at_another_address(free_port):
    with bound("127.0.0.2") as sock:
        assert port_owner(("127.0.0.1", sock.getsockname()[1])) == ""
    assert port_owner(("127.0.0.1", free_port())) == ""


def test_a_system_that_tells_nothing_names_nobody(tmp_path):
    assert port_owner(("127.0.0.1", 5060), tmp_path) == ""
