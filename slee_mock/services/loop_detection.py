"""Loop detection (RFC 3261 16.3 step 4): has this request been here before, with the same goal?

Each Via of the cluster has a parameter `asked`, a hash of the goal. A request that comes back with
another goal is a spiral and goes on; with the same one it would come back for ever. The parameter
needs no signature, for the branch beside it has one. It is not in the branch, which the CANCEL must
have too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

from sip.branch import make_branch
from sip.message import Request
from sip.via import Via
from slee_mock.services.call_dialogs import read_uri
from slee_mock.services.serial_forking import attempt_of

ASKED = "asked"


def is_loop(key: bytes, request: Request, vias: Sequence[Via]) -> bool:
    words = [via.params.get(ASKED) for via in own_vias(key, request, vias)]
    return bool(words) and asked(request) in words


def own_vias(key: bytes, request: Request, vias: Sequence[Via]) -> list[Via]:
    """Picks the request's Vias that servers of this cluster put there."""
    return [
        via
        for via, beneath in pairwise(vias)
        if attempt_of(via.branch)[0] == make_branch(key, request, beneath)
    ]


def asked(request: Request) -> str:
    """Hashes what the cluster looks at to route the request: outside
    of dialogs the address-of-record, within them Request-URI and Routes."""
    parts = [asked_user(request.uri)]
    if request.to_tag:
        parts = [request.uri, *request.all("Route")]
    return f"{crc32(chr(0).join(parts).encode('utf-8', 'surrogateescape')):08x}"


def asked_user(uri: str) -> str:
    """Reads the address-of-record of a Request-URI, whatever else it says."""
    parsed = read_uri(uri)
    return parsed.aor() if parsed else uri
