"""The tones a telephone makes for its own user: ringing, ringback, busy, reorder.

They are computed, not recorded. Ringback, busy and reorder have the frequency and the cadences that
ITU-T E.180 recommends and most of Europe uses; the ring of an incoming call is ours. Blocks are
array('h'), 8,000 samples a second, one channel.
"""

from __future__ import annotations

import math
from array import array
from enum import Enum
from functools import cache

from softphone.media.g711 import RATE

LOUDNESS = 0.2  # of full scale
EDGE_SECONDS = 0.01  # fade in and out, so that a tone neither begins nor ends with a click


_RING_BURST = ((0.05, (660.0,)), (0.05, (880.0,))) * 10


class CallTone(Enum):
    """RING: they call us. RINGBACK: their phone rings. BUSY: they are busy. REORDER: the call
    cannot be had.

    The value is the cadence: (seconds, frequencies in Hz; none: a pause), played one after the
    other, over and over.
    """

    RING = (*_RING_BURST, (2.0, ()))
    RINGBACK = ((1.0, (425.0,)), (4.0, ()))
    BUSY = ((0.5, (425.0,)), (0.5, ()))
    REORDER = ((0.25, (425.0,)), (0.25, ()))


@cache
def samples_of(tone: CallTone) -> array[int]:
    """One period of it."""
    period = array("h")
    for seconds, frequencies in tone.value:
        length = round(seconds * RATE)
        period.extend(_sample(index, length, frequencies) for index in range(length))
    return period


def _sample(index: int, length: int, frequencies: tuple[float, ...]) -> int:
    """One sample of a step that has `length` of them."""
    if not frequencies:
        return 0
    edge = EDGE_SECONDS * RATE
    fade = min(1.0, (index + 1) / edge, (length - index) / edge)
    wave = sum(math.sin(2 * math.pi * hertz * index / RATE) for hertz in frequencies)
    return int(32767 * LOUDNESS * fade * wave / len(frequencies))
