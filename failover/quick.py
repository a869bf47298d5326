"""The short way through the core, for ordinary messages: what core.py does with a message, done to its octets.

`quick` gives the one datagram to send, and has kept all accounts, or None: the message is nothing ordinary, nothing was
touched, core.py is to read it. Ordinary is what a pattern of shapes.py takes in whole, whose Vias, Routes and target
ways.py can read, and which is neither refused nor dropped nor sent to a server that stands in for one that is down.

The idea: octets that are known are compared, not read. How a phone's requests begin, up to their branch, was read the
last time; an answer has to repeat, octet for octet, the Vias that its request left with; and most of a phone's messages
end alike. A pattern reads what is left. The order is that of core.py, and tests/test_quick.py holds the two equal.
"""

from __future__ import annotations

from re import Match
from zlib import crc32

from failover.convergence import CALL_ID as BY_CALL_ID
from failover.inflight import NO_STATUS
from failover.lines import Lines
from failover.members import Members
from failover.outcome import Send
from failover.settings import CALL_ID, PHONES
from failover.shapes import GROWN, OTHERS, Odd, branch_of, fits
from failover.table import Server, ServerTable
from failover.ways import NO_ROUTES, OF_BRANCH, Head, Memory, Routes
from plumbing.address import Address
from sip.message import DIALOG_CREATING
from sip.via import MAGIC_COOKIE

FEWER = {str(hops).encode(): str(hops - 1).encode() for hops in range(1, 256)}  # Max-Forwards -> the next one's
COOKIE = MAGIC_COOKIE.encode()
AFTER_BRANCH, BEFORE_BRANCH = len(OF_BRANCH), len(b";branch=")
BRANCH_SIZE = len(COOKIE) + 32  # octets of ours
CREATING = frozenset(method.encode() for method in DIALOG_CREATING)
new = tuple.__new__  # of a NamedTuple, in half the time


