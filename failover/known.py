"""What there is to know of those who send requests and of how these begin: read once, by the parser's own functions.

Here are the things themselves; ways.py keeps them, under the octets that they were read from.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

from failover.lines import BACK, Lines
from failover.route import literal, way_back
from failover.settings import PHONES
from failover.shapes import Form, Odd
from failover.table import Server
from failover.validation import LOOP
from plumbing.address import Address
from sip.branch import words_of
from sip.message import Request, parse
from sip.via import MAGIC_COOKIE, Via

STAND_IN = MAGIC_COOKIE + "-stands-in-"  # for the branch, which is another in every message
new = tuple.__new__  # of a NamedTuple, in half the time
FROM_PHONES, FROM_SERVERS = crc32(b"phones\0"), crc32(b"servers\0")  # how the loop word begins


class Sender:
    """Who sent a request, as the topmost Via has it: that line as it is passed on, in two parts with the branch between
    them (`right` is what came behind the branch); what our branch over it is made from, likewise; the way back, and the
    server that waits there, if one does; the forwarder's own address as it knows it."""

    __slots__ = ("after", "before", "ending", "own", "right", "server", "signing", "target")

    def __init__(self, lines: Lines, left: bytes, right: bytes, source: Address) -> None:
        self.own, self.right = "", right
        value = f"{_text(left)};branch={STAND_IN}{_text(right)}"
        via = Via.parse(value)
        complete = via.with_source(*source)
        text = value if complete == via else str(complete)
        if "," in text or '"' in text or via.branch != STAND_IN or LOOP in via.params or text.count(STAND_IN) != 1:
            raise Odd
        before, _, after = text.partition(STAND_IN)
        self.target = way_back(complete)
        self.server = lines.table.by_address.get(self.target)
        if not self.server and not literal(self.target):
            raise Odd
        self.before = _octets(f";{BACK}={lines.back_word(complete)};rport\r\nVia: {before}{MAGIC_COOKIE}")
        self.after = _octets(f"{after}\r\n")
        beginning, self.ending = map(_octets, "\0".join(words_of(lines.signed(complete))).split(STAND_IN))
        self.signing = blake2b(beginning + MAGIC_COOKIE.encode(), key=lines.key, digest_size=16)

    def sign(self, branch: bytes) -> bytes:
        """Our branch over this one, of which the cookie is left out."""
        signing = self.signing.copy()
        signing.update(branch + self.ending)
        return b"z9hG4bK" + signing.hexdigest().encode()


class Head:
    """How somebody's requests of one method to one Request-URI begin, up to the topmost Via's branch, which octets come
    again and again: what is read there, the form of what follows, and with what such a request leaves.

    `target`: where the Request-URI points, and `named` the server there, if one is. `asker`: how the loop word begins;
    `records`: Record-Routes above. `opening` and `within`: by the server's name, what is written between the first
    line and our Via, and that up to the branch, for a request without and with a To tag."""

    __slots__ = (
        "asker", "form", "left", "method", "named", "opening", "read", "records", "sender", "start", "target", "uri",
        "within",
    )  # fmt: skip

    def __init__(
        self, match: re.Match[bytes], leg: str, form: Form, target: Address, named: Server | None, sender: Sender
    ) -> None:
        """`match`: of shapes.HEAD."""
        self.start, self.method, self.uri, _, self.records, self.left = match.groups()
        self.asker = FROM_PHONES if leg == PHONES else FROM_SERVERS
        self.form, self.read = form, form[0].read
        self.target, self.named, self.sender = target, named, sender
        self.opening: dict[str, tuple[bytes, bytes]] = {}
        self.within: dict[str, tuple[bytes, bytes]] = {}


class Routes:
    """Route lines: what stays of them once the forwarder's own are gone (`kept`), that as the loop word has it
    (`asked`), the server that the own ones named by `hint`, where the message goes next (`target`), if they say so."""

    __slots__ = ("asked", "hint", "kept", "target")

    def __init__(self, lines: Lines, octets: bytes) -> None:
        request = parse(b"OPTIONS sip:nobody SIP/2.0\r\n" + octets + b"\r\n")
        assert isinstance(request, Request)
        self.hint = lines.pop_routes(request)
        left = request.routes
        if left and "lr" not in left[0].uri.params:
            raise Odd
        self.target = left[0].uri.address() if left else None
        self.kept = b"".join(field.raw for field in request.fields)
        self.asked = _octets("".join("\0" + value for value in request.all("Route")))


NO_ROUTES = Routes.__new__(Routes)
NO_ROUTES.asked, NO_ROUTES.hint, NO_ROUTES.kept, NO_ROUTES.target = b"", "", b"", None


def loop_of(head: Head, uri: bytes, route: Routes) -> bytes:
    """Our loop word in a request that asks for that."""
    return b";loop=%08x" % crc32(route.asked, crc32(uri, head.asker))


class Asked(NamedTuple):
    """What there is to know of a request: what many have in common (`records`: Record-Route lines of others), our loop
    word, its branch without the cookie, the other Vias, the To tag and the Call-ID, and the pieces of which it is to be
    made: the first line, two that are left empty, for what is written above all Vias, and for these, and the rest."""

    head: Head
    sender: Sender
    route: Routes
    records: bytes
    loop: bytes
    branch: bytes
    others: bytes
    tag: bytes
    call_id: bytes
    pieces: list[bytes]


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
