"""What the servers were sent and still owe: when one goes down, this is what the next one is sent
at once.

A request waits until it is answered. What is never answered, a response or an ACK, counts as in
flight until the server has passed it on, or for a second. Where it ends at the server, as a
response to a request that began there does, or an ACK to the server's own answer (all of them at a
B2BUA), it is sent to the next one likewise, for that may have use for it, but nobody is owed
anything and it does not count. Rows hold the datagrams as they were received, so that a replay
takes the same way through the core as the first time. Bounded in number, octets and age: a row that
falls out costs one replay, and a phone's retransmission makes up for it.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from plumbing.address import Address
from sip.timing import PATIENCE

MAX_ROWS = 10_000
MAX_OCTETS = 32 << 20
WAITING = PATIENCE  # seconds; after that no client waits for an answer any more (RFC 3261 17.1.1.2)
MAX_REFUSED = 4_096
MAX_HEDGED = 4_096
ECHO = 1.0  # seconds that a response or an ACK counts as in flight
Key = bytes  # our branch, all of which are of one length, and the CSeq's method
# our branch in the request, the CSeq's method, the status, the To tag
EchoKey = tuple[bytes, bytes, bytes, bytes]
NO_STATUS = b"0"  # what an ACK has for one
# A Row that is kept is a bare tuple: it is made in a tenth of the time, and the garbage collector
# need not look at it.
Kept = tuple[str, bytes, str, Address, float, int, bool]


class Row(NamedTuple):
    """One datagram on its way through a server. `moves`: how often the server that had it went
    down; `begun`: a server has passed this INVITE on, or answered it provisionally, so a phone may
    ring."""

    server: str
    data: bytes
    side: str
    source: Address
    since: float
    moves: int = 0
    begun: bool = False

    @property
    def replayed(self) -> bool:
        return self.moves > 0


def key_of(branch: str, method: str) -> Key:
    """`branch` is one of ours."""
    return (branch + method).encode("ascii")


def echo_key(branch: str, method: str, status: int, to_tag: str) -> EchoKey:
    """An ACK's status is 0."""
    return (
        branch.encode("utf-8", "surrogateescape"),
        method.encode("ascii"),
        str(status).encode("ascii"),
        to_tag.encode("utf-8", "surrogateescape"),
    )


