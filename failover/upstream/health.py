"""Whether a server lives: four states, three signals, one table (rise and fall as HAProxy has
them).

A server in use that misses a heartbeat is FAILING and still used; after `fall` misses in a row it
is DOWN. One that is DOWN and answers is RECOVERING and not yet used; after `rise` answers in a row
it is UP. Refused (the operating system says that nobody listens there) is certain, so it counts at
once.

One that comes and goes is damped: the first time it is welcomed back at once, after that only once
it has answered without a break for 1 s, 2 s, 4 s ... 64 s. Each break counts, also one in a DOWN
that looks like any other, until there was none for a minute. Where nobody else takes new calls it
is not damped: better a server that flaps than none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

FORGET = 60.0  # seconds without a break after which all is forgotten
# seconds of answers without a break that suffice however often it went away; halved
LONGEST, LONGEST_AFTER = 64.0, 7
# for each break less than so many


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
    # the miss after `fall` of them, until then it stays
    FAILING: {ANSWER: UP, MISS: DOWN, REFUSED: DOWN},
    DOWN: {ANSWER: RECOVERING, MISS: DOWN, REFUSED: DOWN},
    # the answer after `rise` of them, until then it stays
    RECOVERING: {ANSWER: UP, MISS: DOWN, REFUSED: DOWN},
}
# What a state on trial waits for; it is left by that signal only once there were enough in a row.
TRIAL = {FAILING: MISS, RECOVERING: ANSWER}
ALIVE = frozenset({UP, FAILING})
# A state that is left by an answer only once they came without a break for long enough: breaks that
# cost nothing. In DOWN one, the crash itself; in FAILING, where it is used all the same, three in a
# minute are a busy computer.
DAMPED = {DOWN: 1, FAILING: 3}


@dataclass(frozen=True)
class Breaks:
    """How often answers have ceased lately, and when the last time."""

    count: int = 0
    last: float = 0.0

    def another(self, now: float) -> Breaks:
        return Breaks(self.count + 1 if self.count and now - self.last < FORGET else 1, now)

    def hold(self, free: int) -> float:
        """Seconds of answers without a break that are asked for now."""
        return (
            0.0
            if self.count <= free
            else LONGEST / 2 ** max(0, LONGEST_AFTER - (self.count - free))
        )


@dataclass(frozen=True)
class Health:
    """One server's. `count`: how many of the signal that its state is on trial for came in a row;
    `since`, `why`: when (monotonic seconds) and for what reason it came into this state. `steady`:
    since when it answers without a break; None: it does not. `breaks`: what has to be forgotten
    before it leaves DOWN, or FAILING, at once."""

    state: State
    since: float
    why: str
    count: int = 0
    steady: float | None = None
    breaks: dict[State, Breaks] = field(default_factory=lambda: dict.fromkeys(DAMPED, Breaks()))

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    @property
    def hold(self) -> float:
        """Seconds of answers without a break that this state is left after."""
        return self.breaks[self.state].hold(DAMPED[self.state]) if self.state in DAMPED else 0.0

    def after(
        self, signal: Signal, now: float, why: str, fall: int, rise: int, alone: bool = False
    ) -> Health:
        """The health once `signal` has come. `alone`: nobody else takes new calls."""
        if signal is not ANSWER:
            following = self._step(signal, now, why, fall, rise)
            return following._broken(now, why) if self._breaks(following) else following
        steady = now if self.steady is None else self.steady
        if now - steady >= self.hold or (alone and self.state is DOWN):
            return replace(self, steady=steady)._step(signal, now, why, fall, rise)
        if self.state is FAILING:
            return replace(self, steady=steady, count=0)
        times = self.breaks[DOWN].count
        held = f"answers, but was gone {times} times lately: has to answer for {self.hold:g} s"
        return replace(self, steady=steady, why=held, count=self.count + 1)

    def welcome(self, now: float, rise: int) -> Health:
        """The health once nobody else is left: one that is held back and answers is in use."""
        if self.state is DOWN and self.count >= rise:
            return replace(
                self, state=UP, since=now, why="answers, and nobody else is left", count=0
            )
        return self

    def _step(self, signal: Signal, now: float, why: str, fall: int, rise: int) -> Health:
        state, count = self.state, self.count
        if TRIAL.get(state) is not signal:
            state, count = HEALTH[state][signal], 0
        if TRIAL.get(state) is signal:
            count += 1
            if count >= (fall if signal is MISS else rise):
                state, count = HEALTH[state][signal], 0
        if state is self.state:
            return replace(self, count=count)
        return replace(self, state=state, since=now, why=why, count=count)

    def _breaks(self, following: Health) -> bool:
        """It answered, or was in use, and now it does not. One that was never there has broken
        nothing off."""
        used = self.state is UP or (self.state is FAILING and self.breaks[FAILING].count > 0)
        return self.steady is not None or (used and following.state is not self.state)

    def _broken(self, now: float, why: str) -> Health:
        breaks = {**self.breaks, self.state: self.breaks[self.state].another(now)}
        return replace(self, steady=None, breaks=breaks, why=why)
