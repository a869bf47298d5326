"""Hosts that session descriptions name for media (RFC 8866 5.7): can they be sent to?"""

from __future__ import annotations

import ipaddress

from sip.errors import RemoteProtocolError


def nowhere(host: str) -> bool:
    """Is it no address at all, which is a hold (RFC 3264 8.4)?"""
    return host in ("0.0.0.0", "::") or host.endswith(".invalid")


def unicast(host: str) -> str:
    """A host that may be sent to. Names are refused, for nothing on the media path waits for
    DNS."""
    if nowhere(host):
        return "::" if ":" in host else "0.0.0.0"
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        raise RemoteProtocolError(
            f"SDP: the media address {host[:60]!r} is not a literal one", status=488
        ) from None
    if parsed.is_multicast or host == "255.255.255.255":
        raise RemoteProtocolError(f"SDP: the media address {host} is not one host's", status=488)
    return str(parsed)  # as recvfrom spells it


def reaches(ours: str, theirs: str) -> bool:
    """Can media go from the one host to the other? No address at all is a hold, which nothing
    goes to."""
    try:
        host = unicast(theirs)
    except RemoteProtocolError:
        return False
    return nowhere(ours) or nowhere(host) or (":" in ours) == (":" in host)
