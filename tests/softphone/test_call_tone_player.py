"""Which tone is heard when, and that the clock of tones and of packets does not drift."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from softphone.media.call_tone_player import CallTonePlayer, tone_of
from softphone.media.call_tones import CallTone
from softphone.media.g711 import BLOCK
from softphone.media.rtp import PacketClock
from softphone.ua.events import CallChanged, CallState, CallView, Direction

OUT = CallView("a", Direction.OUTGOING, "Bob", "sip:bob@x", CallState.CALLING, "", 0.0)
IN = replace(OUT, direction=Direction.INCOMING, state=CallState.INCOMING)


class Heard:
    def __init__(self) -> None:
        self.blocks: list[array] = []

    def write(self, samples: array) -> None:
        self.blocks.append(samples)

    @property
    def loud(self) -> bool:
        return any(max(block) > 1000 for block in self.blocks)


class Ear:
    """A player with two ears, and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ringer, self.loudspeaker = Heard(), Heard()
        self.player = CallTonePlayer(self.ringer, self.loudspeaker, lambda: self.now)

    def see(self, call: CallView, seconds: float = 0.0) -> None:
        self.player.show_event(CallChanged(self.now, call))
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            self.player.tick()


@pytest.fixture
def ear(qapp):
    made = Ear()
    yield made
    made.player.close()


@pytest.mark.parametrize(
    ("status", "tone"),
    [
        (486, CallTone.BUSY),
        (600, CallTone.BUSY),
        (603, CallTone.BUSY),
        (404, CallTone.REORDER),
        (503, CallTone.REORDER),
        (408, CallTone.REORDER),
        (487, None),
        (None, None),
    ],
)
def test_the_tone_of_a_call_that_failed(status, tone) -> None:
    ended = replace(OUT, state=CallState.ENDED, status=status)
    assert tone_of(ended, hung_up=False) is tone
    assert tone_of(ended, hung_up=True) is None
    assert tone_of(replace(ended, answered_at=1.0), hung_up=False) is None


def test_an_incoming_call_rings_at_the_ringer_until_it_is_answered(ear) -> None:
    ear.see(IN, 1.0)
    assert ear.ringer.loud and not ear.loudspeaker.blocks
    ear.see(replace(IN, state=CallState.TALKING), 0.1)
    count = len(ear.ringer.blocks)
    ear.see(replace(IN, state=CallState.TALKING), 1.0)
    assert len(ear.ringer.blocks) == count and ear.player.playing is None


def test_ringback_is_played_unless_the_network_plays_its_own(ear) -> None:
    ear.see(OUT, 0.5)
    assert ear.player.playing is None
    ear.see(replace(OUT, state=CallState.RINGING), 0.5)
    assert ear.loudspeaker.loud and not ear.ringer.blocks
    ear.see(replace(OUT, state=CallState.RINGING, media=object()), 0.5)
    assert ear.player.playing is None


def test_busy_is_played_for_three_seconds(ear) -> None:
    ear.see(OUT)
    ear.see(replace(OUT, state=CallState.ENDED, status=486), 2.5)
    assert ear.player.playing is CallTone.BUSY and ear.loudspeaker.loud
    ear.see(replace(OUT, id="another", state=CallState.ENDED, status=404), 1.0)
    assert ear.player.playing is None


def test_who_hangs_up_hears_nothing(ear) -> None:
    ear.see(replace(OUT, state=CallState.RINGING), 0.1)
    ear.see(replace(OUT, state=CallState.ENDING), 0.1)
    ear.see(replace(OUT, state=CallState.ENDED, status=408), 0.1)
    assert ear.player.playing is None


def test_an_hour_of_ringing_is_an_hour_of_blocks(ear) -> None:
    ear.see(IN)
    written, start = 0, ear.now
    for number in range(1, 3600 * 40):
        ear.now = start + number * 0.025  # Qt's timer is late every time
        ear.player.tick()
        written += len(ear.ringer.blocks)
        ear.ringer.blocks.clear()
    assert abs(written * 0.02 - 3600) < 0.1


def test_the_clock_of_packets_does_not_drift_in_an_hour() -> None:
    clock = PacketClock(5.0)
    now, done, skipped = 5.0, 0, 0
    number = 0
    while now < 5.0 + 3600:
        number += 1
        now = max(now, clock.deadline) + 0.0007 * (number % 7)  # late by up to 4 ms, each time
        missed, ticks = clock.due(now)
        done, skipped = done + ticks, skipped + missed
    assert abs(done + skipped - 3600 / 0.02) <= 1
    assert skipped == 0 and BLOCK == 160
