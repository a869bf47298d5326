"""The fast path: forwards the octets of an ordinary message as core.py forwards a parsed one.

`FastPath.forward` returns the datagram to send, with all counters and pending messages up to date;
or None: then nothing was changed, and core.py must handle the message.

 1. Read. fast_path_patterns.py cuts out the fields that a proxy needs, by a template or by a
    pattern; if neither matches, the message is not ordinary.
 2. Look up. A topmost Via, a Route or a host is parsed once, by the core's own functions, and
    cached under its octets. Every cache is a pure function of octets, the server table and the
    forwarder's own addresses, and is emptied when those change. A branch that was signed lately is
    cached with the Via that it stands above, so its answer needs no second hash; an answer whose
    branch is not cached proves by its signature where it belongs.
 3. Decide as core.py does, in its order. A message that would be refused, dropped, queued or have
    an address replaced is left to core.py.
 4. Count, and join the pieces.

Trap: a phone's first message costs some ten times as much as its next ones, for its Via is parsed.
tests/failover/test_fast_path.py: two cores get the same messages, one of them without the fast
path. They must send the same octets and remember the same.
"""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from zlib import crc32

from failover.config.settings import CALL_ID, PHONES
from failover.proxy.events import Send
from failover.proxy.fast_path_patterns import COOKIE, NotOrdinary, Reader, beneath, topmost
from failover.proxy.header_rewrite import BACK, response_address
from failover.proxy.pending_messages import PendingDatagram
from failover.proxy.request_validation import LOOP
from failover.upstream.affinity_key import CALL_ID as CALL_ID_HEADER
from failover.upstream.server_table import Server
from plumbing.address import Address, format_address, literal
from sip.branch import branch_inputs
from sip.errors import RemoteProtocolError
from sip.message import DIALOG_CREATING, Request, parse
from sip.uri import Uri
from sip.via import MAGIC_COOKIE, Via

if TYPE_CHECKING:
    from failover.proxy.core import Core

MAX_ENTRIES, MAX_KEY = 16_384, 2_048  # of a cache; octets of what is read for one
MAX_SIGNED = 4_096  # branches remembered
FRESH_SECONDS = 5.0  # for which an own address, towards a peer or in a Route, is taken for known
STAND_IN = MAGIC_COOKIE + "-stands-in-"  # for the branch, which is another in every message
FROM_PHONES, FROM_SERVERS = crc32(b"phones\0"), crc32(b"servers\0")  # how the loop word begins
CREATING = frozenset(method.encode() for method in DIALOG_CREATING)
ONE_HOP_LESS = {b"%d" % hops: b"%d" % (hops - 1) for hops in range(1, 256)}
new = tuple.__new__  # of a NamedTuple, in half the time
K = TypeVar("K")
V = TypeVar("V")


class Own(NamedTuple):
    """One of the forwarder's addresses, and the beginning of a Via line with it."""

    address: bytes
    via: bytes


class TopVia(NamedTuple):
    """A topmost Via without its branch.

    `left` and `right`: the octets before and after the branch in the forwarded message and in its
    answers; `before`: the end of our own Via, then `left`. `signed_left` and `signed_right`: the
    octets that our branch is made from, before and after this Via's branch. `back_address`: where
    answers go, to `server` if it is a server's; `back` signs it."""

    left: bytes
    right: bytes
    before: bytes
    signed_left: bytes
    signed_right: bytes
    back_address: Address
    server: Server | None
    back: bytes


NOT_SIGNED = TopVia(b"", b"", b"", b"", b"", ("", 0), None, b""), b""


class Goal(NamedTuple):
    """The address that a URI names, and the server at it, if any."""

    address: Address
    server: Server | None


class Target(NamedTuple):
    """A Request-URI: where it points, the CRC that a loop word begins with, and the word if there
    is no Route."""

    goal: Goal
    crc: int
    loop: bytes


class Routes(NamedTuple):
    """Route lines. `kept`: without the forwarder's own; `asked`: the same as the loop word wants
    it; `hint`: from the forwarder's own; `next_hop`: the first that is left."""

    kept: bytes
    asked: bytes
    hint: str
    next_hop: Goal | None


