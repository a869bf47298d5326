"""Where a message may go: addresses only, never a name, never what would reach more than one."""

from __future__ import annotations

from plumbing.address import Address, literal
from sip.grammar import canonical_host
from sip.uri import DEFAULT_PORT, Uri
from sip.via import Via

__all__ = ["literal", "names", "way_back"]


def way_back(via: Via) -> Address:
    """Where the answer to a request with this Via goes (RFC 3261 18.2.2, RFC 3581 4), but for
    `maddr`: that would let a phone have its answers sent to somebody else."""
    params = via.params
    host = via.received if params.get("received") else ""
    port = via.rport if params.get("rport") else None
    return canonical_host(host or via.host), port or via.port or DEFAULT_PORT


def names(uri: Uri, address: Address) -> Uri:
    """The same URI at another address."""
    return uri._replace(host=address[0], port=address[1])
