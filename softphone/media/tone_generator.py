"""The audio source of a phone without a microphone: a gentle chime of two notes, so that one hears
and sees who is sending."""

from __future__ import annotations

import math
from array import array

from softphone.media.g711 import RATE

# (seconds after the start, frequency as a multiple): a major third upwards
NOTES = ((0.0, 1.0), (0.4, 1.25))
PERIOD = 1.6  # seconds
LOUDNESS = 0.25  # of full scale
ATTACK, FALL = 0.01, 0.2  # seconds


class RepeatedSource:
    """An AudioSource that plays the same samples over and over."""

    def __init__(self, period: array[int]) -> None:
        self._period = period
        self._at = 0

    def read(self, samples: int) -> array[int]:
        block = self._period[self._at : self._at + samples]
        while len(block) < samples:
            block += self._period[: samples - len(block)]
        self._at = (self._at + samples) % len(self._period)
        return block


class ToneSource(RepeatedSource):
    """`frequency` of the lower note in Hz; give each phone its own. The whole chime is computed
    here, once."""

    def __init__(self, frequency: float = 440.0) -> None:
        super().__init__(_chime(frequency))


def _chime(frequency: float) -> array[int]:
    return array(
        "h",
        [int(32767 * _loudness(index / RATE, frequency)) for index in range(int(PERIOD * RATE))],
    )


def _loudness(time: float, frequency: float) -> float:
    level = 0.0
    for start, multiple in NOTES:
        since = time - start
        if since >= 0:
            envelope = min(since / ATTACK, 1.0) * math.exp(-since / FALL)
            level += envelope * math.sin(2 * math.pi * frequency * multiple * since)
    return LOUDNESS * max(-1.0, min(level, 1.0))