class Quick(Members):
    """The part of the core that has to do with ordinary messages."""

    def __init__(self, table: ServerTable, lines: Lines, fall: int, rise: int) -> None:
        super().__init__(table, fall, rise)
        self.lines = lines
        self._memory = Memory(lines)

    def quick(self, data: bytes, leg: str, source: Address, now: float) -> Send | None:
        """What is to be sent for an ordinary message; None: nothing was touched, `receive` is to have it. It tells of
        nothing, so it is for when nobody listens."""
        sender = None
        if leg != PHONES:
            sender = self.table.by_name.get(leg)
            if not sender or not sender.alive:
                return None
        if now > self._memory.until:
            self._memory.freshen(now)
        try:
            if data.startswith(b"SIP/"):
                return self._quick_answer(data, leg, source, now, sender)
            return self._quick_request(data, leg, source, now, sender)
        except Odd:
            return None

    # -- requests ---------------------------------------------------------------------------------------------------

    def _quick_request(self, data: bytes, leg: str, source: Address, now: float, asker: Server | None) -> Send:
        memory = self._memory
        at = data.find(OF_BRANCH) + AFTER_BRANCH
        head = memory.heads.get((data[:at], (leg, source)))
        match = fits(head.form, data, at) if head else None
        if not head or not match:
            head, match = memory.head(data, at, (leg, source), now)
        branch, right, others, hops, tag, call_id, method, routes, records = head.read(match)
        if method != head.method:
            raise Odd
        sender = head.sender if right == head.sender.right else memory.sender(head.left, right, source)
        signed = sender.sign(branch)
        route, loop = NO_ROUTES, head.loop
        if routes:
            route = memory.routes.get(routes) or memory.route(routes)
            loop = b";loop=%08x" % crc32(route.asked, head.asked)
        if (others and loop[6:] in others) or (method == b"ACK" and self._is_own_tag(tag, signed)):
            raise Odd
        beneath = branch_of(others) if others else COOKIE + branch
        if asker:
            to, back = PHONES, route.target or head.target
            beginning, via = self._quick_phone(head, asker, back, source, tag, records or head.records)
            self._quick_came_through(asker, beneath, method, tag)
        else:
            server = self._quick_choice(signed, head, call_id, route)
            to, back = server.name, None
            beginning, via = (head.within if tag else head.opening).get(to) or self._quick_server(head, server, tag)
            if (records or head.records) and method in CREATING and not tag:
                raise Odd
            server.requests += 1
            if method == b"ACK":
                self.inflight.echo((signed, method, NO_STATUS, tag or b""), (to, data, leg, source, now, 0))
            else:
                self.inflight.wait(signed + method, (to, data, leg, source, now, 0))
        ours = b"".join((via, signed, loop))
        vias = b"".join((ours, sender.before, branch, sender.after, others))
        memory.passed(signed, (vias, len(ours), method, sender.target, sender.server, beneath))
        self._requests += 1
        onward = _written(beginning, vias, data, head, match, FEWER[hops], route.kept)
        return new(Send, (to, onward, back))

    def _quick_came_through(self, server: Server, beneath: bytes, method: bytes, tag: bytes | None) -> None:
        """A server has passed on a request: an ACK is settled with that."""
        if method == b"ACK":
            server.has_handled(self.inflight.came_through((beneath, method, NO_STATUS, tag or b"")))

    def _is_own_tag(self, tag: bytes | None, signed: bytes) -> bool:
        """Does an ACK acknowledge the forwarder's own answer?"""
        return tag is not None and tag.decode("ascii") == self.lines.own_tag(signed.decode("ascii"))

    def _quick_choice(self, signed: bytes, head: Head, call_id: bytes, route: Routes) -> Server:
        """Which server gets a phone's request. None of those that it names may be down, for that is written over."""
        table = self.table
        if head.named and not head.named.usable:
            raise Odd
        if route is not NO_ROUTES:
            named = table.by_address.get(route.target) if route.target else None
            if named and not named.usable:
                raise Odd
            hinted = table.by_hint.get(route.hint)
            if hinted and hinted.usable:
                return hinted
        holder = self.inflight.server_of(signed, head.method)
        if holder:
            server = table.by_name.get(holder)
            if server and server.usable:
                return server
        if table.policy == CALL_ID:
            if table.convergence != BY_CALL_ID:
                raise Odd
            server = table.choose(call_id.decode("utf-8", "surrogateescape").strip(), new=True)
        else:
            server = table.hot
        if not server:
            raise Odd
        return server

    def _quick_server(self, head: Head, server: Server, tag: bytes | None) -> tuple[bytes, bytes]:
        """What a phone's request to that server begins with, Record-Route or Path above all lines, and our Via."""
        top, own = b"", head.sender.own
        if head.method in CREATING and not tag:
            top = f"Record-Route: <sip:{own};lr;hint={server.hint}>\r\n".encode()
        elif head.method == b"REGISTER" and self.table.path:
            if "Path" in head.form[0].names:
                raise Odd
            top = f"Path: <sip:{own};lr>\r\n".encode()
        via = self._memory.servers.get(server.name) or self._memory.server(server)
        known = (head.within if tag else head.opening)[server.name] = head.start + top + head.records, via
        return known

    def _quick_phone(
        self, head: Head, asker: Server, target: Address, source: Address, tag: bytes | None, records: bytes
    ) -> tuple[bytes, bytes]:
        """The same of a server's request to a phone, where Record-Route may stand already."""
        memory, top = self._memory, b""
        own = memory.phones.get((target, source[0])) or memory.phone(target, source[0])
        if head.method in CREATING and not tag:
            if not records:
                top = f"Record-Route: <sip:{own};lr;hint={asker.hint}>\r\n".encode()
            elif (memory.records.get(records) or memory.record(records)) != own:
                raise Odd
        return head.start + top + head.records, f"Via: SIP/2.0/UDP {own};branch=".encode()

    # -- answers ----------------------------------------------------------------------------------------------------

    def _quick_answer(self, data: bytes, leg: str, source: Address, now: float, sender: Server | None) -> Send:
        memory = self._memory
        branch = data.find(b";branch=") + BEFORE_BRANCH
        signed = data[branch : branch + BRANCH_SIZE]
        vias, ours, asked, back, server, first_branch = memory.ways.get(signed) or memory.way(signed)
        start = data.find(b"\r\nVia: ") + 2
        if data.startswith(vias, start):
            at, onward = start + len(vias), data[:start] + data[start + ours + 2 :]
        else:
            at, onward = _without_ours(data, start, vias, ours)
        kind = leg if sender else source, asked, data[:start]
        form = memory.answers.get(kind)
        match = fits(form, data, at) if form else None
        if not form or not match:
            form, match = memory.answer(data, at, kind, now)
        tag, method = form[0].read(match)
        if (server and not server.usable) or (self.failovers and self.unsettled):
            raise Odd
        if sender:
            self._quick_heard(sender, signed, method, data[8:11], tag, now)
        self._responses += 1
        if not server:
            return new(Send, (PHONES, onward, back))
        row = server.name, data, leg, source, now, 0
        self.inflight.echo((first_branch, method, data[8:11], tag or b""), row)
        return new(Send, (server.name, onward, None))

    def _quick_heard(
        self, sender: Server, signed: bytes, method: bytes, status: bytes, tag: bytes | None, now: float
    ) -> None:
        """A server has answered."""
        inflight = self.inflight
        sender.responses += 1
        sender.answered = now
        if inflight.passing:
            sender.has_handled(inflight.came_through((signed, method, status, tag or b"")))
        if status >= b"200":
            sender.has_handled(inflight.answered(signed + method))
            if status >= b"300" and method == b"INVITE":
                inflight.refused(signed, sender.name)


def _written(
    beginning: bytes, vias: bytes, data: bytes, head: Head, match: Match[bytes], hops: bytes, routes: bytes
) -> bytes:
    """A request with that for what it had up to the end of its Vias, and what Max-Forwards and Route are now."""
    shape, via_end = head.form[0], match.end(OTHERS)
    start, end = match.span(shape.hops)
    if not shape.routed:
        return b"".join((beginning, vias, data[via_end:start], hops, data[end:]))
    first, last = match.span(shape.routes)
    if first < start:
        return b"".join((beginning, vias, data[via_end:first], routes, data[last:start], hops, data[end:]))
    return b"".join((beginning, vias, data[via_end:start], hops, data[end:first], routes, data[last:]))


def _without_ours(data: bytes, start: int, vias: bytes, ours: int) -> tuple[int, bytes]:
    """Where an answer's Vias end, and the answer without ours, if that has grown (`received`, say), or stands in one
    line with the others, as SIPp writes them. Raises Odd."""
    end = data.find(b"\r\n", start) + 2
    if not data.startswith(vias[:ours], start):
        raise Odd
    grown, others = data[start + ours : end - 2], vias[ours + 2 :]
    if data.startswith(others, end) and GROWN.fullmatch(grown):
        return end + len(others), data[:start] + data[end:]
    listed = others.replace(b"\r\nVia: ", b", ")
    value = listed[len(b"Via: ") : -2]
    if not grown.endswith(b", " + value) or not GROWN.fullmatch(grown[: -2 - len(value)]):
        raise Odd
    if b" ," in value or b",  " in value or value != value.strip():  # the parser takes such spaces away
        raise Odd
    return end, data[:start] + listed + data[end:]
