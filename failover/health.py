"""Whether a server lives: four states, three signals, one table (rise and fall as HAProxy has them).

A server in use that misses a heartbeat is FAILING and still used; after `fall` misses in a row it is DOWN. One that is
DOWN and answers is RECOVERING and not yet used; after `rise` answers in a row it is UP. Refused (the operating system
says that nobody listens there) is certain, so it counts at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


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
    FAILING: {ANSWER: UP, MISS: DOWN, REFUSED: DOWN},  # the miss after `fall` of them, until then it stays
    DOWN: {ANSWER: RECOVERING, MISS: DOWN, REFUSED: DOWN},
    RECOVERING: {ANSWER: UP, MISS: DOWN, REFUSED: DOWN},  # the answer after `rise` of them, until then it stays
}
# What a state on trial waits for; it is left by that signal only once there were enough in a row.
TRIAL = {FAILING: MISS, RECOVERING: ANSWER}
ALIVE = frozenset({UP, FAILING})


@dataclass(frozen=True)
class Health:
    """One server's. `count`: how many of the signal that its state is on trial for came in a row; `since`, `why`: when
    (monotonic seconds) and for what reason it came into this state."""

    state: State
    since: float
    why: str
    count: int = 0

    @property
    def alive(self) -> bool:
        return self.state in ALIVE

    def after(self, signal: Signal, now: float, why: str, fall: int, rise: int) -> Health:
        """The health once `signal` has come."""
        state, count = self.state, self.count
        if TRIAL.get(state) is not signal:
            state, count = HEALTH[state][signal], 0
        if TRIAL.get(state) is signal:
            count += 1
            if count >= (fall if signal is MISS else rise):
                state, count = HEALTH[state][signal], 0
        if state is self.state:
            return replace(self, count=count)
        return Health(state, now, why, count)
