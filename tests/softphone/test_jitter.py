"""The jitter buffer: what was said comes out in order, and what did not come in time is hidden."""

import random
from array import array

import pytest

from softphone.media.jitter_buffer import SILENCE, JitterBuffer

LOUD = 1000


def block(number, size=160):
    return array("h", [LOUD + number] * size)


def fill(buffer, numbers, start=0):
    for number in numbers:
        buffer.put((start + 160 * number) & 0xFFFFFFFF, block(number))


def numbers(blocks):
    return [samples[0] - LOUD if samples[0] >= LOUD else None for samples in blocks]


def test_it_waits_for_its_target_and_plays_in_order():
    buffer = JitterBuffer(target=4)
    fill(buffer, [0])
    assert buffer.get() == SILENCE
    fill(buffer, [2, 1])
    assert numbers(buffer.get() for _ in range(3)) == [0, 1, 2]


def test_timestamps_wrap_without_a_sound():
    buffer = JitterBuffer()
    fill(buffer, range(4), start=0xFFFFFFFF - 200)
    assert numbers(buffer.get() for _ in range(4)) == [0, 1, 2, 3]


def test_a_lost_packet_is_hidden_behind_a_softer_repeat():
    buffer = JitterBuffer()
    fill(buffer, [0, 1, 3])
    heard = [buffer.get() for _ in range(4)]
    assert numbers([heard[0], heard[1], heard[3]]) == [0, 1, 3]
    assert 0 < heard[2][0] < heard[1][0] and buffer.concealed == 1


def test_a_late_packet_is_dropped_and_counted():
    buffer = JitterBuffer()
    fill(buffer, [0, 1, 3])
    for _ in range(3):
        buffer.get()
    fill(buffer, [2])
    assert numbers([buffer.get()]) == [3]


def test_running_dry_fades_out_and_then_waits_for_the_target_again():
    buffer = JitterBuffer(target=4)
    fill(buffer, [0, 1])
    heard = [buffer.get() for _ in range(7)]
    peaks = [samples[0] for samples in heard]
    assert peaks[1] > peaks[2] > peaks[3] > peaks[4] > 0 == peaks[5]
    fill(buffer, [2])
    assert buffer.get() == SILENCE
    fill(buffer, [3])
    assert numbers([buffer.get(), buffer.get()]) == [2, 3]


def test_a_packet_that_comes_after_running_dry_is_still_played():
    buffer = JitterBuffer()
    fill(buffer, [0, 1])
    for _ in range(3):
        buffer.get()
    fill(buffer, [2, 3])
    assert numbers([buffer.get(), buffer.get()]) == [2, 3], "the delay grows instead of the loss"


def test_a_delay_that_is_never_needed_shrinks_without_losing_the_thread():
    buffer = JitterBuffer(target=4)
    fill(buffer, range(10))
    deepest = buffer.depth
    for number in range(10, 3000):
        buffer.get()
        fill(buffer, [number])
    assert buffer.depth <= 6 < deepest and buffer.concealed == 0


def test_jitter_within_the_delay_is_never_heard():
    buffer = JitterBuffer(target=6)
    fill(buffer, [0, 1, 2])
    heard = []
    for number in range(3, 403):
        heard.append(buffer.get())
        if number % 2 == 0:  # nothing, then two together
            fill(buffer, [number - 1, number])
    assert numbers(heard) == list(range(400)) and buffer.concealed == 0


def test_a_pause_with_a_jump_of_time_begins_afresh():
    buffer = JitterBuffer()
    fill(buffer, [0, 1])
    for _ in range(8):
        buffer.get()
    fill(buffer, [0, 1, 2], start=1_000_003)
    assert numbers(buffer.get() for _ in range(3)) == [0, 1, 2]


def test_a_jump_of_time_without_a_pause_begins_afresh_too():
    buffer = JitterBuffer()
    fill(buffer, [0, 1, 2])
    buffer.get()
    fill(buffer, [0, 1, 2], start=3_000_000_000)
    assert numbers(buffer.get() for _ in range(3)) == [0, 1, 2]


