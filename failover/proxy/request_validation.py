"""Request validation, as a proxy does it before it forwards a request (RFC 3261 16.3), and loop
detection (RFC 5393).

Each Via of the forwarder has a parameter `loop`: a hash of who asked (a phone or a server), of the
Request-URI and of the Routes. A request passes the forwarder twice per call, and more often if it
spirals, but each time these differ. If they are equal, the request would come back for ever. The
hash is not signed, because the branch beside it is. It is not part of the branch, so that a CANCEL
whose Request-URI is spelled in another way still has the branch of its INVITE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from zlib import crc32

from failover.config.settings import PHONES
from sip.errors import RemoteProtocolError
from sip.message import Message, Request
from sip.uri import Uri
from sip.via import Via

LOOP = "loop"
Fields = Sequence[tuple[str, str]]


class Refused(RemoteProtocolError):
    """The request is answered with `status` and `fields` instead of forwarded. `reason` names the
    counter."""

    def __init__(self, text: str, status: int, reason: str, fields: Fields = ()) -> None:
        super().__init__(text, status)
        self.reason, self.fields = reason, fields


def validate(request: Request) -> None:
    """Checks a request (RFC 3261 16.3), except the scheme of its Request-URI, which is left to the
    server. Raises RemoteProtocolError (400), or Refused for another status."""
    request.check(in_passing=True)
    if len(request.all("Max-Forwards")) > 1:
        raise RemoteProtocolError("Max-Forwards is there twice")
    if request.max_forwards == 0:
        raise Refused("Max-Forwards is 0", 483, "too-many-hops")
    wanted = request.values("Proxy-Require")
    # 20.29: whose INVITE was refused already
    if wanted and request.method not in ("ACK", "CANCEL"):
        unsupported = ", ".join(wanted)
        raise Refused(
            f"the forwarder does not have {unsupported}",
            420,
            "extension",
            [("Unsupported", unsupported)],
        )


def is_probe(request: Request) -> bool:
    """Is this an OPTIONS for the forwarder itself? With Max-Forwards 0 the proxy that it reached
    may answer it (RFC 3261 16.3)."""
    return (
        request.method == "OPTIONS"
        and request.max_forwards == 0
        and not Uri.parse(request.uri).user
    )


def loop_hash(request: Request, side: str) -> str:
    """Returns the hash of who asked and for what; equal for a request that comes back as it was
    sent."""
    asker = "phones" if side == PHONES else "servers"
    # fast_path.py makes the same of octets
    asked = "\0".join((asker, request.uri, *request.all("Route")))
    return f"{crc32(asked.encode('utf-8', 'surrogateescape')):08x}"


def is_looped(request: Request, side: str, is_ours: Callable[[Via, Via, Message], bool]) -> bool:
    """Has the request passed here before, and come back unhandled? One of its Vias is ours: the
    topmost, or one with the same loop hash as now."""
    vias = request.vias
    if len(vias) < 2:
        return False
    word = loop_hash(request, side)
    return any(
        (LOOP in via.params if at == 0 else via.params.get(LOOP) == word)
        and is_ours(via, beneath, request)
        for at, (via, beneath) in enumerate(pairwise(vias))
    )
