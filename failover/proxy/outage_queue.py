"""Messages kept while no server is up, and passed on in the moment one is.

Without a server the forwarder refuses what begins something new (503). A message of a dialog or
transaction under way is not refused: a phone that gets 503 to its BYE gives up, and the bill of
the call it has ended runs on. Such a message gets no answer at all, so its sender repeats it by
its own timers (RFC 3261 17.1.1.2, 17.1.2.2, 13.3.1.4).

 1. Of each message the newest copy is kept, with the time at which the first one came.
 2. BYE and CANCEL are kept until a server is up, however long that takes: nobody waits for their
    answers any more, but they end a call and its bill. So is the refusal of an INVITE, whose caller
    hears it ring until it comes (17.1.1.2). An INVITE that has a provisional response is kept for
    RINGING_SECONDS, everything else for 64*T1, after which no sender waits for it. An INVITE waits
    for a server that takes new calls or is draining, and its CANCEL with it, everything else for
    any that is up.
 3. A released message may be lost on its way to the server. So for REMEMBERED_SECONDS the next
    copy of it still counts as having come when the first one did.
 4. A message may be what the servers go down of. One that failed at more servers than there are
    has a pause: it waits for some seconds though a server is up, each time twice as long, and its
    copies wait too. So a hang-up is never lost, and one that kills does so ever more rarely.
 5. Number and octets are bounded. A message proves that it belongs to a call by the signed hint
    of its Route, by the signed branch of an answer, or by its INVITE in flight; where there is
    no room, the oldest without such a proof goes first, so that a stranger's invented hang-ups
    push out no real ones.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from failover.proxy.pending_messages import (
    RINGING_SECONDS,
    OneWayKey,
    PendingDatagram,
    RequestKey,
)
from sip.timing import PATIENCE

MAX_MESSAGES = 10_000
MAX_OCTETS = 16 << 20
KEPT_SECONDS = PATIENCE
REMEMBERED_SECONDS = 40.0  # after the release; no sender repeats a message for longer
HANG_UPS = ("BYE", "CANCEL")
FIRST_PAUSE_SECONDS = 4.0
MAX_DOUBLINGS = 7  # of the pause, which is at most eight and a half minutes


class KeptMessage(NamedTuple):
    """`ends_call`: it is a hang-up, or refuses an INVITE; `due`: it is not released before that
    time; `begins`: it waits for a server that takes what begins something (ServerTable.hot and
    .draining), and not for one that only keeps the calls it has."""

    datagram: PendingDatagram
    ends_call: bool
    due: float
    begins: bool = False

    def is_too_old(self, now: float) -> bool:
        limit = RINGING_SECONDS if self.datagram.lasting else KEPT_SECONDS
        return not self.ends_call and now - self.datagram.received_at > limit


class Release(NamedTuple):
    """A message that went on. `first_received`: when its first copy came."""

    first_received: float
    at: float


def pause_seconds(excess: int) -> float:
    """How long a message waits that failed at so many servers more than there are."""
    return FIRST_PAUSE_SECONDS * 2.0 ** min(excess - 1, MAX_DOUBLINGS)


class OutageQueue:
    """Counts in `counters`: `kept` (messages, not copies), `kept.expired`, `kept.overflow`."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        # Both are oldest first.
        self._proven: dict[RequestKey | OneWayKey, KeptMessage] = {}
        self._unproven: dict[RequestKey | OneWayKey, KeptMessage] = {}
        self._octets = 0
        # the messages that went on lately, the latest last
        self.released: dict[RequestKey | OneWayKey, Release] = {}
        self.paused_until = 0.0  # later than that no message in here has a pause

    def __len__(self) -> int:
        return len(self._proven) + len(self._unproven)

    def __contains__(self, key: RequestKey | OneWayKey) -> bool:
        return key in self._proven or key in self._unproven

    def get(self, key: RequestKey | OneWayKey) -> KeptMessage | None:
        return self._proven.get(key) or self._unproven.get(key)

    def add(self, key: RequestKey | OneWayKey, message: KeptMessage, proven: bool) -> bool:
        """Keeps a message, or the newer copy of one. False for a copy."""
        kept = self._proven if key in self._proven or proven else self._unproven
        datagram, earlier = message.datagram, self._unproven.pop(key, None) or kept.get(key)
        if earlier:
            self._octets -= len(earlier.datagram.data)
            datagram = datagram._replace(
                received_at=min(earlier.datagram.received_at, datagram.received_at),
                replayed=earlier.datagram.replayed or datagram.replayed,
                begun=earlier.datagram.begun or datagram.begun,
                provisional=earlier.datagram.provisional or datagram.provisional,
                failures=max(earlier.datagram.failures, datagram.failures),
            )
            message = message._replace(due=max(earlier.due, message.due))
        else:
            self._counters["kept"] += 1
        kept[key] = message._replace(datagram=datagram._replace(server=""))
        self.paused_until = max(self.paused_until, message.due)
        self._octets += len(datagram.data)
        while len(self) > MAX_MESSAGES or self._octets > MAX_OCTETS:
            self._remove_oldest()
        return earlier is None

    def release(self, now: float, begins: bool) -> list[PendingDatagram]:
        """Empties the queue but for what has a pause, and, unless `begins`, for what waits for a
        server that takes new things. Returns what is not too old, in the order in which it first
        came."""
        self.expire(now)
        released: dict[RequestKey | OneWayKey, PendingDatagram] = {}
        for kept in (self._proven, self._unproven):
            due = [
                key
                for key, message in kept.items()
                if message.due <= now and (begins or not message.begins)
            ]
            for key in due:
                released[key] = kept.pop(key).datagram
        self._octets -= sum(len(datagram.data) for datagram in released.values())
        for key, datagram in released.items():
            self.released.pop(key, None)
            self.released[key] = Release(datagram.received_at, now)
        while len(self.released) > MAX_MESSAGES:
            del self.released[next(iter(self.released))]
        return sorted(released.values(), key=lambda each: each.received_at)

    def first_received(self, key: RequestKey | OneWayKey, received_at: float) -> float:
        """When the first copy of a message came, of which one came at `received_at`."""
        release = self.released.get(key)
        return min(release.first_received, received_at) if release else received_at

    def clear(self) -> None:
        self.released.clear()
        self._proven.clear()
        self._unproven.clear()
        self._octets = 0

    def _remove_oldest(self) -> None:
        kept = self._unproven or self._proven
        self._octets -= len(kept.pop(next(iter(kept))).datagram.data)
        self._counters["kept.overflow"] += 1

    def expire(self, now: float) -> None:
        """Removes what is too old. Called several times a second."""
        while self.released:
            key, release = next(iter(self.released.items()))
            if now - release.at <= REMEMBERED_SECONDS:
                break
            del self.released[key]
        for kept in (self._proven, self._unproven):
            old = [key for key, message in kept.items() if message.is_too_old(now)]
            for key in old:
                self._octets -= len(kept.pop(key).datagram.data)
            if old:
                self._counters["kept.expired"] += len(old)
