"""The health of a server: four states, three signals, one table. `rise` and `fall` are HAProxy's.

1. A server in use that misses a check is FAILING and still used. After `fall` misses in a row it
   is DOWN.
2. A server that is DOWN and answers is RECOVERING and not yet used. After `rise` answers in a row
   it is UP.
3. A refusal (ICMP port unreachable) is certain: it counts at once.
4. Flap damping: the first time that a server comes back it is used at once. After that it must
   answer without a break for 1 s, 2 s, 4 s ... 64 s before it leaves DOWN. Every break counts,
   also one while it is DOWN, until there was none for a minute.
5. Where no other server takes new calls, damping does not apply: a server that flaps is better
   than none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

FLAP_MEMORY_SECONDS = 60.0  # without a break, after which all breaks are forgotten
MAX_HOLD_SECONDS = 64.0  # asked for after MAX_HOLD_BREAKS; half as much for one break less
MAX_HOLD_BREAKS = 7


class State(str, Enum):
    UP = "UP"
    FAILING = "FAILING"
    DOWN = "DOWN"
    RECOVERING = "RECOVERING"


class Signal(str, Enum):
    ANSWER = "answer"  # a heartbeat was answered
    MISS = "miss"  # an interval went by without an answer
    REFUSED = "refused"  # ICMP port unreachable


UP, FAILING, DOWN, RECOVERING = State
ANSWER, MISS, REFUSED = Signal

HEALTH = {
    UP: {ANSWER: UP, MISS: FAILING, REFUSED: DOWN},
    FAILING: {ANSWER: UP, MISS: DOWN, REFUSED: DOWN},  # MISS: the one after `fall` of them
    DOWN: {ANSWER: RECOVERING, MISS: DOWN, REFUSED: DOWN},
    RECOVERING: {ANSWER: UP, MISS: DOWN, REFUSED: DOWN},  # ANSWER: the one after `rise` of them
}
# The signal that these states count: only enough of it in a row changes the state.
COUNTED = {FAILING: MISS, RECOVERING: ANSWER}
ALIVE = frozenset({UP, FAILING})
# The states whose end by an ANSWER is damped, and how many breaks cost nothing. In DOWN one, the
# crash itself. In FAILING, where the server is used all the same, three in a minute are a busy
# computer.
FREE_BREAKS = {DOWN: 1, FAILING: 3}


@dataclass(frozen=True)
class Breaks:
    """How often answers have ceased lately, and when the last time."""

    count: int = 0
    last_at: float = 0.0

    def plus_one(self, now: float) -> Breaks:
        recent = self.count and now - self.last_at < FLAP_MEMORY_SECONDS
        return Breaks(self.count + 1 if recent else 1, now)

    def hold_seconds(self, free: int) -> float:
        """How long answers must come without a break; `free` breaks cost nothing."""
        if self.count <= free:
            return 0.0
        return MAX_HOLD_SECONDS / 2.0 ** max(0, MAX_HOLD_BREAKS - (self.count - free))


@dataclass(frozen=True)
class Health:
    """One server's health.

    `since`, `why`: when (monotonic seconds) and why it came into this state. `count`: how many of
    the state's COUNTED signal came in a row. `steady_since`: since when it answers without a break;
    None: it does not. `breaks`: by the damped state in which they happened.
    """

    state: State
    since: float
    why: str
    count: int = 0
    steady_since: float | None = None
    breaks: dict[State, Breaks] = field(
        default_factory=lambda: dict.fromkeys(FREE_BREAKS, Breaks())
    )

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    @property
    def hold_seconds(self) -> float:
        """How long it must answer without a break before it leaves this state."""
        if self.state not in FREE_BREAKS:
            return 0.0
        return self.breaks[self.state].hold_seconds(FREE_BREAKS[self.state])

    def after(
        self, signal: Signal, now: float, why: str, fall: int, rise: int, alone: bool = False
    ) -> Health:
        """The health once `signal` has come. `alone`: no other server takes new calls."""
        if signal is not ANSWER:
            following = self._step(signal, now, why, fall, rise)
            return following._broken(now, why) if self._is_break(following) else following
        steady_since = now if self.steady_since is None else self.steady_since
        steady = replace(self, steady_since=steady_since)
        if now - steady_since >= self.hold_seconds or (alone and self.state is DOWN):
            return steady._step(signal, now, why, fall, rise)
        if self.state is FAILING:
            return replace(steady, count=0)
        times = self.breaks[DOWN].count
        held = (
            f"answers, but was gone {times} times lately: has to answer for {self.hold_seconds:g} s"
        )
        return replace(steady, why=held, count=self.count + 1)

    def undamped(self, now: float, rise: int) -> Health:
        """The health where no other server is left: UP if only damping keeps it DOWN."""
        if self.state is DOWN and self.count >= rise:
            return replace(
                self, state=UP, since=now, why="answers, and nobody else is left", count=0
            )
        return self

    def _step(self, signal: Signal, now: float, why: str, fall: int, rise: int) -> Health:
        state, count = self.state, self.count
        if COUNTED.get(state) is not signal:
            state, count = HEALTH[state][signal], 0
        # not else: the signal that leads into a state is the first that it counts
        if COUNTED.get(state) is signal:
            count += 1
            if count >= (fall if signal is MISS else rise):
                state, count = HEALTH[state][signal], 0
        if state is self.state:
            return self if count == self.count else replace(self, count=count)
        return replace(self, state=state, since=now, why=why, count=count)

    def _is_break(self, following: Health) -> bool:
        """It answered, or was in use, and now it does not. A server that never answered does not
        break anything off."""
        used = self.state is UP or (self.state is FAILING and self.breaks[FAILING].count > 0)
        return self.steady_since is not None or (used and following.state is not self.state)

    def _broken(self, now: float, why: str) -> Health:
        # Health.after() calls this on the state that follows: the break is counted in that one.
        breaks = {**self.breaks, self.state: self.breaks[self.state].plus_one(now)}
        return replace(self, steady_since=None, breaks=breaks, why=why)
