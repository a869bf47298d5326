"""Messages on their way across the figure: which is where at a given moment. Pure.

A real message crosses the forwarder in a fraction of a millisecond. The figure shows each for LASTS
seconds, those of one call one after the other, faster when many wait, so that the eye can follow
and yet never falls far behind.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

LASTS = 0.4  # s, from one end of the route to the other
HURRY = 4  # that many waiting behind it: twice as fast
WAITING = 24  # per call; more than this are not shown


@dataclass(frozen=True)
class MessageAnimation:
    """A message drawn as `label` along the nodes of `route`; `kind`: "request", "answer", "refusal"
    or "replay"."""

    route: tuple[str, ...]
    label: str
    kind: str


class Frame(NamedTuple):
    """A moment of the slow replay: when it was, what is said, and the message at `fraction` of its
    way."""

    when: str
    words: str
    travel: MessageAnimation | None
    fraction: float


@dataclass(frozen=True)
class Position:
    """`fraction` of the whole route is behind it."""

    travel: MessageAnimation
    fraction: float


@dataclass
class Lane:
    """The messages of one call, in order."""

    waiting: deque[MessageAnimation]
    moving: MessageAnimation | None = None
    started: float = 0.0
    lasts: float = LASTS


class AnimationQueue:
    """`now` is monotonic seconds throughout."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}

    @property
    def busy(self) -> bool:
        return bool(self._lanes)

    def add(self, call: str, travel: MessageAnimation, now: float) -> None:
        lane = self._lanes.setdefault(call, Lane(deque()))
        if len(lane.waiting) >= WAITING:
            return
        lane.waiting.append(travel)
        if lane.moving is None:
            self._next(lane, now)

    def positions(self, now: float) -> list[Position]:
        """The messages on the screen at `now`; those that have arrived are forgotten."""
        shown = []
        for call, lane in list(self._lanes.items()):
            while lane.moving and now >= lane.started + lane.lasts:
                self._next(lane, lane.started + lane.lasts)
            if lane.moving:
                shown.append(Position(lane.moving, max(0.0, (now - lane.started) / lane.lasts)))
            else:
                del self._lanes[call]
        return shown

    @staticmethod
    def _next(lane: Lane, start: float) -> None:
        lane.moving = lane.waiting.popleft() if lane.waiting else None
        lane.started = start
        lane.lasts = LASTS / 2 if len(lane.waiting) >= HURRY else LASTS
