"""Meters: the peak level of audio, and the length of gaps in its arrival. Pure: blocks and `now`
in, numbers for a display out."""

from __future__ import annotations

from array import array

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
