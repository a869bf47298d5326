"""When to ask a server whether it lives, and what its silence means: times in, times out.

A server is asked once an interval. Whatever it was sent is a question too: if nothing comes back
within a moment (a tenth of an interval, or twice the way there and back), it is asked once more at
once, so that a killed one refuses that question instead of waiting for the next heartbeat; and
again every moment for `fall` intervals, so that a network which loses every third datagram does not
look like death. Each interval of silence is a miss.

Overload is not death: a server that is too busy for its heartbeats lives as long as it answers or
passes on what it was sent, however late. One that merely repeats itself proves little, for a hung
server's timers do that too.

How often luck alone looks like death: a question and its answer both arrive with (1 - loss)^2, so
at 30 % loss each way 51 % fail. A heartbeat that fails is followed by 28 more questions before its
server is given up (fall 3, 0.145 s, one every 0.005 s): 0.51^29 = 3e-9 for each of 20 heartbeats a
second, once in six months. At 20 % loss 0.36^29: never.
"""

from __future__ import annotations

from collections import deque

MOMENT = 0.1  # of an interval
# intervals without an answer to anything, after which nothing else a server says is taken for life
TRUST = 20
REMEMBERED_TRIPS = 8


class Pulse:
    """One server's. All times are monotonic seconds; `interval` and `fall` are the settings."""

    def __init__(self, now: float, interval: float = 0.05, fall: int = 3) -> None:
        self.interval, self.fall = interval, fall
        # since when something waits for an answer and nothing was heard
        self._silent: float | None = None
        self._misses = 0  # told, of this silence
        self._sent = now  # the last message passed on to it
        self._answered = now  # when it last answered a heartbeat, or handled a message
        # the last heartbeat; the first is due at once, whatever the interval
        self._asked = float("-inf")
        self._trips: deque[float] = deque(maxlen=REMEMBERED_TRIPS)  # there and back, seconds

    @property
    def moment(self) -> float:
        """Seconds of silence that are worth a question. The shortest of the last ways there and
        back counts: one pause of the server makes many of them long."""
        return min(max(self.interval * MOMENT, 2 * min(self._trips, default=0.0)), self.interval)

    # -- what happens ------------------------------------------------------------------------------

    def sent(self, now: float) -> bool:
        """A message was passed on to it. True if nothing else was waiting: it is to be looked at a
        moment from now."""
        self._sent = now
        if self._silent is not None:
            return False
        self._silent, self._misses = now, 0
        return True

    def asked(self, now: float) -> None:
        """A heartbeat was sent."""
        self._asked = now
        if self._silent is None:
            self._silent, self._misses = now, 0

    def answered(self, asked: float, now: float) -> None:
        """The heartbeat of `asked` was answered. What was sent since then may still lie unread
        before a dead server."""
        self._answered = now
        self._trips.append(now - asked)
        self._silent, self._misses = (None if self._sent <= asked else now), 0

    def spoke(self, now: float, owing: bool, works: bool = False, last: bool = False) -> bool:
        """It sent something else; `owing`: requests still wait for answers; `works`: it has
        answered or passed on a message that it was sent. True if that is a sign of life, which
        repetitions are not for ever: a hung server's timers make them too, unless it is the `last`
        one and there is nobody better."""
        if works:
            self._answered = now
        if not last and now - self._answered > TRUST * self.interval:
            return False
        self._silent, self._misses = (now if owing else None), 0
        return True

    def forgive(self, now: float) -> None:
        """Nobody listened, so its silence means nothing."""
        if self._silent is not None:
            self._silent, self._misses = now, 0

    # -- what follows ------------------------------------------------------------------------------

    def due(self, now: float, hopeful: bool) -> bool:
        """Is it to be asked? `hopeful`: it is in use, or answered lately: worth more than a
        question an interval."""
        return now >= self._next_question(hopeful)

    def overdue(self, now: float) -> bool:
        """Has another interval gone by in silence? A tenth of one is left over for what is to be
        done about it."""
        return now >= self._next_miss()

    def missed(self) -> None:
        """The miss has been told."""
        self._misses += 1

    def deadline(self, hopeful: bool) -> float:
        """When to look again."""
        return min(self._next_question(hopeful), self._next_miss())

    def _next_question(self, hopeful: bool) -> float:
        regular = self._asked + self.interval
        if self._silent is None or not hopeful:
            return regular
        early = max(self._silent, self._asked) + self.moment
        return min(early, regular) if early - self._silent < self.fall * self.interval else regular

    def _next_miss(self) -> float:
        if self._silent is None:
            return float("inf")
        return self._silent + (self._misses + 1 - MOMENT) * self.interval
