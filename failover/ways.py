"""What the short way knows by heart: read once by the parser's own functions, kept under the octets it was read from.

All of it is bounded, and forgotten when the server table changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from failover.known import NO_ROUTES, Asked, Head, Routes, Sender, loop_of, new
from failover.lines import Lines
from failover.route import literal
from failover.shapes import HEAD, HEAD_OF_ANSWER, OTHERS, Form, Odd, Shapes, fits
from failover.table import Server
from failover.templates import AnswerTemplate, RequestTemplate, edited
from plumbing.address import Address, format_address
from sip.errors import RemoteProtocolError
from sip.message import parse
from sip.uri import Uri
from sip.via import MAGIC_COOKIE

MOST = 4_096  # of each kind
MOST_TEMPLATES = 512  # of each of two kinds; they are larger
MOST_SETTLED = 256
LONGEST = 2_048  # octets of each; a message that has more in one is the parser's
FRESH = 5.0  # seconds for which the own address towards a peer is taken for known
OF_BRANCH = b";branch=" + MAGIC_COOKIE.encode()
AFTER_BRANCH = len(OF_BRANCH)
FEWER = {str(hops).encode(): str(hops - 1).encode() for hops in range(1, 256)}  # Max-Forwards -> the next one's
# A request's way back: all its Via lines as they left, how many octets are ahead of our branch, its method, the phone's
# address, or the server that sent it, and then the branch that `echo_key` asks for.
Way = tuple[bytes, int, bytes, Address, Server | None, bytes]
Origin = tuple[str, Address]  # where a message is from: leg and address
Kind = tuple[str | Address, bytes, bytes, int]  # of answers: where from, method, what is above all Vias, octets beneath
Asking = tuple[str, Address, int, bytes]  # a kind of requests: leg, address, octets in all, how they begin
K = TypeVar("K")
V = TypeVar("V")


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
        self._older_ways: dict[bytes, Way] = {}
        self._settled: dict[bytes, Way] = {}  # an INVITE's final answer is repeated until its ACK comes
        self._older_settled: dict[bytes, Way] = {}
        self.freshen(float("-inf"))

    def freshen(self, now: float) -> None:
        """What follows is known for so long."""
        self.until = now + FRESH
        # Forms are forgotten with these, so that strangers cannot have more shapes kept than are learned meanwhile.
        self.heads: dict[tuple[bytes, Origin], Head] = {}
        self.forms: dict[tuple[Origin, bytes], Form] = {}  # of what calls another party each time; by how it begins
        self.answer_forms: dict[tuple[str | Address, bytes, bytes], Form] = {}
        self.requests: dict[Asking, RequestTemplate] = {}
        self.answers: dict[Kind, AnswerTemplate] = {}
        self._misses: dict[object, int] = {}  # by the same: how many had no template, or not the right one
        self.senders: dict[tuple[bytes, bytes, Address], Sender] = {}
        # Where servers send to, and from which address -> the own address for there.
        self.phones: dict[tuple[Address, str], str] = {}
        self.servers: dict[str, bytes] = {}  # by name: our Via to there

    def asked(self, data: bytes, kind: Asking, now: float) -> Asked:
        """Of a request that has no template, or not the right one. Raises Odd."""
        leg, source, _, _ = kind
        at = data.find(OF_BRANCH) + AFTER_BRANCH
        head = self.heads.get((data[:at], (leg, source)))
        match = fits(head.form, data, at) if head else None
        if not head or not match:
            head, match = self.head(data, at, (leg, source), now)
        branch, right, others, hops, tag, call_id, method, routes, records = head.read(match)
        if method != head.method:
            raise Odd
        sender = head.sender if right == head.sender.right else self.sender(head.left, right, source)
        route = (self.routes.get(routes) or self.route(routes)) if routes else NO_ROUTES
        shape, loop = head.form[0], loop_of(head, head.uri, route)
        edits = [(match.span(shape.hops), FEWER[hops])]
        if shape.routed:
            edits = sorted([*edits, (match.span(shape.routes), route.kept)])
        pieces = [head.start, b"", b"", *edited(data, match.end(OTHERS), len(data), edits)]
        asked = new(Asked, (head, sender, route, records or head.records, loop, branch,
                            others, tag or b"", call_id, pieces))  # fmt: skip
        self._missed(kind, match.end(), self.requests, lambda: RequestTemplate(data, match, asked, edits))
        return asked

    def answered(self, data: bytes, at: int, kind: Kind, now: float) -> bytes:
        """The To tag of an answer of which the same is true, behind its Vias. Raises Odd."""
        form = self.answer_forms.get(kind[:3])
        match = fits(form, data, at) if form else None
        if not form or not match:
            form, match = self.answer(data, at, kind, now)
        tag, method = form[0].read(match)
        if method != kind[1]:
            raise Odd
        self._missed(kind, match.end(), self.answers, lambda: AnswerTemplate(data, at, match.span("tag")))
        return tag or b""

    def _missed(self, kind: K, octets: int, templates: dict[K, V], make: Callable[[], V]) -> None:
        """One that is looked at in so many octets had none of these. Makes one the second time, the fourth, the eighth
        and so on: a template costs more than a message without one."""
        count = self._room(self._misses)[kind] = self._misses.get(kind, 0) + 1
        if count > 1 and not count & (count - 1) and octets < 2 * LONGEST:
            with suppress(Odd):
                self._room(templates, MOST_TEMPLATES)[kind] = make()

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
        made = self._room(self.heads)[octets, origin] = _read(lambda: self._head(octets, match, origin, form))
        return made, match

    def _head(self, octets: bytes, behind: re.Match[bytes], origin: Origin, form: Form) -> Head:
        match = HEAD.fullmatch(octets)
        if not match or b";lr" in match["uri"] or behind["method"] != match["method"]:
            raise Odd
        leg, source = origin
        target = self.targets.get(match["host"]) or self.target(match["host"])
        sender = self.sender(match["left"], behind["right"], source)
        return Head(match, leg, form, target, self.lines.table.by_address.get(target), sender)

    def sender(self, left: bytes, right: bytes, source: Address) -> Sender:
        """Raises Odd."""
        known = self.senders.get((left, right, source))
        if known:
            return known
        if len(left) + len(right) > LONGEST:
            raise Odd
        made = _read(lambda: Sender(self.lines, left, right, source))
        made.own = self._own(source)
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
        self._room(self.answer_forms)[kind[:3]] = form
        return form, match

    def server(self, server: Server) -> bytes:
        """Our Via to that server, up to the branch."""
        own = format_address(self.lines.towards_server(server.address[0]))
        via = self.servers[server.name] = f"Via: SIP/2.0/UDP {own};branch=".encode()
        return via

    def phone(self, target: Address, server: str) -> str:
        """The own address to write for where a server wants to send to. Raises Odd if that may be no phone."""
        lines, other_family = self.lines, (":" in target[0]) != (":" in server)
        if target in lines.table.by_address or not literal(target) or lines.is_own(target) or other_family:
            raise Odd
        own = self._own(target)
        self._room(self.phones)[target, server] = own
        return own

    def passed(self, branch: bytes, way: Way) -> None:
        """A request was passed on with this branch of ours."""
        if len(way[0]) > 2 * LONGEST:
            return
        self.ways[branch] = way
        if len(self.ways) > MOST:
            self._older_ways, self.ways = self.ways, {}

    def settled(self, branch: bytes, way: Way) -> None:
        """It has its final answer. What is soon forgotten leaves its memory warm to the next: a tenth of the time."""
        self.ways.pop(branch, None)
        if way[2] == b"INVITE":
            self._settled[branch] = way
            if len(self._settled) > MOST_SETTLED:
                self._older_settled, self._settled = self._settled, {}

    def way(self, branch: bytes) -> Way:
        """Raises Odd if no request was passed on with that, or long ago."""
        for ways in (self.ways, self._settled, self._older_ways, self._older_settled):
            if branch in ways:
                return ways[branch]
        raise Odd

    def _own(self, phone: Address) -> str:
        return format_address(self.lines.towards(phone))

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
    def _room(cache: dict[K, V], most: int = MOST) -> dict[K, V]:
        """The same, with room for one more."""
        if len(cache) >= most:
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
