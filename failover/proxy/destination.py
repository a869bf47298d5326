"""Destinations: messages are sent to unicast IP addresses only, never to names, broadcast or
multicast addresses."""

from __future__ import annotations

from plumbing.address import Address, literal
from sip.grammar import canonical_host
from sip.uri import DEFAULT_PORT, Uri
from sip.via import Via

__all__ = ["literal", "response_address", "with_address"]


def response_address(via: Via) -> Address:
    """Returns the address that the answer to a request with this Via goes to (RFC 3261 18.2.2, RFC
    3581 4). `maddr` is ignored: a phone could have its answers sent to somebody else."""
    params = via.params
    host = via.received if params.get("received") else ""
    port = via.rport if params.get("rport") else None
    return canonical_host(host or via.host), port or via.port or DEFAULT_PORT


def with_address(uri: Uri, address: Address) -> Uri:
    """Returns the same URI with another host and port."""
    return uri._replace(host=address[0], port=address[1])
