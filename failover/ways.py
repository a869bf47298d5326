"""What the short way knows by heart: read once by the parser's own functions, kept under the octets it was read from.

All of it is bounded, and forgotten when the server table changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar
from zlib import crc32

from failover.lines import Lines
from failover.route import literal, way_back
from failover.settings import PHONES
from failover.shapes import HEAD, HEAD_OF_ANSWER, Form, Odd, Shapes, fits
from failover.table import Server
from failover.validation import LOOP
from plumbing.address import Address, format_address
from sip.branch import words_of
from sip.errors import RemoteProtocolError
from sip.message import Request, parse
from sip.uri import Uri
from sip.via import MAGIC_COOKIE, Via

MOST = 4_096  # of each kind
LONGEST = 2_048  # octets of each; a message that has more in one is the parser's
FRESH = 5.0  # seconds for which the own address towards a peer is taken for known
STAND_IN = MAGIC_COOKIE + "-stands-in-"  # for the branch, which is another in every message
OF_BRANCH = b";branch=" + MAGIC_COOKIE.encode()
# A request's way back: all its Via lines as they left, how many octets of them are ours, without the line's end, its
# method, the phone's address, or the server that sent it, and the branch that `echo_key` asks for.
Way = tuple[bytes, int, bytes, Address, Server | None, bytes]
Origin = tuple[str, Address]  # where a message is from: leg and address
Kind = tuple[str | Address, bytes, bytes]  # of answers: where from, the method, and what is above all Vias
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
        self.before, self.after = _octets(f"\r\nVia: {before}{MAGIC_COOKIE}"), _octets(f"{after}\r\n")
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

    `target`: where the Request-URI points, and `named` the server there, if one is. `loop`: our loop word, where no
    Route is; `records`: Record-Routes above. `opening` and `within`: by the server's name, what is written above our
    Via, and that up to the branch, for a request without and with a To tag."""

    __slots__ = (
        "asked", "form", "left", "loop", "method", "named", "opening", "read", "records", "sender", "start", "target",
        "within",
    )  # fmt: skip

    def __init__(self, octets: bytes, behind: re.Match[bytes], origin: Origin, form: Form, memory: Memory) -> None:
        match = HEAD.fullmatch(octets)
        if not match:
            raise Odd
        self.start, self.method, uri, host, self.records, self.left = match.groups()
        if b";lr" in uri or behind["method"] != self.method:
            raise Odd
        self.form, self.read = form, form[0].read
        self.asked = crc32(uri, FROM_PHONES if origin[0] == PHONES else FROM_SERVERS)
        self.loop = b";loop=%08x" % self.asked
        self.target = memory.targets.get(host) or memory.target(host)
        self.sender = memory.sender(self.left, behind["right"], origin[1])
        self.named = memory.lines.table.by_address.get(self.target)
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


K = TypeVar("K")
V = TypeVar("V")


NO_ROUTES = Routes.__new__(Routes)
NO_ROUTES.asked, NO_ROUTES.hint, NO_ROUTES.kept, NO_ROUTES.target = b"", "", b"", None


