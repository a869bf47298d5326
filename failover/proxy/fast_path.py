"""The fast path: what core.py does with a message, done to the octets of an ordinary one.

`FastPath.forward` returns the datagram to send, and has kept all accounts; or None, and then
nothing was touched and core.py is to handle the message.

 1. Read (fast_path_patterns.py): the words of the message that a proxy looks at, or it is not
   ordinary.
 2. Look up what they mean. A topmost Via, a Route or a host is interpreted by the core's own
    functions, once, and cached under its octets. Every cache is a pure function of octets, the
    server table and the forwarder's own addresses, and is emptied only when those change. Nothing
    is remembered of a request: an answer proves by its signed branch and way back where it belongs.
 3. Decide as core.py does, in its order. Whatever would be refused, dropped, kept or written over
    is left to core.py.
 4. Keep accounts, and join the pieces.

tests/failover/test_fast_path.py holds the two equal: told the same, they send the same octets and
remember the same, whatever comes.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from zlib import crc32

from failover.config.settings import CALL_ID, PHONES
from failover.proxy.destination import literal, way_back
from failover.proxy.events import Send
from failover.proxy.fast_path_patterns import COOKIE, NotOrdinary, Reader, beneath, topmost
from failover.proxy.header_rewrite import BACK
from failover.proxy.pending_messages import NO_STATUS, Key
from failover.proxy.request_validation import LOOP
from failover.upstream.affinity_key import CALL_ID as CALL_ID_HEADER
from failover.upstream.server_table import Server
from plumbing.address import Address, format_address
from sip.branch import words_of
from sip.errors import RemoteProtocolError
from sip.message import DIALOG_CREATING, Request, parse
from sip.uri import Uri
from sip.via import MAGIC_COOKIE, Via

if TYPE_CHECKING:
    from failover.proxy.core import Core

MAX_ENTRIES, MAX_KEY = 16_384, 2_048  # of a cache; octets of what is read for one
FRESH_SECONDS = 5.0  # for which an own address, towards a peer or in a Route, is taken for known
STAND_IN = MAGIC_COOKIE + "-stands-in-"  # for the branch, which is another in every message
FROM_PHONES, FROM_SERVERS = crc32(b"phones\0"), crc32(b"servers\0")  # how the loop word begins
CREATING = frozenset(method.encode() for method in DIALOG_CREATING)
# By the value of Max-Forwards: its line, and the one to write.
HOPS = [b"\r\nMax-Forwards: %d\r\n" % hops for hops in range(256)]
ONE_HOP_LESS = {b"%d" % hops: (HOPS[hops], HOPS[hops - 1]) for hops in range(1, 256)}
NO_LINE: tuple[bytes, ...] = ()
new = tuple.__new__  # of a NamedTuple, in half the time
K = TypeVar("K")
V = TypeVar("V")


class Came(NamedTuple):
    """A datagram, on which side, from where, when."""

    data: bytes
    side: str
    source: Address
    now: float


class TopVia(NamedTuple):
    """A topmost Via but for its branch, in two parts: as it is passed on, our own Via's end before
    it, and as our branch is made from it; where answers go, and the server there, if one is; and
    the signature of that way back."""

    before: bytes
    after: bytes
    signed_before: bytes
    signed_after: bytes
    back_address: Address
    server: Server | None
    back: bytes


class Goal(NamedTuple):
    """Where a URI points, and the server there, if one is."""

    address: Address
    server: Server | None


class Routes(NamedTuple):
    """Route lines: `kept` once the forwarder's own are gone, the same as the loop word has it, the
    own ones' hint, and the next hop that is left."""

    kept: bytes
    asked: bytes
    hint: str
    next_hop: Goal | None


NO_ROUTES = Routes(b"", b"", "", None)


class Cache(dict[K, V]):
    """`read(key)`, remembered. Emptied when full."""

    def __init__(self, read: Callable[[K], V]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, key: K) -> V:
        if len(repr(key)) > MAX_KEY:
            raise NotOrdinary
        value = self._read(key)
        if len(self) >= MAX_ENTRIES:
            self.clear()
        self[key] = value
        return value


