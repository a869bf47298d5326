"""The short way through the core, for ordinary messages: what core.py does with a message, done to its octets.

`quick` gives the one datagram to send, and has kept all accounts, or None: the message is nothing ordinary, nothing was
touched, core.py is to read it. Ordinary is what a pattern of shapes.py takes in whole, whose Vias, Routes and target
ways.py can read, and which is neither refused nor dropped nor sent to a server that stands in for one that is down.
The order is that of core.py, and tests/test_quick.py holds the two equal.
"""

from __future__ import annotations

from re import Match
from zlib import crc32

from failover.convergence import CALL_ID as BY_CALL_ID
from failover.inflight import NO_STATUS, Kept
from failover.lines import Lines
from failover.members import Members
from failover.outcome import Send
from failover.settings import CALL_ID, PHONES
from failover.shapes import URI, Odd, Shape, Shapes, branch_of
from failover.table import Server, ServerTable
from failover.ways import NO_ROUTES, Memory, Routes, Sender
from plumbing.address import Address
from sip.message import DIALOG_CREATING
from sip.via import MAGIC_COOKIE

FEWER = {str(hops).encode(): str(hops - 1).encode() for hops in range(1, 256)}  # Max-Forwards -> the next one's
COOKIE = MAGIC_COOKIE.encode()
OF_BRANCH = len(b";branch=")
BRANCH_SIZE = len(COOKIE) + 32  # octets of ours
FROM_PHONES, FROM_SERVERS = crc32(b"phones\0"), crc32(b"servers\0")  # how the loop word begins
CREATING = frozenset(method.encode() for method in DIALOG_CREATING)
OF_VIA, END_OF_LINE = len(b"Via: "), len(b"\r\n")
END_OF_START = len(b" SIP/2.0\r\n")  # beyond the Request-URI
new = tuple.__new__  # of a NamedTuple, in half the time


