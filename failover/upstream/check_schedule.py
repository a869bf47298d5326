"""When to send a server a heartbeat, and when its silence counts as a miss. Times in, times out.

 1. A server is asked once an interval. Each interval of silence is a miss.
 2. A message that was passed on to it is a question too. If nothing comes back within
    `fast_interval` (HAProxy's fastinter: a tenth of an interval, or twice the round trip), a
    heartbeat is sent at once, so that a killed server refuses that one and need not wait for the
    next; and again every `fast_interval` for `fall` intervals, so that a network which loses every
    third datagram does not look like a dead server.
 3. Overload is not death. A server that is too busy for its heartbeats lives as long as it answers
    or passes on what it was sent, however late.
 4. Mere repetitions prove little, because a hung server's timers make them too. They count for
    TRUSTED_INTERVALS after the last answer, and longer only if no other server is left.

How often loss alone looks like death: a question and its answer both arrive with (1 - loss)^2, so
at 30 % loss each way 51 % fail. A heartbeat that fails is followed by 28 more before the server is
given up (fall 3, 0.145 s, one every 0.005 s): 0.51^29 = 3e-9 for each of 20 heartbeats a second,
once in six months. At 20 % loss 0.36^29: never.
"""

from __future__ import annotations

from collections import deque

FAST_SHARE = 0.1  # of an interval: the shortest `fast_interval`
TRUSTED_INTERVALS = 20
REMEMBERED_ROUND_TRIPS = 8


class CheckSchedule:
    """The schedule of one server's checks. All times are monotonic seconds. `fast` in the methods:
    it is in use, or answered lately, so it is worth more than one heartbeat an interval."""

    def __init__(self, now: float, interval: float = 0.05, fall: int = 3) -> None:
        self.interval, self.fall = interval, fall
        # Since when something waits for an answer and nothing was received; None: nothing waits.
        self._silent_since: float | None = None
        self._misses = 0  # counted, of this silence
        self._message_sent_at = now
        self._answered_at = now  # a heartbeat, or another message
        self._check_sent_at = float("-inf")  # so the first is due at once
        self._round_trips: deque[float] = deque(maxlen=REMEMBERED_ROUND_TRIPS)  # seconds

    @property
    def fast_interval(self) -> float:
        """Seconds of silence after which a heartbeat is sent early. It follows the shortest of the
        last round trips, because one pause of the server makes many of them long."""
        round_trip = min(self._round_trips, default=0.0)
        return min(max(self.interval * FAST_SHARE, 2 * round_trip), self.interval)

    # -- what happens ------------------------------------------------------------------------------

    def message_sent(self, now: float) -> bool:
        """A message was passed on to the server. True if nothing else was waiting, so that `fast`
        checks begin a `fast_interval` from now."""
        self._message_sent_at = now
        if self._silent_since is not None:
            return False
        self._silent_since, self._misses = now, 0
        return True

    def check_sent(self, now: float) -> None:
        """A heartbeat was sent."""
        self._check_sent_at = now
        if self._silent_since is None:
            self._silent_since, self._misses = now, 0

    def check_answered(self, sent_at: float, now: float) -> None:
        """The heartbeat of `sent_at` was answered. A message sent after it may still lie unread
        before a dead server."""
        self._answered_at = now
        self._round_trips.append(now - sent_at)
        self._silent_since = None if self._message_sent_at <= sent_at else now
        self._misses = 0

    def message_received(
        self, now: float, pending: bool, works: bool = False, last: bool = False
    ) -> bool:
        """The server sent a message. `pending`: requests still wait for answers; `works`: it has
        answered or passed on a message that it was sent; `last`: no other server is left. True if
        that is a sign of life (rule 4)."""
        if works:
            self._answered_at = now
        if not last and now - self._answered_at > TRUSTED_INTERVALS * self.interval:
            return False
        self._silent_since, self._misses = (now if pending else None), 0
        return True

    def restart_silence(self, now: float) -> None:
        """Nobody listened until now, so the silence until now means nothing."""
        if self._silent_since is not None:
            self._silent_since, self._misses = now, 0

    # -- what follows ------------------------------------------------------------------------------

    def check_due(self, now: float, fast: bool) -> bool:
        return now >= self._next_check(fast)

    def miss_due(self, now: float) -> bool:
        """Has another interval gone by in silence?"""
        return now >= self._next_miss()

    def count_miss(self) -> None:
        self._misses += 1

    def next_due(self, fast: bool) -> float:
        """When a check or a miss is due next."""
        return min(self._next_check(fast), self._next_miss())

    def _next_check(self, fast: bool) -> float:
        regular = self._check_sent_at + self.interval
        if self._silent_since is None or not fast:
            return regular
        early = max(self._silent_since, self._check_sent_at) + self.fast_interval
        is_early = early - self._silent_since < self.fall * self.interval
        return min(early, regular) if is_early else regular

    def _next_miss(self) -> float:
        if self._silent_since is None:
            return float("inf")
        # A tenth of the last interval is left for the failover itself.
        return self._silent_since + (self._misses + 1 - FAST_SHARE) * self.interval
