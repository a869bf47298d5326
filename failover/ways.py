"""What the short way knows by heart: read once by the parser's own functions, kept under the octets it was read from.

All of it is bounded, and forgotten when the server table changes.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import TypeVar

from failover.lines import Lines
from failover.route import literal, way_back
from failover.table import Server
from failover.validation import LOOP
from plumbing.address import Address, format_address
from sip.branch import words_of
from sip.errors import RemoteProtocolError
from sip.message import Request, parse
from sip.uri import Uri
from sip.via import MAGIC_COOKIE, Via

MOST = 4_096  # of each kind
FRESH = 1.0  # seconds for which the own address towards a peer is taken for known
STAND_IN = MAGIC_COOKIE + "-stands-in-"  # for the branch, which is another in every message
# A request's way back: all Via lines beneath ours as they left, its method, the phone's address, or the server that
# sent it, and the branch that `echo_key` asks for.
Way = tuple[bytes, bytes, Address, Server | None, bytes]


class Odd(Exception):
    """The parser's path is for this one."""


class Sender:
    """Who sent a request, as the topmost Via has it: that line as it is passed on, in two parts with the branch between
    them; what our branch over it is made from, likewise; the way back, and the server that waits there, if one does."""

    __slots__ = ("ending", "left", "right", "server", "signing", "target")

    def __init__(self, lines: Lines, left: bytes, right: bytes, source: Address) -> None:
        value = f"{_text(left)};branch={STAND_IN}{_text(right)}"
        via = Via.parse(value)
        complete = via.with_source(*source)
        text = value if complete == via else str(complete)
        before, branch, after = text.partition(f";branch={STAND_IN}")
        if "," in text or '"' in text or via.branch != STAND_IN or LOOP in via.params or not branch:
            raise Odd
        self.target = way_back(complete)
        self.server = lines.table.by_address.get(self.target)
        if not self.server and not literal(self.target):
            raise Odd
        self.left, self.right = _octets(f"Via: {before};branch="), _octets(f"{after}\r\n")
        beginning, self.ending = map(_octets, "\0".join(words_of(lines.signed(complete))).split(STAND_IN))
        self.signing = blake2b(beginning + MAGIC_COOKIE.encode(), key=lines.key, digest_size=16)


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
    """Everything of that, and the forwarder's own address as its peers know it."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self.forget()

    def forget(self) -> None:
        self.table = self._lines.table
        self.senders: dict[tuple[bytes, bytes, Address], Sender] = {}
        self.routes: dict[bytes, Routes] = {}
        self.records: dict[bytes, bytes] = {}  # Record-Route lines -> the topmost one's address
        self.targets: dict[bytes, Address] = {}  # a URI's host and port
        self.ways: dict[bytes, Way] = {}  # by our branch
        self.older_ways: dict[bytes, Way] = {}
        self.texts: set[bytes] = set()  # all that `own` has given
        self._own: dict[str, tuple[bytes, float]] = {}
        self._own_addresses = 0

    def own(self, host: str, now: float) -> bytes:
        """The own address to write for that peer."""
        known = self._own.get(host)
        if known and now < known[1]:
            return known[0]
        text = format_address(self._lines.towards(host)).encode("ascii")
        if len(self._lines.own) != self._own_addresses:
            self._own_addresses = len(self._lines.own)
            self.routes.clear()  # what is the forwarder's own among them may be another now
        self._room(self._own)[host] = (text, now + FRESH)
        self.texts.add(text)
        return text

    def sender(self, left: bytes, right: bytes, source: Address) -> Sender:
        """Raises Odd."""
        key = (left, right, source)
        known = self.senders.get(key)
        if not known:
            known = self._room(self.senders)[key] = _read(lambda: Sender(self._lines, left, right, source))
        return known

    def route(self, octets: bytes) -> Routes:
        """Raises Odd."""
        known = self.routes.get(octets)
        if not known:
            known = self._room(self.routes)[octets] = _read(lambda: Routes(self._lines, octets))
        return known

    def record(self, octets: bytes) -> bytes:
        """The address in the topmost of these Record-Route lines. Raises Odd."""
        known = self.records.get(octets)
        if known is None:
            known = self._room(self.records)[octets] = _read(lambda: _topmost(octets))
        return known

    def target(self, host: bytes) -> Address:
        """Of a URI with this host and port."""
        known = self.targets.get(host)
        if not known:
            known = self._room(self.targets)[host] = Uri.parse("sip:" + host.decode("ascii")).address()
        return known

    def passed(self, branch: bytes, way: Way) -> None:
        self.ways[branch] = way
        if len(self.ways) > MOST:
            self.older_ways, self.ways = self.ways, {}

    def way(self, branch: bytes) -> Way | None:
        return self.ways.get(branch) or self.older_ways.get(branch)

    @staticmethod
    def _room(cache: dict[K, V]) -> dict[K, V]:
        """The same, with room for one more."""
        if len(cache) >= MOST:
            cache.clear()
        return cache


def _topmost(records: bytes) -> bytes:
    top = parse(b"OPTIONS sip:nobody SIP/2.0\r\n" + records + b"\r\n").record_routes
    return format_address(top[0].uri.address()).encode("utf-8", "surrogateescape") if top else b""


def _read(make: Callable[[], V]) -> V:
    try:
        return make()
    except RemoteProtocolError:
        raise Odd from None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
