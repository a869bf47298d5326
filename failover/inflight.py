"""What the servers were sent and still owe: when one goes down, this is what the next one is sent at once.

A request waits until it is answered. What is never answered, a response or an ACK, counts as in flight until the
server has passed it on, or for a second.
Rows hold the datagrams as they were received, so that a replay takes the same way through the core as the first time.
Bounded in number, octets and age: a row that falls out costs one replay, and a phone's retransmission makes up for it.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from plumbing.address import Address

MAX_ROWS = 10_000
MAX_OCTETS = 32 << 20
WAITING = 32.0  # seconds; 64*T1, after that no client waits for an answer any more (RFC 3261 17.1.1.2)
MAX_REFUSED = 4_096
ECHO = 1.0  # seconds that a response or an ACK counts as in flight
Key = tuple[str, str]  # our branch, the CSeq's method
EchoKey = tuple[str, str, int, str]  # our branch in the request, the CSeq's method, the status (ACK: 0), the To tag


@dataclass(slots=True)
class Row:
    """One datagram on its way through a server. `moves`: how often the server that had it went down."""

    server: str
    data: bytes
    leg: str
    source: Address
    since: float
    moves: int = 0

    @property
    def replayed(self) -> bool:
        return self.moves > 0


class InFlight:
    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._waiting: dict[Key, Row] = {}  # oldest first, as Python's dicts keep their order
        self._passed: dict[EchoKey, Row] = {}  # likewise
        self._refused: dict[str, str] = {}  # our branch of a refused INVITE -> the server that waits for its ACK
        self.moving: deque[Row] = deque()  # taken from servers that went down, not yet sent on
        self._octets = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._passed)

    @property
    def owing(self) -> bool:
        """Some request waits for its answer."""
        return bool(self._waiting)

    def wait(self, key: Key, row: Row) -> None:
        """A request was sent. Its retransmission moves the row to where it went now, and makes it no younger."""
        earlier = self._waiting.get(key)
        if earlier:
            self._octets -= len(earlier.data)
            row.since, row.moves = earlier.since, max(earlier.moves, row.moves)
        self._waiting[key] = row
        self._octets += len(row.data)
        self._bound(row.since)

    def echo(self, key: EchoKey, row: Row) -> None:
        """Something was sent that gets no answer."""
        self.came_through(key)
        self._passed[key] = row
        self._octets += len(row.data)
        self._bound(row.since)

    def came_through(self, key: EchoKey) -> Row | None:
        """The server has passed it on, so nobody needs to do it again. A phone that is told twice that another one
        rings may be told so after the answer."""
        row = self._passed.pop(key, None)
        if row:
            self._octets -= len(row.data)
        return row

    def server_of(self, branch: str, method: str) -> str | None:
        """Who has this request, or the INVITE that it belongs to."""
        row = self._waiting.get((branch, method)) or self._waiting.get((branch, "INVITE"))
        return row.server if row else self._refused.get(branch)

    def refused(self, branch: str, server: str) -> None:
        """A server has answered an INVITE with 300 or more, and repeats that until the ACK comes. It has the INVITE's
        branch but no Route of its dialog (RFC 3261 17.1.1.3): nothing else says where it belongs."""
        self._refused[branch] = server
        if len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    def answered(self, key: Key) -> Row | None:
        row = self._waiting.pop(key, None)
        if row:
            self._octets -= len(row.data)
        return row

    def move(self, server: str, now: float) -> int:
        """All that this server owes is to be sent on, oldest first; returns how much that is.

        Those too old to matter are left out, and so are requests
        whose 2xx it was about to pass on: that settles them, whereas a phone that answered has forgotten its INVITE."""
        self._bound(now)
        waiting = {key: row for key, row in self._waiting.items() if row.server == server}
        passed = {key: row for key, row in self._passed.items() if row.server == server}
        self._waiting = {key: row for key, row in self._waiting.items() if row.server != server}
        self._passed = {key: row for key, row in self._passed.items() if row.server != server}
        settled = {key[:2] for key in passed if 200 <= key[2] < 300}
        self._octets -= sum(len(waiting[key].data) for key in settled & waiting.keys())
        taken = [*(row for key, row in waiting.items() if key not in settled), *passed.values()]
        for row in taken:
            row.moves += 1
        self.moving.extend(sorted(taken, key=lambda row: row.since))
        return len(taken)

    def moved(self, most: int) -> list[Row]:
        """The next of what is to be sent on."""
        rows = [self.moving.popleft() for _ in range(min(most, len(self.moving)))]
        self._octets -= sum(len(row.data) for row in rows)
        return rows

    def _bound(self, now: float) -> None:
        while self._passed:
            oldest = next(iter(self._passed))
            if now - self._passed[oldest].since <= ECHO:
                break
            self.came_through(oldest)
        while self._waiting:
            key = next(iter(self._waiting))
            old = now - self._waiting[key].since > WAITING
            if not old and len(self) <= MAX_ROWS and self._octets <= MAX_OCTETS:
                return
            self._counters["inflight.expired" if old else "inflight.overflow"] += 1
            self._octets -= len(self._waiting.pop(key).data)
        while self._passed and (len(self._passed) > MAX_ROWS or self._octets > MAX_OCTETS):
            self._counters["inflight.overflow"] += 1
            self.came_through(next(iter(self._passed)))
