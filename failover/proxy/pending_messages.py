"""The messages that servers were sent and have not handled. When a server goes down, these are what
its successor is sent at once.

 1. A request is pending until it has its final answer, at most REQUEST_SECONDS; an INVITE that has
    a provisional response, whose caller waits longer, at most RINGING_SECONDS.
 2. A response or an ACK is never answered (it is "one-way" here). It is pending until the server
    has passed it on, at most ONE_WAY_SECONDS.
 3. A one-way message that ends at the server is kept too: a response to a request that began
    there, or an ACK to the server's own answer. At a B2BUA all of them end. The successor may have
    use for it, so it is moved, but nobody is owed anything for it and it does not count.
 4. A 2xx that was passed to a server, or waits for one, settles its INVITE, which is not replayed
    any more, nor passed on to a phone: one that has answered has forgotten it and would ring anew
    (RFC 3261 17.2.1).
 5. A datagram is kept as it was received, so that a replay takes the same way through the core as
    the first time.
 6. Datagrams and octets are bounded. One that falls out costs one replay, and the phone's
    retransmission makes up for it.

Keys are octets, because the fast path never decodes a message. Our branch stands for the request's
transaction (RFC 3261 16.11): a retransmission has the same key, its CANCEL and its ACK have the
same branch.

Traps. Dicts keep the order of insertion, so the first entry is the oldest; but finding the first
entry of a dict from whose front many were deleted takes long, so `expire` is not called for every
message. Every message comes by here: measure before adding to add_request and add_one_way.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple, TypeVar

from plumbing.address import Address
from sip.errors import RemoteProtocolError
from sip.message import parse
from sip.timing import PATIENCE

MAX_DATAGRAMS = 10_000
MAX_OCTETS = 32 << 20
REQUEST_SECONDS = PATIENCE  # then no client waits for an answer any more (RFC 3261 17.1.1.2)
RINGING_SECONDS = 300.0  # proxies give up after 3 minutes (RFC 3261 16.6 step 11)
ONE_WAY_SECONDS = 1.0
DEADLY_SECONDS = 1.0  # a server that goes down later does not do so because of the message
MAX_REFUSALS = 4_096
MAX_ANSWERED = 4_096
MAX_HEDGED = 4_096
RequestKey = bytes  # our branch (all are of one length), then the CSeq's method
# our branch in the request, the CSeq's method, the status, the To tag
OneWayKey = tuple[bytes, bytes, bytes, bytes]
NO_STATUS = b"0"  # an ACK's
K = TypeVar("K")


class PendingDatagram(NamedTuple):
    """A datagram as it was received. `server`: the one it was passed on to, "" before that;
    `received_at`: when its first copy came; `replayed`: it was taken from a server that went down
    or did not handle it; `begun`: a server has passed this request on, or answered it
    provisionally; `failures`: how many servers in a row did not handle it, or went down within
    DEADLY_SECONDS of its coming; `provisional`: its sender has had a provisional response;
    `handled`: the server has begun it since the last copy was sent there; `first_sent_at` and
    `last_sent_at`: when this server was sent its first and its last copy.
    """

    server: str
    data: bytes
    side: str
    source: Address
    received_at: float
    replayed: bool = False
    begun: bool = False
    failures: int = 0
    provisional: bool = False
    handled: bool = False
    first_sent_at: float = 0.0
    last_sent_at: float = 0.0

    @property
    def rings(self) -> bool:
        """Is it an INVITE that a server has begun, so that a phone may ring?"""
        return self.begun and self.data.lstrip(b"\r\n").startswith(b"INVITE ")

    @property
    def lasting(self) -> bool:
        """Does its sender wait for longer than 64*T1? A provisional response to an INVITE ends its
        Timer B (RFC 3261 17.1.1.2)."""
        return self.provisional and self.rings

    def sent_to(self, server: str, now: float) -> PendingDatagram:
        """The datagram, of which that server is sent its first copy."""
        return self._replace(server=server, first_sent_at=now, last_sent_at=now)

    def taken(self, now: float) -> PendingDatagram:
        """The datagram, to be sent to another server because its own went down."""
        deadly = now - self.received_at <= DEADLY_SECONDS
        return self._replace(replayed=True, failures=self.failures + 1 if deadly else 0)


make = tuple.__new__  # of a NamedTuple: make(PendingDatagram, (...)), in a third of the time


class Refusal(NamedTuple):
    """A final answer of 300 or more to an INVITE. `own`: the server's own, not a phone's that it
    passed on."""

    server: str
    own: bool


def octets(text: str) -> bytes:
    """The octets from which a part of a message was decoded."""
    return text.encode("utf-8", "surrogateescape")


def request_key(branch: str, method: str) -> RequestKey:
    return octets(branch + method)


def one_way_key(branch: str, method: str, status: int, to_tag: str) -> OneWayKey:
    return octets(branch), octets(method), b"%d" % status, octets(to_tag)


class PendingMessages:
    """Counts in `counters`: `inflight.expired`, `inflight.overflow`."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        # All are in the order of insertion, nearly that of age.
        self._requests: dict[RequestKey, PendingDatagram] = {}
        # those that are older than REQUEST_SECONDS and last
        self._ringing: dict[RequestKey, PendingDatagram] = {}
        self.one_way: dict[OneWayKey, PendingDatagram] = {}  # to be passed on by the server
        self._ended: dict[OneWayKey, PendingDatagram] = {}  # one-way, and end at the server
        self._refusals: dict[bytes, Refusal] = {}  # by our branch of the INVITE
        # by the key of an INVITE: the 2xx that has come from a phone, and when
        self._answered: dict[RequestKey, tuple[bytes, float]] = {}
        # Requests that were sent to another server too -> the one that had them first.
        self.hedged: dict[RequestKey, str] = {}
        self.moved: deque[PendingDatagram] = deque()  # from servers that went down; to be sent on
        self._octets = 0

    def __len__(self) -> int:
        """How many datagrams servers owe somebody something for."""
        return len(self._requests) + len(self._ringing) + len(self.one_way)

    @property
    def has_requests(self) -> bool:
        return bool(self._requests)

    def clear(self) -> None:
        for each in (self._requests, self._ringing, self.one_way, self._ended):
            each.clear()
        self._refusals.clear()
        self._answered.clear()
        self.hedged.clear()
        self.moved.clear()
        self._octets = 0

    # -- one message -------------------------------------------------------------------------------

    def add_request(self, key: RequestKey, datagram: PendingDatagram) -> None:
        """A request was sent to a server. A retransmission keeps the time of the first copy."""
        requests = self._requests
        earlier = requests.get(key)
        if not earlier and self._ringing:
            earlier = self._ringing.pop(key, None)
        if earlier:
            self._octets -= len(earlier.data)
            replayed = earlier.replayed or datagram.replayed
            begun = earlier.begun or datagram.begun
            failures = max(earlier.failures, datagram.failures)
            provisional = earlier.provisional or datagram.provisional
            known = earlier.received_at, replayed, begun, failures, provisional, False
            first, last = datagram.first_sent_at, datagram.last_sent_at
            if earlier.server == datagram.server:
                first = earlier.first_sent_at
            datagram = make(PendingDatagram, (*datagram[:4], *known, first, last))
        elif datagram.handled:
            datagram = datagram._replace(handled=False)  # by another server
        requests[key] = datagram
        self._octets = total = self._octets + len(datagram.data)
        count = len(requests) + len(self._ringing) + len(self.one_way) + len(self._ended)
        if total > MAX_OCTETS or count > MAX_DATAGRAMS:
            self.expire(datagram.received_at)

    def add_one_way(self, key: OneWayKey, datagram: PendingDatagram, ends: bool) -> None:
        """A response or an ACK was sent to a server. `ends`: at that server."""
        datagrams = self._ended if ends else self.one_way
        earlier = datagrams.pop(key, None)  # popped, so that the new one is the youngest
        if earlier:
            self._octets -= len(earlier.data)
        datagrams[key] = datagram
        self._octets = total = self._octets + len(datagram.data)
        count = len(self) + len(self._ended)
        if total > MAX_OCTETS or count > MAX_DATAGRAMS:
            self.expire(datagram.received_at)

    def _is_full(self) -> bool:
        return self._octets > MAX_OCTETS or len(self) + len(self._ended) > MAX_DATAGRAMS

    def remove_request(self, key: RequestKey) -> PendingDatagram | None:
        """It has its final answer."""
        datagram = self._requests.pop(key, None) or self._ringing.pop(key, None)
        if datagram:
            self._octets -= len(datagram.data)
        return datagram

    def remove_one_way(self, key: OneWayKey) -> PendingDatagram | None:
        """The server has passed it on, so no other one needs to. A phone that is told twice that
        another one rings may be told so after the answer."""
        datagram = self.one_way.pop(key, None)
        if datagram:
            self._octets -= len(datagram.data)
        return datagram

    def _request(self, key: RequestKey) -> PendingDatagram | None:
        return self._requests.get(key) or self._ringing.get(key)

    def mark_begun(self, key: RequestKey, server: str, provisional: bool) -> PendingDatagram | None:
        """A server has passed a request on, or answered it provisionally. Returns the request, if
        it is pending there and this is the first time since its last copy was sent there. It may
        be pending at another server by now, which has not handled it by that."""
        datagram = self._requests.get(key)
        if not datagram:
            return None
        handles = datagram.server == server and not datagram.handled
        if not handles and datagram.begun and (datagram.provisional or not provisional):
            return None
        provisional = provisional or datagram.provisional
        marks = True, datagram.failures, provisional, datagram.handled or handles
        self._requests[key] = make(PendingDatagram, (*datagram[:6], *marks, *datagram[10:]))
        return datagram if handles else None

    def server_of(self, branch: bytes, key: RequestKey) -> str | None:
        """Which server has this request, or the INVITE that it belongs to."""
        datagram = self._request(key)
        if not datagram and not key.endswith(b"INVITE"):
            datagram = self._request(branch + b"INVITE")
        if datagram:
            return datagram.server
        refusal = self._refusals.get(branch) if self._refusals else None
        return refusal.server if refusal else None

    def add_refusal(self, branch: bytes, server: str, own: bool) -> None:
        """A server has refused an INVITE, and repeats that until the ACK comes. The ACK has the
        INVITE's branch and no Route of its dialog (RFC 3261 17.1.1.3), so nothing else says where
        it belongs. `own`: the server's own refusal, so the ACK ends there. What it has passed on
        once it may repeat by itself: that is a phone's refusal still."""
        earlier = self._refusals.get(branch)
        self._refusals[branch] = Refusal(server, own and (earlier is None or earlier.own))
        if len(self._refusals) > MAX_REFUSALS:
            del self._refusals[next(iter(self._refusals))]

    def refused_by_server(self, branch: bytes) -> bool:
        """Was this INVITE refused by a server itself, and by no phone behind it?"""
        refusal = self._refusals.get(branch)
        return refusal is not None and refusal.own

    def add_answer(self, key: OneWayKey, data: bytes, now: float) -> None:
        """A phone's response was passed to a server, or waits for one."""
        branch, method, status, _ = key
        if method == b"INVITE" and b"200" <= status < b"300":
            self._answered[branch + method] = data, now
            if len(self._answered) > MAX_ANSWERED:
                del self._answered[next(iter(self._answered))]

    def is_answered(self, key: RequestKey, invite: bytes) -> bool:
        """Is this an INVITE whose 2xx has come from a phone? An old phone may use one branch for
        all its calls, so Call-ID and CSeq have to be the same too."""
        answer = self._answered.get(key)
        known = _transaction(answer[0]) if answer else None
        return known is not None and known == _transaction(invite)

    def may_be_answered_lately(self, key: RequestKey, now: float) -> bool:
        """Has a 2xx for this key come so lately that a server may not know of it? It may have got
        the INVITE first, from one that went down, and pass it on behind the answer."""
        answer = self._answered.get(key)
        return answer is not None and now - answer[1] <= PATIENCE

    # -- all of a server's -------------------------------------------------------------------------

    def count_unhandled(self, server: str, since: float, until: float) -> int:
        """How many requests and one-way messages that came in this time a server has not
        handled."""
        datagrams = (*self._requests.values(), *self.one_way.values())
        return sum(
            each.server == server and not each.handled and since <= each.received_at <= until
            for each in datagrams
        )

    def take_requests(
        self, server: str, since: float, before: float, most: int
    ) -> list[PendingDatagram]:
        """Takes the oldest requests that a server has not handled away from it, to be sent to
        another one: those that it was sent at `before` or earlier, and a copy of them at `since` or
        later. They are in `hedged` then."""
        old = [
            (each.received_at, key)
            for key, each in self._requests.items()
            if each.server == server
            and not each.handled
            and each.first_sent_at <= before
            and each.last_sent_at >= since
        ]
        taken = []
        for _, key in sorted(old)[:most]:
            datagram = self._requests.pop(key)
            self._octets -= len(datagram.data)
            self.hedged[key] = server
            taken.append(datagram._replace(replayed=True, failures=datagram.failures + 1))
        while len(self.hedged) > MAX_HEDGED:
            del self.hedged[next(iter(self.hedged))]
        return taken

    def take_one_way(self, server: str) -> list[PendingDatagram]:
        """Takes the responses and ACKs that a server has not passed on away from it."""
        keys = [key for key, datagram in self.one_way.items() if datagram.server == server]
        taken = [self.one_way.pop(key) for key in keys]
        self._octets -= sum(len(datagram.data) for datagram in taken)
        return [datagram._replace(replayed=True) for datagram in taken]

    def move_all(self, server: str, now: float) -> int:
        """Puts all that a lost server had into `moved`, oldest first. Returns how many datagrams it
        owed.

        Not a request whose 2xx the server was about to pass on: that answer settles it. Nor an
        INVITE whose 2xx came longer ago, because its phone repeats that.
        """
        self.expire(now)
        ringing, self._ringing = _split(self._ringing, server)
        requests, self._requests = _split(self._requests, server)
        requests.update(ringing)
        one_way, self.one_way = _split(self.one_way, server)
        ended, self._ended = _split(self._ended, server)
        settled = {branch + method for branch, method, status, _ in one_way if status[:1] == b"2"}
        for key in requests.keys() & (settled | self._answered.keys()):
            if key in settled or self.is_answered(key, requests[key].data):
                self._octets -= len(requests.pop(key).data)
        owed = [*requests.values(), *one_way.values()]
        moved = [each.taken(now) for each in (*owed, *ended.values())]
        self.moved.extend(sorted(moved, key=lambda each: each.received_at))
        return len(owed)

    # -- moved, and not yet sent on ----------------------------------------------------------------

    def is_moved(self, data: bytes) -> bool:
        """Is this very INVITE, which rings, in `moved`?"""
        return any(datagram.rings and datagram.data == data for datagram in self.moved)

    def add_moved(self, datagrams: list[PendingDatagram]) -> None:
        """These were kept while no server was up, and are to be sent on now."""
        self.moved.extend(datagrams)
        self._octets += sum(len(datagram.data) for datagram in datagrams)

    def take_moved(self, most: int) -> list[PendingDatagram]:
        taken = [self.moved.popleft() for _ in range(min(most, len(self.moved)))]
        self._octets -= sum(len(datagram.data) for datagram in taken)
        return taken

    # -- bounds ------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Removes what is too old, and the oldest of too much. Called several times a second."""
        for datagrams in (self.one_way, self._ended):
            while datagrams:
                oldest = next(iter(datagrams))
                if now - datagrams[oldest].received_at <= ONE_WAY_SECONDS:
                    break
                self._octets -= len(datagrams.pop(oldest).data)
        while self._ringing:
            key, datagram = next(iter(self._ringing.items()))
            if not self._remove_old(key, now - datagram.received_at > RINGING_SECONDS):
                break
        while self._requests:
            key, datagram = next(iter(self._requests.items()))
            old = now - datagram.received_at > REQUEST_SECONDS
            if old and datagram.lasting:
                self._ringing[key] = self._requests.pop(key)
            elif not self._remove_old(key, old):
                return
        for datagrams in (self._ended, self.one_way):
            while datagrams and self._is_full():
                self._counters["inflight.overflow"] += 1
                self._octets -= len(datagrams.pop(next(iter(datagrams))).data)

    def _remove_old(self, key: RequestKey, old: bool) -> bool:
        """Removes the request if it is too old or there is too much. False if neither is so."""
        if not old and not self._is_full():
            return False
        self._counters["inflight.expired" if old else "inflight.overflow"] += 1
        self.remove_request(key)
        return True


def _transaction(data: bytes) -> tuple[str, int] | None:
    """The Call-ID and the CSeq number of a message that was passed on; None where one is missing,
    which only an answer's may be."""
    try:
        message = parse(data, in_passing=True)
        return message.call_id, message.cseq.number
    except RemoteProtocolError:
        return None


def _split(
    datagrams: dict[K, PendingDatagram], server: str
) -> tuple[dict[K, PendingDatagram], dict[K, PendingDatagram]]:
    """The server's, and everybody else's."""
    own = {key: each for key, each in datagrams.items() if each.server == server}
    return own, {key: each for key, each in datagrams.items() if each.server != server}
