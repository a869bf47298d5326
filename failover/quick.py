"""The short way through the core, for ordinary messages: what core.py does with a message, done to its octets.

`quick` gives the one datagram to send, and has kept all accounts, or None: the message is nothing ordinary, nothing was
touched, core.py is to read it. Ordinary is what a pattern of shapes.py takes in whole, whose Vias, Routes and target
ways.py can read, and which is neither refused nor dropped nor sent to a server that stands in for one that is down.

The idea: octets that are known are compared, not read. An answer has to repeat, octet for octet, the Vias that its
request left with; what a phone sends is mostly what it sent before, but for a few words (templates.py); if not, how its
requests begin, up to their branch, was read the last time, most of its messages end alike, and a pattern reads what is
left. The order is that of core.py, and tests/test_quick.py holds the two equal.
"""

from __future__ import annotations

from failover.convergence import CALL_ID as BY_CALL_ID
from failover.inflight import NO_STATUS, Key
from failover.known import NO_ROUTES, Head, Routes, new
from failover.lines import BACK_DIGITS, Lines
from failover.members import Members
from failover.outcome import Send
from failover.settings import CALL_ID, PHONES
from failover.shapes import GROWN, Odd, branch_of
from failover.table import Server, ServerTable
from failover.ways import Memory
from plumbing.address import Address
from sip.message import DIALOG_CREATING
from sip.via import MAGIC_COOKIE

COOKIE = MAGIC_COOKIE.encode()
BEFORE_BRANCH = len(b";branch=")
BRANCH_SIZE = len(COOKIE) + 32  # octets of ours
AFTER_LOOP = BRANCH_SIZE + len(b";loop=") + 8  # octets from our branch's begin
BACK_IS = b";back="
AFTER_BACK = len(BACK_IS) + BACK_DIGITS
AFTER_OUR_BRANCH = AFTER_LOOP + AFTER_BACK + len(b";rport") + 2  # to the next line
CREATING = frozenset(method.encode() for method in DIALOG_CREATING)


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
            begin = data[:4]
            if begin == b"SIP/":
                return self._quick_answer(data, leg, source, now, sender)
            return self._quick_request(data, begin, leg, source, now, sender)
        except Odd:
            return None

    # -- requests ---------------------------------------------------------------------------------------------------

    def _quick_request(
        self, data: bytes, begin: bytes, leg: str, source: Address, now: float, asker: Server | None
    ) -> Send:
        memory = self._memory
        key = leg, source, len(data), begin
        template = memory.requests.get(key)
        parts = template.parts(data, 0) if template else None
        if template and parts:
            asked = template.asked(data, parts)
        else:
            asked = memory.asked(data, key, now)
        head, sender, route, records, loop, branch, others, tag, call_id, pieces = asked
        method, signed = head.method, sender.sign(branch)
        if (others and loop[6:] in others) or self._is_special(method, signed, tag):
            raise Odd
        beneath = b""  # the branch of the first Via beneath ours, where one asks for it
        if asker or sender.server:
            beneath = branch_of(others) if others else COOKIE + branch
        if asker:
            to, back = PHONES, route.target or head.target
            top, via = self._quick_phone(head, asker, back, source, tag, records)
            self._quick_came_through(asker, beneath, method, tag)
        else:
            server = self._quick_choice(signed, head, call_id, route)
            to, back = server.name, None
            top, via = (head.within if tag else head.opening).get(to) or self._quick_server(head, server, tag)
            if records and method in CREATING and not tag:
                raise Odd
            server.requests += 1
            if method == b"ACK":
                self.inflight.echo((signed, method, NO_STATUS, tag), (to, data, leg, source, now, 0, False))
            else:
                self.inflight.wait(signed + method, (to, data, leg, source, now, 0, False))
                if server.unhandled is not None:
                    server.unhandled.add(signed + method)
        pieces[1] = top
        pieces[2] = vias = b"".join((via, signed, loop, sender.before, branch, sender.after, others))
        memory.passed(signed, (vias, len(via), method, sender.target, sender.server, beneath))
        self._requests += 1
        return new(Send, (to, b"".join(pieces), back))

    def _quick_came_through(self, server: Server, beneath: bytes, method: bytes, tag: bytes) -> None:
        """A server has passed on a request: an ACK is settled with that."""
        if method == b"ACK":
            server.has_handled(self.inflight.came_through((beneath, method, NO_STATUS, tag)))
            return
        if method == b"INVITE":
            self.inflight.begun(beneath)
        self._quick_has_begun(server, beneath + method)

    def _quick_has_begun(self, server: Server, key: Key) -> None:
        inflight = self.inflight
        if server.unhandled:
            server.has_begun(key, inflight.waiting(key))
        if inflight.hedged:
            server.is_late(key, inflight.hedged)

    def _is_special(self, method: bytes, signed: bytes, tag: bytes) -> bool:
        """Is it an ACK that acknowledges the forwarder's own answer, or the copy of a request that was kept lately?"""
        if method == b"ACK" and tag and tag.decode("ascii") == self.lines.own_tag(signed.decode("ascii")):
            return True
        return bool(self.kept.released) and signed + method in self.kept.released

    def _quick_choice(self, signed: bytes, head: Head, call_id: bytes, route: Routes) -> Server:
        """Which server gets a phone's request. None of those that it names may be down, for that is written over."""
        table = self.table
        if self.passive.trial:
            raise Odd
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

    def _quick_server(self, head: Head, server: Server, tag: bytes) -> tuple[bytes, bytes]:
        """What comes first in a phone's request to that server, Record-Route or Path, and our Via up to the branch."""
        top, own = b"", head.sender.own
        if head.method in CREATING and not tag:
            top = f"Record-Route: <sip:{own};lr;hint={server.hint}>\r\n".encode()
        elif head.method == b"REGISTER" and self.table.path:
            if "Path" in head.form[0].names:
                raise Odd
            top = f"Path: <sip:{own};lr>\r\n".encode()
        via = self._memory.servers.get(server.name) or self._memory.server(server)
        known = (head.within if tag else head.opening)[server.name] = top + head.records, via
        return known

    def _quick_phone(
        self, head: Head, asker: Server, target: Address, source: Address, tag: bytes, records: bytes
    ) -> tuple[bytes, bytes]:
        """The same of a server's request to a phone, where Record-Route may stand already."""
        memory, top = self._memory, b""
        own = memory.phones.get((target, source[0])) or memory.phone(target, source[0])
        if head.method in CREATING and not tag:
            if not records:
                top = f"Record-Route: <sip:{own};lr;hint={asker.hint}>\r\n".encode()
            elif (memory.records.get(records) or memory.record(records)) != own:
                raise Odd
        return top + head.records, f"Via: SIP/2.0/UDP {own};branch=".encode()

    # -- answers ----------------------------------------------------------------------------------------------------

    def _quick_answer(self, data: bytes, leg: str, source: Address, now: float, sender: Server | None) -> Send:
        memory = self._memory
        branch = data.find(b";branch=") + BEFORE_BRANCH
        signed = data[branch : branch + BRANCH_SIZE]
        way = memory.ways.get(signed) or memory.way(signed)
        vias, ahead, method, back, server, first_branch = way
        start = branch - ahead
        if start <= 0:
            raise Odd
        if data.startswith(vias, start):
            at, onward = start + len(vias), data[:start] + data[branch + AFTER_OUR_BRANCH :]
        else:
            at, onward = _without_ours(data, start, vias, ahead + AFTER_LOOP)
        key = leg if sender else source, method, data[:start], len(data) - at
        template = memory.answers.get(key)
        parts = template.parts(data, at) if template else None
        if template and parts:
            tag = parts[template.tag] if template.tag else b""
        else:
            tag = memory.answered(data, at, key, now)
        if server and not server.usable:
            raise Odd
        if self.failovers and sender and self.unsettled(sender.name, now):
            raise Odd
        if sender:
            self._quick_heard(sender, signed, method, data[8:11], tag, now)
        self._responses += 1
        if data[8:9] != b"1":
            memory.settled(signed, way)
        if not server:
            return new(Send, (PHONES, onward, back))
        server.echoes += 1
        row = server.name, data, leg, source, now, 0, False
        self.inflight.echo((first_branch, method, data[8:11], tag), row)
        return new(Send, (server.name, onward, None))

    def _quick_heard(
        self, sender: Server, signed: bytes, method: bytes, status: bytes, tag: bytes, now: float
    ) -> None:
        """A server has answered."""
        inflight = self.inflight
        sender.responses += 1
        sender.answered = now
        if inflight.passing:
            sender.has_handled(inflight.came_through((signed, method, status, tag)))
        if status >= b"200":
            sender.has_handled(inflight.answered(signed + method))
            if inflight.hedged:
                sender.is_late(signed + method, inflight.hedged)
            if status >= b"300" and method == b"INVITE":
                inflight.refused(signed, sender.name)
        else:
            if method == b"INVITE":
                inflight.begun(signed)
            self._quick_has_begun(sender, signed + method)


