"""The queue between socket and node: heartbeats first, all else in its order, no datagram twice.

A busy server is not a dead one, so heartbeats do not wait behind the work. The socket is emptied at
once, for the system drops what its buffer cannot hold. A retransmission of a message that is still
queued is dropped; otherwise an overloaded server would never catch up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from plumbing.address import Address
from plumbing.udp_batch import Channel

MOST_WAITING = 10_000  # datagrams; seconds of work, what comes then waits in the socket's buffer
# of all that waits: 10,000 datagrams may be 650 MB, and ordinary ones are 10
MOST_OCTETS = 16_000_000
FIRST = b"OPTIONS "
# A server that was frozen for more than STALE_SECONDS drops these from its socket.
BEGINNINGS = (b"REGISTER ", b"INVITE ")
STALE_SECONDS = 16.0


class Datagram(NamedTuple):
    """A datagram. `time`: the cluster time at which it was read, under load long before its
    turn."""

    data: bytes
    source: Address
    time: float


class ReceiveQueue:
    """`clock` gives the cluster time at which a datagram was read. `dropped` counts what was not
    queued, by reason."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: deque[Datagram] = deque()
        self._rest: deque[Datagram] = deque()
        self._waiting: set[bytes] = set()
        self._octets = 0
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._first) + len(self._rest)

    def fill(self, channel: Channel, frozen_seconds: float = 0.0) -> None:
        """Takes all that the socket holds, as long as there is room. `frozen_seconds`: how long
        this server has just been frozen."""
        for _ in range(MOST_WAITING):
            if len(self) >= MOST_WAITING or self._octets >= MOST_OCTETS:
                break
            datagrams, error = channel.receive()
            if not datagrams and not error:  # an error is what Windows reports of an earlier send
                break
            now = self._clock()
            for data, source in datagrams:
                if data in self._waiting:
                    self.dropped["repeated"] += 1
                    continue
                self._waiting.add(data)
                self._octets += len(data)
                queue = self._first if data.startswith(FIRST) else self._rest
                queue.append(Datagram(data, source, now))
        if frozen_seconds > STALE_SECONDS:
            self._drop_beginnings()

    def _drop_beginnings(self) -> None:
        """Drops queued REGISTERs and INVITEs: their phones have given up or gone to another server.
        The registrar may have forgotten the newer CSeq (registrar.MEMORY_SECONDS), and an INVITE
        would begin the call anew (Call.is_forgotten). A phone that still waits repeats them."""
        kept = [each for each in self._rest if not each.data.startswith(BEGINNINGS)]
        self.dropped["stale"] += len(self._rest) - len(kept)
        self._rest = deque(kept)
        self._waiting = {each.data for each in (*self._first, *kept)}
        self._octets = sum(map(len, self._waiting))

    def take(self, most: int) -> Iterator[Datagram]:
        """Takes the next ones. If more heartbeats than `most` are queued, every second one taken is
        another message."""
        for n in range(min(most, len(self))):
            queue = self._first if self._first and (n % 2 == 0 or not self._rest) else self._rest
            datagram = queue.popleft()
            self._waiting.discard(datagram.data)
            self._octets -= len(datagram.data)
            yield datagram
