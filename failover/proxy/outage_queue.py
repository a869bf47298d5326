"""Messages kept while no server lives, and passed on in the moment one does.

Without a server the forwarder refuses what begins something new (503). A message of a dialog or
transaction under way is not refused: a phone that hears 503 to its BYE gives up, and the bill of
the call it has ended runs on. Such a message gets no answer at all, so its sender repeats it by
its own timers (RFC 3261 17.1.1.2, 17.1.2.2, 13.3.1.4).

 1. Of each message the newest copy is kept, with the time at which the first one came.
 2. BYE and CANCEL are kept until a server lives, however long that takes: nobody waits for their
    answers any more, but they end a call and its bill. Everything else is kept for 64*T1, after
    which no sender waits for it.
 3. A released message may be lost on its way to the server. So for REMEMBERED_SECONDS the next
    copy of it still counts as having come when the first one did.
 4. Number and octets are bounded. A message proves that it belongs to a call by the signed hint
    of its Route, by the signed branch of an answer, or by its INVITE in flight; where there is
    no room, the oldest without such a proof goes first, so that a stranger's invented hang-ups
    push out no real ones.
"""

from __future__ import annotations

from collections import Counter

from failover.proxy.pending_messages import EchoKey, Key, Row
from sip.timing import PATIENCE

MAX_KEPT = 10_000  # messages
MAX_KEPT_OCTETS = 16 << 20
KEPT_SECONDS = PATIENCE
REMEMBERED_SECONDS = 40.0  # after the release; no sender repeats a message for longer
EXPIRY_INTERVAL = 1.0  # seconds between two searches for messages that are too old
HANG_UPS = ("BYE", "CANCEL")


class KeptMessages:
    """Counts in `counters`: `kept` (messages, not copies), `kept.expired`, `kept.overflow`."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        # Oldest first. A value is the row and whether it ends a call.
        self._proven: dict[Key | EchoKey, tuple[Row, bool]] = {}
        self._unproven: dict[Key | EchoKey, tuple[Row, bool]] = {}
        self._octets = 0
        self._next_expiry = 0.0
        # requests that went on: when the first copy of each came
        self.released: dict[Key | EchoKey, float] = {}
        self._released_at = 0.0

    def __len__(self) -> int:
        return len(self._proven) + len(self._unproven)

    def __contains__(self, key: Key | EchoKey) -> bool:
        return key in self._proven or key in self._unproven

    def keep(self, key: Key | EchoKey, row: Row, hang_up: bool, proven: bool, now: float) -> bool:
        """Keeps a message, or the newer copy of one. False for a copy."""
        if now >= self._next_expiry:
            self.expire(now)
        rows = self._proven if key in self._proven or proven else self._unproven
        earlier = self._unproven.pop(key, None) or rows.get(key)
        if earlier:
            self._octets -= len(earlier[0].data)
            since, moves = earlier[0].since, max(earlier[0].moves, row.moves)
            row = row._replace(since=min(since, row.since), moves=moves)
        else:
            self._counters["kept"] += 1
        rows[key] = row, hang_up
        self._octets += len(row.data)
        while len(self) > MAX_KEPT or self._octets > MAX_KEPT_OCTETS:
            self._remove_oldest()
        return earlier is None

    def release(self, now: float) -> list[Row]:
        """All that is kept and not too old, in the order in which it first came; then nothing is
        kept any more."""
        self.expire(now)
        kept = {**self._proven, **self._unproven}
        self.forget()
        self.released = {key: row.since for key, (row, _) in kept.items()}
        self._released_at = now
        return sorted((row for row, _ in kept.values()), key=lambda row: row.since)

    def since(self, key: Key | EchoKey, now: float) -> float:
        """When the first copy of a request came: `now`, if it is none of those released lately."""
        if self.released and now - self._released_at > REMEMBERED_SECONDS:
            self.released = {}
        return self.released.get(key, now)

    def forget(self) -> None:
        """Removes everything."""
        self.released = {}
        self._proven.clear()
        self._unproven.clear()
        self._octets = 0

    def _remove_oldest(self) -> None:
        rows = self._unproven or self._proven
        row, _ = rows.pop(next(iter(rows)))
        self._octets -= len(row.data)
        self._counters["kept.overflow"] += 1

    def expire(self, now: float) -> None:
        """Forgets what is too old."""
        self._next_expiry = now + EXPIRY_INTERVAL
        for rows in (self._proven, self._unproven):
            old = [
                key
                for key, (row, hang_up) in rows.items()
                if not hang_up and now - row.since > KEPT_SECONDS
            ]
            for key in old:
                self._octets -= len(rows.pop(key)[0].data)
            if old:
                self._counters["kept.expired"] += len(old)
