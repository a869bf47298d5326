"""What a proxy looks at before it passes a request on (RFC 3261 16.3 and 16.4), and whether that
request has been here before (RFC 5393).

Each Via of the forwarder carries `loop`, a word for how it was asked: by a phone or a server, for
which Request-URI and Route. A request passes the forwarder twice per call and more often where it
spirals, but each time asked for something else; one that comes again asked for the same would come
for ever. The word needs no signature, for the branch beside it has one, and it stays out of the
branch, so that a CANCEL which spells its Request-URI otherwise still meets its INVITE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from zlib import crc32

from failover.config.settings import PHONES
from sip.branch import is_branch_of
from sip.errors import RemoteProtocolError
from sip.message import Request
from sip.uri import Uri
from sip.via import Via

LOOP = "loop"
Fields = Sequence[tuple[str, str]]


class Refused(RemoteProtocolError):
    """What the answer is, and by which `reason` it is counted."""

    def __init__(self, text: str, status: int, reason: str, fields: Fields = ()) -> None:
        super().__init__(text, status)
        self.reason, self.fields = reason, fields


def validate(request: Request) -> None:
    """RFC 3261 16.3, but for the scheme of the Request-URI, which the forwarder leaves to the
    server it asks. Raises RemoteProtocolError, as Refused where 400 is not the answer."""
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
    """Is the forwarder itself asked whether it serves? An OPTIONS that goes no further may be
    answered by whom it has come to (RFC 3261 16.3, Max-Forwards)."""
    return (
        request.method == "OPTIONS"
        and request.max_forwards == 0
        and not Uri.parse(request.uri).user
    )


def loop_word(request: Request, side: str) -> str:
    """How the forwarder is asked: by whom and for what. Equal for a request that comes again as it
    left."""
    asker = "phones" if side == PHONES else "servers"
    # fast_path.py makes the same of octets
    asked = "\0".join((asker, request.uri, *request.all("Route")))
    return f"{crc32(asked.encode('utf-8', 'surrogateescape')):08x}"


def been_here(key: bytes, request: Request, side: str, view: Callable[[Via], Via]) -> bool:
    """Is a Via of ours among the request's, on top (so nobody has handled it since) or with the
    word of now?"""
    vias = request.vias
    if len(vias) < 2:
        return False
    word = loop_word(request, side)
    return any(
        (LOOP in via.params if at == 0 else via.params.get(LOOP) == word)
        and is_branch_of(key, via, view(beneath), request)
        for at, (via, beneath) in enumerate(pairwise(vias))
    )
