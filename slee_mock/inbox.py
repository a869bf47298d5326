"""What has come and was not handled yet: heartbeats first, the rest in its order, nothing twice.

A server with much to do is not a dead one, so the forwarder's question whether it lives does not wait behind the work.
Emptying the socket at once also keeps the system from dropping what its buffer cannot hold. And whoever asks again what
still waits makes no more work: without that, a server that is late is sent more than one that is not, and stays late.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from plumbing.address import Address

MOST_WAITING = 10_000  # datagrams; seconds of work, what comes then waits in the socket's buffer
FIRST = b"OPTIONS "


class Datagram(NamedTuple):
    """`wall`: when it was read, which under load is long before it is handled."""

    data: bytes
    source: Address
    wall: float


class Inbox:
    """`clock` tells the time that datagrams are stamped with."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._first: deque[Datagram] = deque()
        self._rest: deque[Datagram] = deque()
        self._waiting: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._first) + len(self._rest)

    def fill(self, sock: socket.socket) -> int:
        """Takes all that a non-blocking socket holds, and there is room for; returns how many came while their like was
        waiting."""
        repeated = 0
        for _ in range(MOST_WAITING - len(self)):
            try:
                data, source = sock.recvfrom(65_535)
            except BlockingIOError:
                break
            except OSError:  # Windows reports what became of an earlier send here
                continue
            if data in self._waiting:
                repeated += 1
                continue
            self._waiting.add(data)
            queue = self._first if data.startswith(FIRST) else self._rest
            queue.append(Datagram(data, source[:2], self._clock()))
        return repeated

    def take(self, most: int) -> Iterator[Datagram]:
        """The next ones. Of more questions than that, every other one lets the rest have its turn."""
        for n in range(min(most, len(self))):
            queue = self._first if self._first and (n % 2 == 0 or not self._rest) else self._rest
            datagram = queue.popleft()
            self._waiting.discard(datagram.data)
            yield datagram