class FastPath:
    """Of one core, whose accounts it keeps."""

    def __init__(self, core: Core) -> None:
        self._core, self._reader = core, Reader()
        self._keyed = blake2b(key=core.lines.key, digest_size=16)
        core.lines.changed = self.forget
        self.forget()

    def forget(self) -> None:
        """Empties the caches: there is another server table, or another own address."""
        lines = self._core.lines
        self._fresh_until = float("-inf")
        self._own: Cache[Address, bytes] = Cache(lambda phone: _octets(lines.towards(phone)))
        self._own_to_server: Cache[str, bytes] = Cache(
            lambda host: _octets(lines.towards_server(host))
        )
        self._vias: Cache[tuple[bytes, bytes, Address | None], TopVia] = Cache(self._read_via)
        self._routes: Cache[bytes, Routes] = Cache(self._read_routes)
        self._records: Cache[bytes, bytes] = Cache(topmost)
        self._targets: Cache[bytes, Goal] = Cache(
            lambda host: self._goal(Uri.parse("sip:" + host.decode()))
        )

    def forward(self, data: bytes, side: str, source: Address, now: float) -> Send | None:
        """What is to be sent for an ordinary message; None: `Core.receive` is to have it. It tells
        of no events, so it is for when nobody listens."""
        peer = None
        if side != PHONES:
            peer = self._core.table.by_name.get(side)
            if not peer or not peer.up:
                return None
        if now > self._fresh_until:
            self._own.clear()
            self._own_to_server.clear()
            self._routes.clear()
            self._fresh_until = now + FRESH_SECONDS
        try:
            facts, words = self._reader.read(data, now)
            forward = self._answer if data.startswith(b"SIP/") else self._request
            return forward(new(Came, (data, side, source, now)), peer, facts, words)
        except (NotOrdinary, RemoteProtocolError):
            return None

    # -- look up ----------------------------------------------------------------------------------

    def _read_via(self, key: tuple[bytes, bytes, Address | None]) -> TopVia:
        """A topmost Via, left and right of its branch, as `source` sent it or (None) as it came
        back in an answer. Raises NotOrdinary."""
        left, right, source = key
        value = f"{left.decode()};branch={STAND_IN}{right.decode()}"
        via = Via.parse(value)
        complete = via.with_source(*source) if source else via
        text = value if complete == via else str(complete)
        if "," in text or '"' in text or via.branch != STAND_IN or LOOP in via.params:
            raise NotOrdinary
        if text.count(STAND_IN) != 1:
            raise NotOrdinary
        lines, address = self._core.lines, way_back(complete)
        server = lines.table.by_address.get(address)
        if not server and not literal(address):
            raise NotOrdinary
        before, after = text.encode().split(b";branch=" + STAND_IN.encode())
        words = "\0".join(words_of(lines.signed(complete))).encode()
        first, last = words.split(STAND_IN.encode())
        back = lines.back_word(complete).encode()
        ours = b";" + BACK.encode() + b"=" + back + b";rport\r\nVia: "
        known = TopVia(
            ours + before + b";branch=" + COOKIE, after, first + COOKIE, last, address, server, back
        )
        self._vias[before, after, None] = known  # as the answer will have it
        return known

    def _goal(self, uri: Uri) -> Goal:
        address = uri.address()
        return Goal(address, self._core.lines.table.by_address.get(address))

    def _read_routes(self, octets: bytes) -> Routes:
        """The values of Route lines. Raises NotOrdinary for a strict router."""
        request = parse(b"OPTIONS sip:nobody SIP/2.0\r\nRoute: " + octets + b"\r\n")
        assert isinstance(request, Request)
        hint = self._core.lines.pop_routes(request)
        left = request.routes
        if left and "lr" not in left[0].uri.params:
            raise NotOrdinary
        kept = b"".join(field.raw for field in request.fields)
        asked = "".join("\0" + value for value in request.all("Route"))
        next_hop = self._goal(left[0].uri) if left else None
        return Routes(kept, asked.encode("utf-8", "surrogateescape"), hint, next_hop)

    def _sign(self, first: bytes, branch: bytes, last: bytes) -> bytes:
        """Our branch above a Via with this one, of which the cookie is left out."""
        keyed = self._keyed.copy()
        keyed.update(first + branch + last)
        return COOKIE + keyed.hexdigest().encode()

    # -- requests ---------------------------------------------------------------------------------

    def _request(self, came: Came, asker: Server | None, facts: Any, words: Any) -> Send:
        data, _, source, _ = came
        method, above, routes, records, hops, _, end = facts
        line, uri, host, left, branch, right, others, tag, call_id = words
        before, after, first, last, _, _, _ = self._vias[left, right, source]
        signed = self._sign(first, branch, last)
        # First: a Route may name it.
        own = self._own_to_server[source[0]] if asker else self._own[source]
        route = self._routes[routes] if routes else NO_ROUTES
        seed = FROM_SERVERS if asker else FROM_PHONES
        loop = b";loop=%08x" % crc32(route.asked, crc32(uri, seed))
        if (others and loop[6:] in others) or self._is_special(method, signed, tag):
            raise NotOrdinary
        pointed = self._targets[host]
        goal = route.next_hop or pointed
        if asker:
            if self._core.orphans.watchful and method in CREATING and not tag:
                raise NotOrdinary
            server, to, target = asker, PHONES, self._reachable(goal, source)
            own = here = self._own[target]
        else:
            server = self._choose(signed, method, call_id, route.hint, pointed.server, goal.server)
            to, target, here = server.name, None, self._own_to_server[server.address[0]]
        top = self._written_above(data, asker, method, tag, above, records, own, server)
        if asker:
            self._passed_on(asker, method, tag, beneath(branch, others))
        else:
            named = bool(pointed.server and not route.next_hop)
            self._wait(server, signed, method, tag, came, named)
        self._core.counters["passed.requests"] += 1
        rest = data[end:].replace(*ONE_HOP_LESS[hops], 1)
        if routes:
            rest = rest.replace(b"\r\nRoute: " + routes, b"\r\n" + route.kept, 1)
        pieces = (
            line,
            *top,
            above,
            b"Via: SIP/2.0/UDP ",
            here,
            b";branch=",
            signed,
            loop,
            before,
            branch,
            after,
            others,
            rest,
        )
        send = new(Send, (to, b"".join(pieces), target))
        if asker and method == b"INVITE" and not (tag or others):
            self._core.orphans.sent(signed, came.side, send, came.now)
        return send

    def _written_above(
        self,
        data: bytes,
        asker: Server | None,
        method: bytes,
        tag: bytes,
        above: bytes,
        records: bytes,
        own: bytes,
        server: Server,
    ) -> tuple[bytes, ...]:
        """The line above our Via, in pieces: Record-Route, Path, or none. Raises NotOrdinary."""
        if method == b"REGISTER" and self._core.table.path and not asker:
            if above or records or b"\npath" in data.lower():
                raise NotOrdinary
            return b"Path: <sip:", own, b";lr>\r\n"
        if method not in CREATING or tag:
            return NO_LINE
        if not (above or records):
            return b"Record-Route: <sip:", own, b";lr;hint=", server.hint.encode(), b">\r\n"
        if not asker or self._records[above or b"Record-Route: " + records] != own:
            raise NotOrdinary
        return NO_LINE

    def _is_special(self, method: bytes, signed: bytes, tag: bytes) -> bool:
        """Is it an ACK to the forwarder's own answer, or the copy of a request kept lately?"""
        core = self._core
        if method == b"ACK" and tag and tag.decode() == core.lines.own_tag(signed.decode()):
            return True
        return bool(core.kept.released) and signed + method in core.kept.released

    def _reachable(self, goal: Goal, source: Address) -> Address:
        """Where a server at `source` sends to, if that may be a phone. Raises NotOrdinary."""
        address, server = goal
        if server or not literal(address) or self._core.lines.is_own(address):
            raise NotOrdinary
        if (":" in address[0]) != (":" in source[0]):
            raise NotOrdinary
        return address

    def _choose(
        self,
        signed: bytes,
        method: bytes,
        call_id: bytes,
        hint: str,
        pointed: Server | None,
        named: Server | None,
    ) -> Server:
        """Which server gets a phone's request. None that it names may be down, for that is written
        over. Raises NotOrdinary."""
        core, table = self._core, self._core.table
        if (
            core.passive.trial
            or (pointed and not pointed.accepts_dialogs)
            or (named and not named.accepts_dialogs)
        ):
            raise NotOrdinary
        server = table.by_hint.get(hint)
        if server and server.accepts_dialogs:
            return server
        server = table.by_name.get(core.inflight.server_of(signed, method) or "")
        if server and server.accepts_dialogs:
            return server
        if table.policy != CALL_ID:
            server = table.hot
        elif table.convergence == CALL_ID_HEADER:
            session = call_id.decode("utf-8", "surrogateescape").strip()
            server = table.choose(session, new=True)
        if not server:
            raise NotOrdinary
        return server

    def _wait(
        self, server: Server, signed: bytes, method: bytes, tag: bytes, came: Came, named: bool
    ) -> None:
        """A phone's request goes to a server, which owes its answer from now on. `named`: it is the
        party that is meant."""
        inflight, row = self._core.inflight, (server.name, *came, 0, False)
        server.requests += 1
        if method == b"ACK":
            ends = named or inflight.refused_itself(signed)
            inflight.echo((signed, method, NO_STATUS, tag), row, ends)
            return
        inflight.wait(signed + method, row)
        if server.unhandled is not None:
            server.unhandled.add(signed + method)

    def _passed_on(self, server: Server, method: bytes, tag: bytes, beneath: bytes) -> None:
        """A server has passed a request on: an ACK is settled with that."""
        inflight = self._core.inflight
        if method == b"ACK":
            server.has_handled(inflight.came_through((beneath, method, NO_STATUS, tag)))
            return
        if method == b"INVITE":
            inflight.begun(beneath)
        self._has_begun(server, beneath + method)

    def _has_begun(self, server: Server, key: Key) -> None:
        inflight = self._core.inflight
        if server.unhandled:
            server.has_begun(key, inflight.waiting(key))
        if inflight.hedged:
            server.is_late(key, inflight.hedged)

    # -- answers ----------------------------------------------------------------------------------

    def _answer(self, came: Came, sender: Server | None, facts: Any, words: Any) -> Send:
        data, side, source, now = came
        method, status, start, end = facts
        signed, back, left, branch, right, others, tag = words
        core, via = self._core, self._vias[left, right, None]
        if back != via.back or signed != self._sign(via.signed_before, branch, via.signed_after):
            raise NotOrdinary
        server = via.server
        if server and not server.accepts_dialogs:
            raise NotOrdinary
        if core.failovers and sender and core.unsettled(side, now):
            raise NotOrdinary
        if core.orphans.watchful and method == b"INVITE":
            raise NotOrdinary
        if sender:
            self._heard(sender, signed, method, status, tag, now)
        elif method == b"INVITE":
            core.orphans.heard(signed, status >= b"200")
        core.counters["passed.responses"] += 1
        onward = data[:start] + data[end:]
        if not server:
            return new(Send, (PHONES, onward, via.back_address))
        server.relayed += bool(others)
        key = beneath(branch, others), method, status, tag
        core.inflight.echo(key, (server.name, data, side, source, now, 0, False), not others)
        return new(Send, (server.name, onward, None))

    def _heard(
        self, sender: Server, signed: bytes, method: bytes, status: bytes, tag: bytes, now: float
    ) -> None:
        """A server has answered."""
        inflight = self._core.inflight
        sender.responses += 1
        sender.last_heard_at = now
        key = signed, method, status, tag
        through = inflight.came_through(key) if inflight.passing else None
        sender.has_handled(through)
        if status < b"200":
            if method == b"INVITE":
                inflight.begun(signed)
            self._has_begun(sender, signed + method)
            return
        sender.has_handled(inflight.answered(signed + method))
        if inflight.hedged:
            sender.is_late(signed + method, inflight.hedged)
        if status >= b"300" and method == b"INVITE":
            inflight.refused(signed, sender.name, not through)


def _octets(address: Address) -> bytes:
    return format_address(address).encode("utf-8", "surrogateescape")