def _without_ours(data: bytes, start: int, vias: bytes, ours: int) -> tuple[int, bytes]:
    """Where an answer's Vias end, and the answer without ours, if that has grown (`received`, say), or stands in one
    line with the others, as SIPp writes them. `ours`: octets of ours that may not have changed. Raises Odd."""
    end = data.find(b"\r\n", start) + 2
    if not data.startswith(vias[:ours], start):
        raise Odd
    line = vias.find(b"\r\n") + 2
    grown, others, back = data[start + ours : end - 2], vias[line:], vias[ours : ours + AFTER_BACK]
    if data.startswith(others, end) and _has_grown(grown, back):
        return end + len(others), data[:start] + data[end:]
    listed = others.replace(b"\r\nVia: ", b", ")
    value = listed[len(b"Via: ") : -2]
    if not grown.endswith(b", " + value) or not _has_grown(grown[: -2 - len(value)], back):
        raise Odd
    if b" ," in value or b",  " in value or value != value.strip():  # the parser takes such spaces away
        raise Odd
    return end, data[:start] + listed + data[end:]


def _has_grown(ours: bytes, back: bytes) -> bool:
    """Is what stands behind our branch and loop word still ours, but for parameters that a server has added?"""
    value = ours.partition(BACK_IS)[2]
    signed = value.partition(b";")[0] == back[len(BACK_IS) :]
    return signed and GROWN.fullmatch(ours) is not None
