"""Addresses compared and recognized, however they are spelled."""

from __future__ import annotations

import ipaddress

from softphone.ua.account import Address


def is_literal(host: str) -> bool:
    """An IP address, and no name, that a socket takes: ipaddress lets any byte pass as a scope."""
    if not (host.isascii() and host.isprintable()):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def same_address(one: Address, other: Address) -> bool:
    """Spelled alike or not: an IPv4 address seen by an IPv6 socket, or a scope at its end."""
    return one[1] == other[1] and _plain(one[0]) == _plain(other[0])


def _plain(host: str) -> str:
    host = host.partition("%")[0].lower().removeprefix("::ffff:")
    return "127.0.0.1" if host == "localhost" else host