class Quick(Members):
    """The part of the core that has to do with ordinary messages."""

    def __init__(self, table: ServerTable, lines: Lines, fall: int, rise: int) -> None:
        super().__init__(table, fall, rise)
        self.lines = lines
        self._shapes, self._memory = Shapes(), Memory(lines)

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
        shape, match = self._shapes.read(data, (source, data[:4]), now)
        method, uri, host, left, branch, right, others, hops, tag, call_id, routes, records = shape.read(match)
        if hops not in FEWER or b";lr" in uri:
            raise Odd
        sender = memory.senders.get((left, right, source)) or memory.sender(left, right, source)
        signing = sender.signing.copy()
        signing.update(branch + sender.ending)
        signature = signing.hexdigest()
        signed = COOKIE + signature.encode()
        target = memory.targets.get(host) or memory.target(host)
        asked, route = crc32(uri, FROM_SERVERS if asker else FROM_PHONES), NO_ROUTES
        if routes:
            route = memory.routes.get(routes) or memory.route(routes)
            asked = crc32(route.asked, asked)
        if (others and b"%08x" % asked in others) or (method == b"ACK" and self._is_own_tag(tag, signed)):
            raise Odd
        vias = b"".join((sender.left, branch, sender.right, others))
        beneath = branch_of(others) if others else COOKIE + branch
        if asker:
            to, back = PHONES, route.target or target
            own = memory.phones.get((back, source[0])) or memory.phone(back, source[0])
            top = self._quick_record(asker, method, tag, records, own)
            if method == b"ACK":
                asker.has_handled(self.inflight.came_through((beneath, method, NO_STATUS, tag or b"")))
        else:
            server = self._quick_choice(signed, method, call_id, route, target)
            to, back = server.name, None
            own = memory.servers.get(to) or memory.server(server)
            top = self._quick_top(shape, server, sender, method, tag, records)
            self._quick_account(server, signed, method, tag, (to, data, leg, source, now, 0))
        memory.passed(signed, (vias, method, sender.target, sender.server, beneath))
        self._requests += 1
        via = f"Via: SIP/2.0/UDP {own};branch=z9hG4bK{signature};loop={asked:08x}\r\n".encode()
        onward = _written(data, shape, match, top, via, vias, len(others), FEWER[hops], route.kept)
        return new(Send, (to, onward, back))

    def _is_own_tag(self, tag: bytes | None, signed: bytes) -> bool:
        """Does an ACK acknowledge the forwarder's own answer?"""
        return tag is not None and tag.decode("ascii") == self.lines.own_tag(signed.decode("ascii"))

    def _quick_choice(self, signed: bytes, method: bytes, call_id: bytes, route: Routes, target: Address) -> Server:
        """Which server gets a phone's request. None of those that it names may be down, for that is written over."""
        table = self.table
        named = table.by_address.get(target)
        if named and not named.usable:
            raise Odd
        if route is not NO_ROUTES:
            named = table.by_address.get(route.target) if route.target else None
            if named and not named.usable:
                raise Odd
            hinted = table.by_hint.get(route.hint)
            if hinted and hinted.usable:
                return hinted
        holder = self.inflight.server_of(signed, method)
        if holder:
            server = table.by_name.get(holder)
            if server and server.usable:
                return server
        if table.policy != CALL_ID:
            server = table.hot
        elif table.convergence != BY_CALL_ID:
            raise Odd
        else:
            server = table.choose(call_id.decode("utf-8", "surrogateescape").strip(), new=True)
        if not server:
            raise Odd
        return server

    def _quick_top(
        self, shape: Shape, server: Server, sender: Sender, method: bytes, tag: bytes | None, records: bytes
    ) -> bytes:
        """What is written above all lines of a phone's request: Record-Route or Path."""
        if method in CREATING and not tag:
            if records:
                raise Odd
            return sender.recorded.get(server.hint) or sender.record(server.hint, sender.own)
        if method == b"REGISTER" and self.table.path:
            if "Path" in shape.names:
                raise Odd
            return f"Path: <sip:{sender.own};lr>\r\n".encode()
        return b""

    def _quick_record(self, server: Server, method: bytes, tag: bytes | None, records: bytes, own: str) -> bytes:
        """What is written above all lines of a server's request: Record-Route, unless it stands there."""
        if tag or method not in CREATING:
            return b""
        if not records:
            return f"Record-Route: <sip:{own};lr;hint={server.hint}>\r\n".encode()
        if (self._memory.records.get(records) or self._memory.record(records)) != own:
            raise Odd
        return b""

    def _quick_account(self, server: Server, signed: bytes, method: bytes, tag: bytes | None, row: Kept) -> None:
        """A request goes to a server."""
        server.requests += 1
        if method == b"ACK":
            self.inflight.echo((signed, method, NO_STATUS, tag or b""), row)
        else:
            self.inflight.wait(signed + method, row)

    # -- answers ----------------------------------------------------------------------------------------------------

    def _quick_answer(self, data: bytes, leg: str, source: Address, now: float, sender: Server | None) -> Send:
        at = data.find(b";branch=") + OF_BRANCH
        signed = data[at : at + BRANCH_SIZE]
        beneath, asked, back, server, first_branch = self._memory.way(signed)
        shape, match = self._shapes.read(data, (source, asked, data[8:11]), now)
        status, via, own, branch, others, tag, _, method = shape.read(match)
        if others != beneath or branch != signed or own not in self._memory.texts:
            raise Odd
        if (server and not server.usable) or (self.failovers and self.unsettled):
            raise Odd
        if sender:
            self._quick_heard(sender, signed, method, status, tag, now)
        self._responses += 1
        start = match.start(shape.via)
        onward = data[:start] + data[start + len(via) :]
        if not server:
            return new(Send, (PHONES, onward, back))
        self.inflight.echo((first_branch, method, status, tag or b""), (server.name, data, leg, source, now, 0))
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
    data: bytes, shape: Shape, match: Match[bytes], top: bytes, via: bytes, vias: bytes, others: int, hops: bytes,
    routes: bytes,
) -> bytes:  # fmt: skip
    """The message with `top` above all lines, `via` and `vias` for its Vias, of which the others but the first are so
    many octets, and what Max-Forwards and Route are now."""
    start, via_start = match.end(URI) + END_OF_START, match.start(shape.left) - OF_VIA
    via_end = match.end(shape.right) + END_OF_LINE + others
    hops_start, hops_end = match.span(shape.hops)
    if not shape.routed and via_start == start:
        return b"".join((data[:start], top, via, vias, data[via_end:hops_start], hops, data[hops_end:]))
    if not shape.routed:
        between = data[via_end:hops_start]
        return b"".join((data[:start], top, data[start:via_start], via, vias, between, hops, data[hops_end:]))
    first, last = match.span(shape.routes)
    if first < hops_start:
        middle = data[via_end:first], routes, data[last:hops_start], hops, data[hops_end:]
    else:
        middle = data[via_end:hops_start], hops, data[hops_end:first], routes, data[last:]
    return b"".join((data[:start], top, data[start:via_start], via, vias, *middle))