NO_ROUTES = Routes(b"", b"", "", None)


class Cache(dict[K, V]):
    """A dict that calls `read(key)` for a missing key, and is emptied when full."""

    def __init__(self, read: Callable[[K], V]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, key: K) -> V:
        value = self._read(key)
        if len(self) >= MAX_ENTRIES:
            self.clear()
        self[key] = value
        return value


class FastPath:
    """The fast path of one core: it has the core's caches, and updates the core's pending messages
    and counters."""

    def __init__(self, core: Core) -> None:
        self._core, self._lines, self._reader = core, core.lines, Reader()
        self._keyed = blake2b(key=core.lines.key, digest_size=16)
        # our branch, if signed lately -> the Via below ours, and that one's branch
        self._signed: dict[bytes, tuple[TopVia, bytes]] = {}
        self.forget()

    def forget(self) -> None:
        """Empties the caches. For when the server table or an own address has changed."""
        lines = self._core.lines
        self._table, self._generation = lines.table, lines.generation
        self._by_call_id = lines.table.policy == CALL_ID
        self._fresh_until = float("-inf")
        self._signed.clear()
        self._owned: Cache[Address, Own] = Cache(_own)
        self._own: Cache[Address, Own] = Cache(lambda phone: self._read_own(lines.towards(phone)))
        self._own_to_server: Cache[str, Own] = Cache(
            lambda host: self._read_own(lines.towards_server(host))
        )
        self._vias: Cache[tuple[bytes, bytes, Address | None], TopVia] = Cache(self._read_via)
        self._routes: Cache[bytes, Routes] = Cache(self._read_routes)
        self._records: Cache[bytes, bytes] = Cache(_topmost_record)
        self._record_routes: Cache[tuple[bytes, str], bytes] = Cache(_record_route)
        self._goals: Cache[bytes, Goal] = Cache(self._read_goal)
        self._targets: Cache[tuple[int, bytes, bytes], Target] = Cache(self._read_target)

    def forward(self, data: bytes, side: str, source: Address, now: float) -> Send | None:
        """Returns the datagram to send for an ordinary message; None: `Core.receive` must handle
        it. Makes no events, so use it only while nobody listens to them."""
        if self._generation != self._lines.generation:
            self.forget()
        peer = None
        if side != PHONES:
            peer = self._table.by_name.get(side)
            if not peer or not peer.up:
                return None
        if now > self._fresh_until:
            self._own.clear()
            self._own_to_server.clear()
            self._routes.clear()
            self._fresh_until = now + FRESH_SECONDS
        try:
            words = self._reader.read(data, now)
            forward = self._answer if data.startswith(b"SIP/") else self._request
            return forward(data, side, source, now, peer, words)
        except (NotOrdinary, RemoteProtocolError):
            return None

    def _read_own(self, address: Address) -> Own:
        if self._generation != self._core.lines.generation:  # it is a new one
            self.forget()
        return self._owned[address]

    # -- look up ----------------------------------------------------------------------------------

    def _read_via(self, key: tuple[bytes, bytes, Address | None]) -> TopVia:
        """A topmost Via, left and right of its branch, as `source` sent it or (None) as it came
        back in an answer. Raises NotOrdinary."""
        left, right, source = key
        if len(left) + len(right) > MAX_KEY:
            raise NotOrdinary
        value = f"{left.decode()};branch={STAND_IN}{right.decode()}"
        via = Via.parse(value)
        complete = via.with_source(*source) if source else via
        text = value if complete == via else str(complete)
        if "," in text or '"' in text or via.branch != STAND_IN or LOOP in via.params:
            raise NotOrdinary
        if text.count(STAND_IN) != 1:
            raise NotOrdinary
        lines, address = self._core.lines, response_address(complete)
        server = lines.table.by_address.get(address)
        if not server and not literal(address):
            raise NotOrdinary
        before, after = text.encode().split(b";branch=" + STAND_IN.encode())
        words = "\0".join(branch_inputs(lines.signed(complete, address))).encode()
        first, last = words.split(STAND_IN.encode())
        back = lines.back_word(address).encode()
        ours = b";%b=%b;rport\r\nVia: " % (BACK.encode(), back)
        known = TopVia(
            left=before,
            right=after,
            before=ours + before + b";branch=" + COOKIE,
            signed_left=first + COOKIE,
            signed_right=last,
            back_address=address,
            server=server,
            back=back,
        )
        self._vias[before, after, None] = known  # as the answer will have it
        return known

    def _goal(self, uri: Uri) -> Goal:
        address, table = uri.address(), self._core.lines.table
        if address in table.former:
            raise NotOrdinary
        return Goal(address, table.by_address.get(address))

    def _read_target(self, key: tuple[int, bytes, bytes]) -> Target:
        """A Request-URI, with its host cut out, from a side (FROM_PHONES or FROM_SERVERS)."""
        first, uri, host = key
        if len(uri) > MAX_KEY:
            raise NotOrdinary
        crc = crc32(uri, first)
        return Target(self._goals[host], crc, b";loop=%08x" % crc)

    def _read_goal(self, host: bytes) -> Goal:
        if len(host) > MAX_KEY:
            raise NotOrdinary
        return self._goal(Uri.parse("sip:" + host.decode()))

    def _read_routes(self, octets: bytes) -> Routes:
        """The values of Route lines. Raises NotOrdinary for a strict router."""
        if len(octets) > MAX_KEY:
            raise NotOrdinary
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

    def _sign(self, via: TopVia, branch: bytes) -> bytes:
        """Makes the branch of our Via above this one; `branch` is without its magic cookie."""
        keyed = self._keyed.copy()
        keyed.update(via.signed_left + branch + via.signed_right)
        signed = COOKIE + hexlify(keyed.digest())
        if len(self._signed) >= MAX_SIGNED:
            self._signed.clear()
        self._signed[signed] = via, branch
        return signed

    # -- requests ---------------------------------------------------------------------------------

    def _request(
        self,
        data: bytes,
        side: str,
        source: Address,
        now: float,
        asker: Server | None,
        words: Any,
    ) -> Send:
        core = self._core
        (
            method, above, routes, records, hops, line, uri, host,
            left, branch, right, others, tag, call_id, middle, rest,
        ) = words  # fmt: skip
        via = self._vias[left, right, source]
        signed = self._sign(via, branch)
        # before the Routes, which may name it
        own = self._own_to_server[source[0]] if asker else self._own[source]
        route = self._routes[routes] if routes else NO_ROUTES
        pointed, crc, loop = self._targets[FROM_SERVERS if asker else FROM_PHONES, uri, host]
        if routes:
            loop = b";loop=%08x" % crc32(route.asked, crc)
        if others and loop[6:] in others:
            raise NotOrdinary
        if method == b"ACK" and tag and tag.decode() == core.lines.own_tag(signed.decode()):
            raise NotOrdinary
        key = signed + method
        queue = core.outage_queue
        if queue.released and key in queue.released:
            raise NotOrdinary
        if now < queue.paused_until and key in queue:
            raise NotOrdinary
        if method == b"CANCEL" and signed + b"INVITE" in queue:
            raise NotOrdinary
        goal = route.next_hop or pointed
        creates = method in CREATING and not tag
        top, target = b"", None
        if asker:
            if creates and core.orphans.watchful:
                raise NotOrdinary
            if method == b"INVITE":
                asked = beneath(branch, others) + method
                if core.pending.may_be_answered_lately(asked, now):
                    raise NotOrdinary
            target = self._reachable(goal, source)
            server, to, own = asker, PHONES, self._own[target]
            here = own
        else:
            begins = not tag and method not in (b"ACK", b"CANCEL")
            # None that it names may be down, for that is written over.
            if pointed.server and not pointed.server.accepts_dialogs:
                raise NotOrdinary
            if goal.server and not goal.server.accepts_dialogs:
                raise NotOrdinary
            failover = core.failover
            if failover.passive.trial:
                raise NotOrdinary
            affinity_key = self._affinity_key(call_id) if self._by_call_id else ""
            chosen, _ = failover.choose(route.hint, signed, key, begins, affinity_key, now)
            if not chosen:
                raise NotOrdinary
            server = chosen
            to, here = server.name, self._own_to_server[server.address[0]]
            if method == b"REGISTER" and self._table.path:
                if above or records or b"\npath" in data.lower():
                    raise NotOrdinary
                top = b"Path: <sip:%b;lr>\r\n" % own.address
        if creates:
            if not (above or records):
                top = self._record_routes[own.address, server.hint]
            elif not asker or self._records[above or b"Record-Route: " + records] != own.address:
                raise NotOrdinary
        if asker:
            core.failover.request_passed_on(asker, beneath(branch, others), method, tag)
        else:
            pending = new(
                PendingDatagram,
                (to, data, side, source, now, False, False, 0, False, False, now, now),
            )
            if method == b"ACK":
                named = pointed.server is not None and not route.next_hop
                ends = named or core.pending.refused_by_server(signed)
                failover.ack_sent(server, signed, tag, pending, ends)
            else:
                failover.request_sent(server, key, pending)
        core.failover.counters["passed.requests"] += 1
        hops = ONE_HOP_LESS[hops]
        if routes:
            kept = b"\r\n" + route.kept
            rest = (middle + hops + rest).replace(b"\r\nRoute: " + routes, kept, 1)
            middle = hops = b""
        onward = b"".join((
            line, top, above, here.via, signed, loop, via.before, branch, via.right, others,
            middle, hops, rest,
        ))  # fmt: skip
        send: Send = new(Send, (to, onward, target))
        if asker and method == b"INVITE" and not (tag or others):
            core.orphans.invite_sent(signed, asker, send, now)
        return send

    def _reachable(self, goal: Goal, source: Address) -> Address:
        """Where a server at `source` sends to, if that may be a phone. Raises NotOrdinary."""
        address, server = goal
        if server or not literal(address) or self._core.lines.is_own(address):
            raise NotOrdinary
        if (":" in address[0]) != (":" in source[0]):
            raise NotOrdinary
        return address

    def _affinity_key(self, call_id: bytes) -> str:
        """The key of policy call-id. Raises NotOrdinary unless it is the Call-ID."""
        if self._table.convergence != CALL_ID_HEADER:
            raise NotOrdinary
        return call_id.decode("utf-8", "surrogateescape").strip()

    # -- answers ----------------------------------------------------------------------------------

    def _answer(
        self,
        data: bytes,
        side: str,
        source: Address,
        now: float,
        sender: Server | None,
        words: Any,
    ) -> Send:
        core = self._core
        method, status, signed, back, left, branch, right, others, tag, start, rest = words
        via, above = self._signed.get(signed, NOT_SIGNED)
        if branch != above or left != via.left or right != via.right:
            via = self._vias[left, right, None]
            if self._sign(via, branch) != signed:
                raise NotOrdinary
        server = via.server
        if back != via.back or (server and not server.accepts_dialogs):
            raise NotOrdinary
        failover = core.failover
        if failover.records and sender and failover.awaits_first_answer(side, now):
            raise NotOrdinary
        if core.orphans.watchful and method in (b"INVITE", b"CANCEL"):
            raise NotOrdinary
        if sender:
            failover.response_received(sender, signed, method, status, tag, now)
        elif method == b"INVITE":
            core.orphans.invite_answered(signed, status >= b"200")
        failover.counters["passed.responses"] += 1
        if not server:
            return new(Send, (PHONES, start + rest, via.back_address))
        pending = new(
            PendingDatagram,
            (server.name, data, side, source, now, False, False, 0, False, False, now, now),
        )
        key = beneath(branch, others), method, status, tag
        failover.response_sent(server, key, pending, not others)
        return new(Send, (server.name, start + rest, None))


def _own(address: Address) -> Own:
    octets = format_address(address).encode("utf-8", "surrogateescape")
    return Own(octets, b"Via: SIP/2.0/UDP " + octets + b";branch=")


def _topmost_record(lines: bytes) -> bytes:
    if len(lines) > MAX_KEY:
        raise NotOrdinary
    return topmost(lines)


def _record_route(key: tuple[bytes, str]) -> bytes:
    return b"Record-Route: <sip:%b;lr;hint=%b>\r\n" % (key[0], key[1].encode())