class Memory:
    """Everything of that, and the forwarder's own address as its peers know it. What hangs on that is read anew every
    few seconds, and at once where the forwarder has learned of an own address more."""

    def __init__(self, lines: Lines) -> None:
        self.lines, self._shapes = lines, Shapes()
        lines.changed = self.forget
        self.forget()

    def forget(self) -> None:
        """All, for there is another server table, or another own address."""
        self.until = float("-inf")
        self.routes: dict[bytes, Routes] = {}
        self.targets: dict[bytes, Address] = {}  # a URI's host and port
        self.records: dict[bytes, str] = {}  # Record-Route lines -> the topmost one's address
        self.ways: dict[bytes, Way] = {}  # by our branch
        self.older_ways: dict[bytes, Way] = {}
        self.freshen(float("-inf"))

    def freshen(self, now: float) -> None:
        """What follows is known for so long."""
        self.until = now + FRESH
        # Forms are forgotten with these, so that strangers cannot have more shapes kept than are learned meanwhile.
        self.heads: dict[tuple[bytes, Origin], Head] = {}
        self.forms: dict[tuple[Origin, bytes], Form] = {}  # of what calls another party each time; by how it begins
        self.answers: dict[Kind, Form] = {}
        self.senders: dict[tuple[bytes, bytes, Address], Sender] = {}
        # Where servers send to, and from which address -> the own address for there.
        self.phones: dict[tuple[Address, str], str] = {}
        self.servers: dict[str, bytes] = {}  # by name: our Via to there

    def head(self, data: bytes, at: int, origin: Origin, now: float) -> tuple[Head, re.Match[bytes]]:
        """Of a request whose topmost Via has its branch behind `at` octets, and where everything stands behind them.
        Raises Odd."""
        if at > LONGEST:
            raise Odd
        octets, kind = data[:at], (origin, data[:4])
        form = self.forms.get(kind)
        match = fits(form, data, at) if form else None
        if not form or not match:
            form = self._room(self.forms)[kind] = self._shapes.form(data, at, now)
            match = fits(form, data, at)
        if not match:
            raise Odd
        made = _read(lambda: Head(octets, match, origin, form, self))
        self._room(self.heads)[octets, origin] = made
        return made, match

    def sender(self, left: bytes, right: bytes, source: Address) -> Sender:
        """Raises Odd."""
        known = self.senders.get((left, right, source))
        if known:
            return known
        if len(left) + len(right) > LONGEST:
            raise Odd
        made = _read(lambda: Sender(self.lines, left, right, source))
        made.own = self._own(source[0])
        self._room(self.senders)[left, right, source] = made
        return made

    def answer(self, data: bytes, at: int, kind: Kind, now: float) -> tuple[Form, re.Match[bytes]]:
        """The same of an answer whose Vias end with `at` octets. Raises Odd."""
        if len(kind[2]) > LONGEST:
            raise Odd
        form = self._shapes.form(data, at, now)
        match = fits(form, data, at)
        if not match or not HEAD_OF_ANSWER.fullmatch(kind[2]):
            raise Odd
        self._room(self.answers)[kind] = form
        return form, match

    def server(self, server: Server) -> bytes:
        """Our Via to that server, up to the branch."""
        via = self.servers[server.name] = f"Via: SIP/2.0/UDP {self._own(server.address[0])};branch=".encode()
        return via

    def phone(self, target: Address, server: str) -> str:
        """The own address to write for where a server wants to send to. Raises Odd if that may be no phone."""
        lines, other_family = self.lines, (":" in target[0]) != (":" in server)
        if target in lines.table.by_address or not literal(target) or target in lines.own or other_family:
            raise Odd
        own = self._own(target[0])
        self._room(self.phones)[target, server] = own
        return own

    def passed(self, branch: bytes, way: Way) -> None:
        """A request was passed on with this branch of ours."""
        if len(way[0]) > 2 * LONGEST:
            return
        self.ways[branch] = way
        if len(self.ways) > MOST:
            self.older_ways, self.ways = self.ways, {}

    def way(self, branch: bytes) -> Way:
        """Raises Odd if no request was passed on with that, or long ago."""
        way = self.ways.get(branch) or self.older_ways.get(branch)
        if not way:
            raise Odd
        return way

    def _own(self, host: str) -> str:
        return format_address(self.lines.towards(host))

    def route(self, octets: bytes) -> Routes:
        """Raises Odd."""
        if len(octets) > LONGEST:
            raise Odd
        known = self._room(self.routes)[octets] = _read(lambda: Routes(self.lines, octets))
        return known

    def record(self, octets: bytes) -> str:
        """The address in the topmost of these Record-Route lines. Raises Odd."""
        if len(octets) > LONGEST:
            raise Odd
        known = self._room(self.records)[octets] = _read(lambda: _topmost(octets))
        return known

    def target(self, host: bytes) -> Address:
        """Of a URI with this host and port. Raises RemoteProtocolError."""
        known = self._room(self.targets)[host] = Uri.parse("sip:" + host.decode("ascii")).address()
        return known

    @staticmethod
    def _room(cache: dict[K, V]) -> dict[K, V]:
        """The same, with room for one more."""
        if len(cache) >= MOST:
            cache.clear()
        return cache


def _topmost(records: bytes) -> str:
    top = parse(b"OPTIONS sip:nobody SIP/2.0\r\n" + records + b"\r\n").record_routes
    return format_address(top[0].uri.address()) if top else ""


def _read(make: Callable[[], V]) -> V:
    try:
        return make()
    except RemoteProtocolError:
        raise Odd from None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
