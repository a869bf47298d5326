"""Meters: the peak level of audio, the length of gaps in its arrival, and its absence. Pure: blocks
and `now` in, numbers for a display out."""

from __future__ import annotations

from array import array

SILENCE_STEP = 5  # seconds of silence after which it is told, and told anew
DECAY = 0.85  # per block of 20 ms: a bar falls to a third in about 140 ms


class PeakMeter:
    """Peak of the last block, 0..1 of full scale, falling gently."""

    def __init__(self) -> None:
        self.level = 0.0

    def hear(self, samples: array[int]) -> None:
        self.level = (
            max(max(samples), -min(samples), int(self.level * DECAY * 32768)) / 32768
            if samples
            else 0.0
        )


class GapMeter:
    """The longest pause between two arrivals, counted from the first one after each `reset`;
    seconds."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._last: float | None = None

    def arrive(self, now: float) -> None:
        self._longest = self.longest(now)
        self._last = now

    def reset(self) -> None:
        """Nothing is wanted now (hold), or nothing has come yet: the pause until the next arrival
        does not count."""
        self._last = None

    def longest(self, now: float) -> float:
        """Longest pause so far, one that still lasts included."""
        return max(self._longest, now - self._last) if self._last is not None else self._longest


class SilenceMeter:
    """How long one call has brought no packets though it should."""

    def __init__(self) -> None:
        self._packets = -1
        self._since = 0.0

    def look(self, packets: int, is_due: bool, now: float) -> int:
        """Whole seconds of silence, in steps of SILENCE_STEP; 0 while sound comes or none is due.
        `packets`: received so far."""
        if not is_due or packets != self._packets:
            self._packets, self._since = packets, now
        return int(now - self._since) // SILENCE_STEP * SILENCE_STEP