class InFlight:
    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._waiting: dict[Key, Kept] = {}  # oldest first, as Python's dicts keep their order
        self._passed: dict[EchoKey, Kept] = {}  # likewise; to be passed on by the server
        self._ended: dict[EchoKey, Kept] = {}  # likewise; the server is the last to get it
        # Our branch of a refused INVITE -> the server that waits for its ACK; was the refusal its
        # own?
        self._refused: dict[bytes, tuple[str, bool]] = {}
        # requests that another server was sent too -> the one that had them first
        self.hedged: dict[Key, str] = {}
        self.moving: deque[Row] = deque()  # taken from servers that went down, not yet sent on
        self._octets = 0
        self._due = 0.0  # before that nothing is too old

    def __len__(self) -> int:
        """How many datagrams servers owe somebody something for."""
        return len(self._waiting) + len(self._passed)

    @property
    def _rows(self) -> int:
        return len(self._waiting) + len(self._passed) + len(self._ended)

    @property
    def owing(self) -> bool:
        """Some request waits for its answer."""
        return bool(self._waiting)

    @property
    def passing(self) -> bool:
        """Some response or ACK is to be passed on."""
        return bool(self._passed)

    def forget(self) -> None:
        """All of it."""
        for rows in (self._waiting, self._passed, self._ended, self._refused, self.hedged):
            rows.clear()
        self.moving.clear()
        self._octets = 0

    def wait(self, key: Key, row: Kept) -> None:
        """A request was sent. Its retransmission moves the row to where it went now, and makes it
        no younger."""
        earlier = self._waiting.get(key)
        if earlier:
            self._octets -= len(earlier[1])
            row = (
                row[0],
                row[1],
                row[2],
                row[3],
                earlier[4],
                max(earlier[5], row[5]),
                earlier[6] or row[6],
            )
        self._waiting[key] = row
        self._octets += len(row[1])
        if row[4] > self._due or self._octets > MAX_OCTETS or self._rows > MAX_ROWS:
            self.expire(row[4])

    def echo(self, key: EchoKey, row: Kept, ends: bool) -> None:
        """Something was sent that gets no answer. `ends`: it ends at that server."""
        rows = self._ended if ends else self._passed
        self._remove(rows, key)
        rows[key] = row
        self._octets += len(row[1])
        if row[4] > self._due or self._octets > MAX_OCTETS or self._rows > MAX_ROWS:
            self.expire(row[4])

    def came_through(self, key: EchoKey) -> Kept | None:
        """The server has passed it on, so nobody needs to do it again. A phone that is told twice
        that another one rings may be told so after the answer."""
        return self._remove(self._passed, key)

    def _remove(self, rows: dict[EchoKey, Kept], key: EchoKey) -> Kept | None:
        row = rows.pop(key, None)
        if row:
            self._octets -= len(row[1])
        return row

    def server_of(self, branch: bytes, method: bytes) -> str | None:
        """Who has this request, or the INVITE that it belongs to."""
        waiting = self._waiting
        row = waiting.get(branch + method)
        if not row and method != b"INVITE":
            row = waiting.get(branch + b"INVITE")
        return row[0] if row else self._refused.get(branch, (None, False))[0]

    def refused(self, branch: bytes, server: str, own: bool) -> None:
        """A server has answered an INVITE with 300 or more, and repeats that until the ACK comes.
        It has the INVITE's branch but no Route of its dialog (RFC 3261 17.1.1.3): nothing else says
        where it belongs. `own`: it has not passed on a phone's answer, so the ACK ends there; but
        what it passed on once it may repeat by itself."""
        self._refused[branch] = server, own and self._refused.get(branch, ("", True))[1]
        if len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    def refused_itself(self, branch: bytes) -> bool:
        """Was this INVITE refused by a server, and by no phone behind it?"""
        return self._refused.get(branch, ("", False))[1]

    def begun(self, branch: bytes) -> None:
        """A server has passed the INVITE with this branch of ours on, or answered it
        provisionally."""
        key = branch + b"INVITE"
        row = self._waiting.get(key)
        if row and not row[6]:
            self._waiting[key] = (*row[:6], True)

    def waiting(self, key: Key) -> Kept | None:
        """The request, if its answer is still waited for."""
        return self._waiting.get(key)

    def sent_since(self, server: str, since: float) -> set[Key]:
        """Those of a server's that came at `since` or later."""
        keys = set()
        for key in reversed(self._waiting):
            row = self._waiting[key]
            if row[4] < since:
                break
            if row[0] == server:
                keys.add(key)
        return keys

    def take(self, keys: set[Key], before: float, most: int) -> list[Row]:
        """Takes those that came at `before` or earlier away from their server, oldest first; from
        `keys` too. They are in `hedged` then."""
        rows = {key: self._waiting[key] for key in keys if key in self._waiting}
        oldest = sorted((row[4], key) for key, row in rows.items() if row[4] <= before)[:most]
        taken = []
        for _, key in oldest:
            keys.discard(key)
            row = self.answered(key)
            assert row is not None
            self.hedged[key] = row[0]
            taken.append(Row(*row[:5], moves=row[5] + 1, begun=row[6]))
        while len(self.hedged) > MAX_HEDGED:
            del self.hedged[next(iter(self.hedged))]
        return taken

    def passing_to(self, server: str) -> int:
        """How many responses and ACKs a server has not passed on."""
        return sum(row[0] == server for row in self._passed.values())

    def take_passed(self, server: str) -> list[Row]:
        """Takes the responses and ACKs that a server has not passed on away from it, oldest
        first."""
        keys = [key for key, row in self._passed.items() if row[0] == server]
        taken = [row for key in keys if (row := self.came_through(key))]
        return [Row(*row[:5], moves=row[5] + 1) for row in taken]

    def answered(self, key: Key) -> Kept | None:
        row = self._waiting.pop(key, None)
        if row:
            self._octets -= len(row[1])
        return row

    def move(self, server: str, now: float) -> int:
        """All that this server owes, and what ended there, is to be sent on, oldest first; returns
        how many it owes.

        Those too old to matter are left out, and so are requests whose 2xx it was about to pass on:
        that settles them, whereas a phone that answered has forgotten its INVITE."""
        self.expire(now)
        waiting = {key: row for key, row in self._waiting.items() if row[0] == server}
        passed = {key: row for key, row in self._passed.items() if row[0] == server}
        self._waiting = {key: row for key, row in self._waiting.items() if row[0] != server}
        self._passed = {key: row for key, row in self._passed.items() if row[0] != server}
        ended = [row for row in self._ended.values() if row[0] == server]
        self._ended = {key: row for key, row in self._ended.items() if row[0] != server}
        settled = {
            branch + method for branch, method, status, _ in passed if status.startswith(b"2")
        }
        self._octets -= sum(len(waiting[key][1]) for key in settled & waiting.keys())
        owed = [*(row for key, row in waiting.items() if key not in settled), *passed.values()]
        rows = [Row(*row[:5], moves=row[5] + 1, begun=row[6]) for row in (*owed, *ended)]
        self.moving.extend(sorted(rows, key=lambda row: row.since))
        return len(owed)

    def is_moving(self, data: bytes) -> bool:
        """Is this very INVITE, which a server had begun, among those taken from a server that went
        down?"""
        return any(row.begun and row.data == data for row in self.moving)

    def resume(self, rows: list[Row]) -> None:
        """These, kept while no server lived, are to be sent on now."""
        self.moving.extend(rows)
        self._octets += sum(len(row.data) for row in rows)

    def moved(self, most: int) -> list[Row]:
        """The next of what is to be sent on."""
        rows = [self.moving.popleft() for _ in range(min(most, len(self.moving)))]
        self._octets -= sum(len(row.data) for row in rows)
        return rows

    def expire(self, now: float) -> None:
        """Forgets what is too old, and the oldest of too much; to be called also while nothing is
        added.

        Looking for the oldest takes long in a dict from whose front many are gone, so it is not
        done each time."""
        self._due = now + ECHO
        for rows in (self._passed, self._ended):
            while rows:
                oldest = next(iter(rows))
                since = rows[oldest][4]
                if now - since <= ECHO:
                    self._due = min(self._due, since + ECHO)
                    break
                self._remove(rows, oldest)
        while self._waiting:
            key = next(iter(self._waiting))
            old = now - self._waiting[key][4] > WAITING
            if not old and self._rows <= MAX_ROWS and self._octets <= MAX_OCTETS:
                return
            self._counters["inflight.expired" if old else "inflight.overflow"] += 1
            self.answered(key)
        for rows in (self._ended, self._passed):
            while rows and (self._rows > MAX_ROWS or self._octets > MAX_OCTETS):
                self._counters["inflight.overflow"] += 1
                self._remove(rows, next(iter(rows)))