def test_other_packet_times_come_out_in_blocks_of_20_ms():
    # RFC 3551 4.2: a packet may hold 0 to 200 ms; some senders cut by bytes, not by milliseconds.
    for milliseconds in (1, 5, 10, 11, 15, 16, 20.125, 25, 30, 35, 48, 60, 120, 200):
        buffer = JitterBuffer()
        size = int(8 * milliseconds)
        for index in range(-(-1920 // size)):
            buffer.put(index * size, array("h", range(index * size, (index + 1) * size)))
        heard = array("h")
        for _ in range(12):
            heard += buffer.get()
        assert heard.tolist() == list(range(12 * 160)), milliseconds


@pytest.mark.parametrize("size", [40, 88, 120, 161, 200, 280, 1600])
def test_a_long_talk_in_packets_of_any_length_is_heard_whole(size):
    buffer, heard, ready = JitterBuffer(), array("h"), 0
    for tick in range(1, 500):
        while ready + size <= tick * 160:  # a packet leaves when its sound has been said
            buffer.put(ready, array("h", (1 + n % 30_000 for n in range(ready, ready + size))))
            ready += size
        heard += buffer.get()
    said = heard.tolist()
    start = said.index(1)
    if (
        size <= 320
    ):  # longer ones are begun with before the next is there: then the delay grows, nothing is lost
        assert (
            said[start:] == [1 + n % 30_000 for n in range(len(said) - start)]
            and buffer.concealed == 0
        )
    assert start < 2 * size + 800


def test_a_lost_packet_of_15_ms_leaves_a_hole_of_no_more():
    buffer = JitterBuffer()
    for number in (0, 1, 2, 4, 5, 6, 7):
        buffer.put(120 * number, array("h", [LOUD + number] * 120))
    heard = array("h")
    for _ in range(6):
        heard += buffer.get()
    assert [heard[120 * n + 60] - LOUD for n in (0, 1, 2, 4, 5, 6, 7)] == [0, 1, 2, 4, 5, 6, 7]
    assert heard[120 * 3 + 60] - LOUD == 2, "the hole is filled with what was heard before it"


def test_a_sender_that_changes_its_packet_time_in_mid_call_is_heard_on():
    buffer, time = JitterBuffer(), 0
    for size in [160] * 5 + [240] * 4 + [80] * 5 + [120] * 4:
        buffer.put(time, array("h", range(time, time + size)))
        time += size
    heard = array("h")
    for _ in range(time // 160):
        heard += buffer.get()
    assert heard.tolist() == list(range(time // 160 * 160))


def test_the_same_sound_cut_elsewhere_and_packets_without_any_do_no_harm():
    buffer = JitterBuffer()
    for start, size in ((0, 160), (80, 160), (160, 160), (0, 320), (320, 0), (320, 160)):
        buffer.put(start, array("h", range(start, start + size)))
    assert (buffer.get() + buffer.get() + buffer.get()).tolist() == list(range(480))


def test_a_flood_is_bounded_and_the_newest_wins():
    buffer = JitterBuffer(most=20)
    fill(buffer, range(15))
    assert buffer.depth == 20
    assert numbers([buffer.get()]) == [5]


@pytest.mark.parametrize("seed", range(100))
def test_whatever_comes_each_tick_gives_20_ms(seed):
    dice, buffer = random.Random(seed), JitterBuffer()
    for _ in range(60):
        if dice.random() < 0.5:
            assert len(buffer.get()) == 160
        else:
            buffer.put(
                dice.randrange(dice.choice((4000, 2**32))), array("h", [7] * dice.randrange(500))
            )
        assert buffer.depth <= 50
    for _ in range(40):
        buffer.get()
    assert buffer.depth < 4, "what stays is less than playing begins with"
