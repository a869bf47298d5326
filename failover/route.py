"""Where a message may go: addresses only, never a name, never what would reach more than one."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address

from plumbing.address import Address
from sip.grammar import canonical_host
from sip.uri import DEFAULT_PORT, Uri
from sip.via import Via

LONGEST = 64  # characters of an IP address, its scope included


def way_back(via: Via) -> Address:
    """Where the answer to a request with this Via goes (RFC 3261 18.2.2, RFC 3581 4), but for `maddr`: that would let
    a phone have its answers sent to somebody else."""
    return canonical_host(via.received or via.host), via.rport or via.port or DEFAULT_PORT


def literal(address: Address) -> bool:
    """Is this one computer's IP address? Names would be looked up in the middle of the message path, and a broadcast
    would be answered by a whole network."""
    return len(address[0]) <= LONGEST and _literal(address)


@lru_cache(maxsize=4096)
def _literal(address: Address) -> bool:
    try:
        host = ip_address(address[0])
    except ValueError:
        return False
    return not (host.is_multicast or host.is_unspecified or address[0] == "255.255.255.255") and address[1] > 0


def names(uri: Uri, address: Address) -> Uri:
    """The same URI at another address."""
    return replace(uri, host=address[0], port=address[1])
