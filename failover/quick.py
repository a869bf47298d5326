"""The short way through the core, for ordinary messages: what core.py does with a message, done to its octets.

`take` gives the one datagram to send, and has kept all accounts, or None: the message is nothing ordinary, nothing was
touched, core.py is to read it. Ordinary is what a pattern of shapes.py takes in whole, whose Vias, Routes and target
ways.py can read, and which is neither refused nor dropped nor sent to a server that stands in for one that is down.
The order is that of core.py, and tests/test_quick.py holds the two equal.
"""

from __future__ import annotations

from collections.abc import Hashable
from re import Match
from zlib import crc32

from failover.convergence import CALL_ID as SESSION
from failover.inflight import NO_STATUS, Kept
from failover.lines import Lines
from failover.members import Members
from failover.outcome import Send
from failover.route import literal
from failover.settings import CALL_ID, PHONES
from failover.shapes import URI, Shape, Shapes, branch_of
from failover.table import Server
from failover.ways import NO_ROUTES, Memory, Odd, Routes
from plumbing.address import Address
from sip.message import DIALOG_CREATING, MAX_HEAD, MAX_SIZE
from sip.via import MAGIC_COOKIE

FEWER = {str(hops).encode(): str(hops - 1).encode() for hops in range(1, 256)}  # Max-Forwards -> the next one's
COOKIE = MAGIC_COOKIE.encode()
OF_BRANCH = len(b";branch=")
BRANCH_SIZE = len(COOKIE) + 32  # octets of ours
FROM_PHONES, FROM_SERVERS = crc32(b"phones\0"), crc32(b"servers\0")  # how the loop word begins
CREATING = frozenset(method.encode() for method in DIALOG_CREATING)
END_OF_LINE = len(b" SIP/2.0\r\n")


