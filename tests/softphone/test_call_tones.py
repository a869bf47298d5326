"""The tones for one's own user: their pitch and rhythm, counted in samples."""

from __future__ import annotations

from itertools import pairwise

import pytest

from softphone.media.call_tones import CallTone, samples_of
from softphone.media.g711 import RATE
from softphone.media.tone_generator import RepeatedSource

BLOCK = RATE // 50


def seconds_of(tone, seconds):
    source = RepeatedSource(samples_of(tone))
    return [source.read(BLOCK) for _ in range(int(seconds * 50))]


def loud(block):
    return max(map(abs, block)) > 1000


@pytest.mark.parametrize(
    ("tone", "on", "off"),
    [
        (CallTone.RINGBACK, 1.0, 4.0),
        (CallTone.BUSY, 0.5, 0.5),
        (CallTone.REORDER, 0.25, 0.25),
        (CallTone.RING, 1.0, 2.0),
    ],
)
def test_it_sounds_and_pauses_in_its_rhythm_for_a_minute(tone, on, off):
    heard = [loud(block) for block in seconds_of(tone, 60)]
    period = round((on + off) * 50)
    share = sum(heard) / len(heard)
    assert share == pytest.approx(on / (on + off), abs=0.05)
    assert heard[period : 2 * period] == heard[:period]


def test_ringback_is_a_tone_of_425_hertz_that_begins_softly():
    wave = [sample for block in seconds_of(CallTone.RINGBACK, 1) for sample in block]
    crossings = sum(one < 0 <= two for one, two in pairwise(wave))
    assert crossings == pytest.approx(425, abs=2)
    assert max(map(abs, wave[:8])) < 1000 < max(map(abs, wave)) < 32767