class Quick:
    def __init__(self, core: Members, lines: Lines) -> None:
        self._core, self._lines = core, lines
        self._shapes, self._memory = Shapes(), Memory(lines)

    def take(self, data: bytes, leg: str, source: Address, now: float) -> Send | None:
        if self._memory.table is not self._core.table:
            self._memory.forget()
        sender = None
        if leg != PHONES:
            sender = self._core.table.by_name.get(leg)
            if not sender or not sender.health.alive:
                return None
        try:
            if data.startswith(b"SIP/"):
                return self._answer(data, leg, source, now, sender)
            return self._request(data, leg, source, now, sender)
        except Odd:
            return None

    def _matched(self, data: bytes, key: Hashable, now: float) -> tuple[Shape, Match[bytes]]:
        """The message's shape, and where in the message everything stands."""
        shape = self._shapes.usual.get(key)
        match = shape.match(data) if shape else None
        if not shape or not match:
            shape = self._shapes.find(data, key, now)
            match = shape.match(data) if shape else None
            if not shape or not match:
                raise Odd
        end = match.end()
        if end > MAX_HEAD or len(data) > MAX_SIZE or data.count(b"\n", 0, end) != shape.lines:
            raise Odd
        return shape, match

    # -- requests ---------------------------------------------------------------------------------------------------

    def _request(self, data: bytes, leg: str, source: Address, now: float, asker: Server | None) -> Send:
        shape, match = self._matched(data, (source, data[:4]), now)
        method, uri, host, left, branch, right, others, hops, tag, length, routes, records = match.group(*shape.wanted)
        if hops not in FEWER or (length and int(length) != len(data) - match.end()) or b";lr" in uri:
            raise Odd
        memory = self._memory
        own = memory.own(source[0], now)
        sender = memory.senders.get((left, right, source)) or memory.sender(left, right, source)
        signing = sender.signing.copy()
        signing.update(branch[len(COOKIE) :] + sender.ending)
        signed = COOKIE + signing.hexdigest().encode()
        target = memory.targets.get(host) or memory.target(host)
        route = (memory.routes.get(routes) or memory.route(routes)) if routes else NO_ROUTES
        word = b"%08x" % crc32(route.asked, crc32(uri, FROM_SERVERS if asker else FROM_PHONES))
        if (others and word in others) or (method == b"ACK" and self._is_own_tag(tag, signed)):
            raise Odd
        way = (sender.left + branch + sender.right + others, method, sender.target, sender.server,
               branch_of(others) if others else branch)  # fmt: skip
        if asker:
            target = route.target or target
            to, back, own = PHONES, self._phone(target, source), memory.own(target[0], now)
            top = self._record(asker, method, tag, records, own)
            if method == b"ACK":
                asker.has_handled(self._core.inflight.came_through((way[4], b"ACK", NO_STATUS, tag or b"")))
        else:
            server, back = self._choose(match, signed, method, tag, route, target), None
            top = self._top(shape, server, method, tag, records, own)
            own, to = memory.own(server.address[0], now), server.name
            self._account(server, signed, method, tag, (to, data, leg, source, now, 0))
        memory.passed(signed, way)
        self._core.counters["passed.requests"] += 1
        lines = b"Via: SIP/2.0/UDP %b;branch=%b;loop=%b\r\n%b" % (own, signed, word, way[0])
        return Send(to, _written(data, shape, match, top, lines, len(others), FEWER[hops], route.kept), back)

    def _is_own_tag(self, tag: bytes | None, signed: bytes) -> bool:
        """Does an ACK acknowledge the forwarder's own answer?"""
        return tag is not None and tag.decode("ascii") == self._lines.own_tag(signed.decode("ascii"))

    def _choose(
        self, match: Match[bytes], signed: bytes, method: bytes, tag: bytes | None, route: Routes, target: Address
    ) -> Server:
        """Which server gets a phone's request."""
        core, table = self._core, self._core.table
        for named in (route.target, target):
            server = table.by_address.get(named) if named else None
            if server and not server.usable:
                raise Odd
        hinted = table.by_hint.get(route.hint)
        if hinted and hinted.usable:
            return hinted
        holder = table.by_name.get(core.inflight.server_of(signed, method) or "")
        if holder and holder.usable:
            return holder
        session = ""
        if table.policy == CALL_ID:
            if table.convergence != SESSION:
                raise Odd
            session = match["call_id"].decode("utf-8", "surrogateescape").strip()
        server = table.choose(session, not tag and method not in (b"ACK", b"CANCEL"))
        if not server:
            raise Odd
        return server

    def _top(
        self, shape: Shape, server: Server, method: bytes, tag: bytes | None, records: bytes, own: bytes
    ) -> bytes:
        """What is written above all lines of a phone's request: Record-Route or Path."""
        if method in CREATING and not tag:
            if records:
                raise Odd
            return b"Record-Route: <sip:%b;lr;hint=%b>\r\n" % (own, server.hint.encode("ascii"))
        if method == b"REGISTER" and self._core.table.path:
            if "Path" in shape.names:
                raise Odd
            return b"Path: <sip:%b;lr>\r\n" % own
        return b""

    def _record(self, server: Server, method: bytes, tag: bytes | None, records: bytes, own: bytes) -> bytes:
        """What is written above all lines of a server's request: Record-Route, unless it is there."""
        if method not in CREATING or tag:
            return b""
        if not records:
            return b"Record-Route: <sip:%b;lr;hint=%b>\r\n" % (own, server.hint.encode("ascii"))
        if self._memory.records.get(records, b"") != own and self._memory.record(records) != own:
            raise Odd
        return b""

    def _phone(self, target: Address, source: Address) -> Address:
        """Where a server's request goes, if that is a phone."""
        if target in self._core.table.by_address or target in self._lines.own:
            raise Odd
        if ":" in source[0] or not literal(target):
            raise Odd
        return target

    def _account(self, server: Server, signed: bytes, method: bytes, tag: bytes | None, row: Kept) -> None:
        """A request goes to a server."""
        server.requests += 1
        if method == b"ACK":
            self._core.inflight.echo((signed, b"ACK", NO_STATUS, tag or b""), row)
        else:
            self._core.inflight.wait(signed + method, row)

    # -- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, data: bytes, leg: str, source: Address, now: float, sender: Server | None) -> Send:
        core = self._core
        at = data.find(b";branch=") + OF_BRANCH
        way = self._memory.way(data[at : at + BRANCH_SIZE])
        if not way:
            raise Odd
        beneath, asked, back, server, first_branch = way
        shape, match = self._matched(data, (source, asked, data[8:11]), now)
        own, branch, others, status, tag, method, length = match.group(*shape.wanted)
        if others != beneath or branch != data[at : at + BRANCH_SIZE] or own not in self._memory.texts:
            raise Odd
        if length and int(length) != len(data) - match.end():
            raise Odd
        if (server and not server.usable) or (sender and core.unsettled):
            raise Odd
        if sender:
            self._heard(sender, branch, method, status, tag or b"", now)
        core.counters["passed.responses"] += 1
        start, end = match.span(shape.via)
        onward = data[:start] + data[end:]
        if not server:
            return Send(PHONES, onward, back)
        core.inflight.echo((first_branch, method, status, tag or b""), (server.name, data, leg, source, now, 0))
        return Send(server.name, onward)

    def _heard(self, sender: Server, branch: bytes, method: bytes, status: bytes, tag: bytes, now: float) -> None:
        """A server has answered."""
        inflight = self._core.inflight
        sender.responses += 1
        sender.answered = now
        if inflight.passing:
            sender.has_handled(inflight.came_through((branch, method, status, tag)))
        if status >= b"200":
            sender.has_handled(inflight.answered(branch + method))
            if method == b"INVITE" and status >= b"300":
                inflight.refused(branch, sender.name)


def _written(
    data: bytes, shape: Shape, match: Match[bytes], top: bytes, vias: bytes, others: int, hops: bytes, routes: bytes
) -> bytes:
    """The message with `top` above all lines, `vias` for its first Via line and the others after that, which are so
    many octets, and what Max-Forwards and Route are now."""
    start, (a, b), (c, d) = match.end(URI) + END_OF_LINE, match.span(shape.via), match.span(shape.hops)
    e, f = match.span(shape.routes)
    b += others
    if f - e == len(routes):
        return b"".join((data[:start], top, data[start:a], vias, data[b:c], hops, data[d:]))
    if e < c:
        return b"".join((data[:start], top, data[start:a], vias, data[b:e], routes, data[f:c], hops, data[d:]))
    return b"".join((data[:start], top, data[start:a], vias, data[b:c], hops, data[d:e], routes, data[f:]))
