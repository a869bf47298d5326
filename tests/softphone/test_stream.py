"""The sound of a call by literals and a clock of our own: what goes out at each tick, what each
datagram means."""

from array import array
from dataclasses import replace
from itertools import pairwise

import pytest

from sip.sdp import MediaDirection, MediaPlan
from softphone.media.g711 import PCMA, PCMU
from softphone.media.rtcp import ReportBlock, RtcpPacket
from softphone.media.rtp import Packet
from softphone.media.stream import Stream
from softphone.media.tone_generator import ToneSource

HERE, THERE = ("192.0.2.7", 4000), ("192.0.2.9", 5000)
PLAN = MediaPlan(THERE, 0, "PCMU", 101, MediaDirection.SENDRECV)
QUIET = array("h", [0] * 160)
LOUD = array("h", [12000] * 160)


class Numbers:
    """1, 2, 3 ... in place of chance."""

    def __init__(self, start=0):
        self.last = start

    def __call__(self):
        self.last += 1
        return self.last


def stream(agreed=PLAN, start=0):
    return Stream(agreed, Numbers(start), "cname", now=100.0, wall=1_000_000.0)


def sent(datagram):
    return Packet.parse(datagram[1])


def talk(one, other, seconds, start=100.0, said=LOUD, lose=()):
    """Two streams on one clock, every packet arriving 1 ms after it was sent. What `other`
    heard."""
    heard = []
    for tick in range(int(seconds * 50)):
        now = start + tick * 0.02
        packets = one.send(said, now), other.send(QUIET, now)
        if packets[0] and tick not in lose:
            other.receive(packets[0][1], HERE, now + 0.001)
        if packets[1]:
            one.receive(packets[1][1], THERE, now + 0.001)
        reports = [(one.report(now), other, HERE), (other.report(now), one, THERE)]
        for report, reader, (host, port) in reports:
            if report:
                reader.receive_report(report[1], (host, port + 1), now + 0.005)
        heard.append(other.play())
        one.play()
    return heard


def pair():
    return stream(), stream(replace(PLAN, remote=HERE), start=1000)


def test_every_tick_sends_20_ms_with_the_next_number_and_the_marker_on_the_first():
    alice = stream()
    packets = [sent(alice.send(LOUD, 100.0 + tick * 0.02)) for tick in range(3)]
    first = packets[0]
    assert [p.marker for p in packets] == [True, False, False]
    assert [p.sequence - first.sequence for p in packets] == [0, 1, 2]
    assert [p.timestamp - first.timestamp for p in packets] == [0, 160, 320]
    assert first.payload == PCMU.encode(LOUD) and first.payload_type == 0


def test_what_one_says_the_other_hears_and_both_meters_move():
    alice, bob = pair()
    heard = talk(alice, bob, 1.0)
    assert heard[-1] == PCMU.decode(PCMU.encode(LOUD))
    at_bob = bob.stats(101.0)
    assert (at_bob.packets_received, at_bob.lost) == (50, 0)
    assert (
        alice.stats(101.0).level_out
        == pytest.approx(at_bob.level_in, abs=0.02)
        == pytest.approx(0.366, abs=0.02)
    )


def test_the_gap_and_the_loss_of_a_second_without_packets_are_told():
    alice, bob = pair()
    talk(alice, bob, 3.0, lose=range(50, 100))
    told = bob.stats(103.0)
    assert told.lost == 50 and told.longest_gap_ms == pytest.approx(1020.0)
    assert alice.stats(103.0).longest_gap_ms == pytest.approx(20.0)


def test_hold_sends_nothing_hears_nothing_and_is_no_gap():
    alice, bob = pair()
    talk(alice, bob, 1.0)
    alice.configure(replace(PLAN, direction=MediaDirection.SENDONLY), held=True)
    bob.configure(replace(PLAN, remote=HERE, direction=MediaDirection.RECVONLY, held_there=True))
    before = alice.stats(101.0), bob.stats(101.0)
    assert all(block == QUIET for block in talk(alice, bob, 2.0, start=101.0)[10:])
    for author, was in ((alice, before[0]), (bob, before[1])):
        assert author.stats(103.0).packets_sent == was.packets_sent
    alice.configure(PLAN)
    bob.configure(replace(PLAN, remote=HERE))
    talk(alice, bob, 1.0, start=103.0)
    assert bob.stats(104.0).longest_gap_ms == pytest.approx(20.0)
    assert bob.stats(104.0).packets_received == before[1].packets_received + 50


def test_a_refresh_in_the_middle_of_a_silence_does_not_hide_it():
    alice, bob = pair()
    talk(alice, bob, 1.0)
    bob.configure(replace(PLAN, remote=HERE))
    talk(alice, bob, 1.0, start=102.0)
    assert bob.stats(103.0).longest_gap_ms == pytest.approx(1020.0)


def test_sound_after_hold_carries_the_marker_and_the_time_that_passed():
    alice = stream()
    first = sent(alice.send(LOUD, 100.0))
    alice.configure(PLAN, held=True)
    assert [alice.send(LOUD, 100.0 + tick * 0.02) for tick in range(1, 10)] == [None] * 9
    alice.configure(PLAN)
    again = sent(alice.send(LOUD, 100.2))
    assert (
        again.marker
        and again.sequence == first.sequence + 1
        and again.timestamp == first.timestamp + 1600
    )


def test_someone_who_only_listens_still_hears_us():
    alice = stream(replace(PLAN, direction=MediaDirection.SENDONLY))
    assert alice.send(LOUD, 100.0) is not None


def test_nothing_at_all_goes_to_the_address_of_an_old_hold():
    alice = stream(replace(PLAN, remote=("0.0.0.0", 5000), direction=MediaDirection.RECVONLY))
    assert (
        alice.send(LOUD, 100.0) is None
        and alice.report(200.0) is None
        and alice.goodbye(200.0) is None
    )


def test_a_digit_is_sent_instead_of_sound_and_told_once():
    alice, bob = pair()
    alice.digits.press("#")
    told = []
    for tick in range(12):
        now = 100.0 + tick * 0.02
        told.append(bob.receive(alice.send(LOUD, now)[1], HERE, now))
    assert [digit for digit in told if digit] == ["#"]
    assert sent(alice.send(LOUD, 101.0)).payload_type == 0


def test_the_other_codec_and_its_own_numbers_are_understood():
    bob = stream(replace(PLAN, remote=HERE, payload_type=110, codec="PCMA"))
    assert sent(bob.send(LOUD, 100.0)).payload == PCMA.encode(LOUD)
    for index, (number, codec) in enumerate([(110, PCMA), (8, PCMA), (0, PCMU)] * 4):
        packet = Packet(number, index, 160 * index, 7, codec.encode(LOUD))
        assert bob.receive(packet.to_bytes(), HERE, 100.0 + index * 0.02) is None
    assert bob.stats(101.0).packets_received == 12 and max(bob.play()) == pytest.approx(
        12000, rel=0.05
    )


def test_strangers_noise_and_oversize_are_refused():
    bob = stream()
    good = Packet(0, 1, 0, 7, b"\xff" * 160)
    stranger = ("198.51.100.6", 6000)
    for data, source in [
        (b"hello", THERE),
        (replace(good, payload_type=99).to_bytes(), THERE),
        (replace(good, payload=bytes(3000)).to_bytes(), THERE),
        (good.to_bytes(), stranger),
    ]:
        bob.receive(data, source, 100.0)
    bob.receive_report(b"hello", THERE, 100.0)
    bob.receive_report(RtcpPacket(7).to_bytes(), stranger, 100.0)
    assert bob.stats(100.0).packets_received == 0 and not any(bob.play())


def test_a_stream_that_moves_by_re_invite_is_served_and_heard_though_the_old_one_goes_on():
    bob, old, new = (
        stream(replace(PLAN, remote=(HERE[0], 40000))),
        (HERE[0], 40000),
        (HERE[0], 41000),
    )
    for index in range(50):
        bob.receive(
            Packet(0, index, 160 * index, 7, PCMU.encode(LOUD)).to_bytes(),
            old,
            100.0 + index * 0.02,
        )
    bob.receive_report(RtcpPacket(7).to_bytes(), (HERE[0], 40001), 101.0)
    bob.configure(replace(PLAN, remote=new))
    for index in range(50, 500):
        now = 100.0 + index * 0.02
        bob.receive(Packet(0, index, 160 * index, 7, PCMU.encode(QUIET)).to_bytes(), old, now)
        bob.receive_report(RtcpPacket(7).to_bytes(), (HERE[0], 40001), now)
        bob.receive(Packet(0, index, 160 * index, 8, PCMU.encode(LOUD)).to_bytes(), new, now)
        assert bob.send(LOUD, now)[0] == new
        if index > 60:
            assert max(bob.play()) > 10000
    assert bob.report(200.0)[0] == (HERE[0], 41001), "the reports move too"


def test_a_stranger_hears_nothing_of_a_call_and_a_nat_is_told():
    bob, stranger = stream(replace(PLAN, remote=("10.0.0.5", 5000))), ("10.0.0.66", 6000)
    for index in range(100):
        bob.receive(
            Packet(0, index, 160 * index, 7, bytes(160)).to_bytes(), stranger, 100.0 + index * 0.02
        )
        assert bob.send(LOUD, 100.0 + index * 0.02)[0] == ("10.0.0.5", 5000)
    told = bob.stats(102.0)
    assert (told.packets_received, told.elsewhere) == (0, "")
    for index in range(2):
        bob.receive(Packet(0, index, 0, 8, bytes(160)).to_bytes(), ("203.0.113.5", 1024), 103.0)
    assert bob.stats(103.0).elsewhere == "203.0.113.5"


@pytest.mark.parametrize("milliseconds", [5, 15, 25, 35, 100, 200])
def test_packets_of_any_length_are_heard(milliseconds):
    bob, size, loud = stream(), 8 * milliseconds, 0
    for tick in range(200):
        now = 100.0 + tick * 0.02
        for index in range(tick * 160 // size, (tick + 1) * 160 // size):
            sound = PCMU.encode(array("h", [12000] * size))
            bob.receive(Packet(0, index, size * index, 7, sound).to_bytes(), THERE, now)
        loud += max(bob.play()) > 10000
    assert loud > 170 and bob.stats(104.0).lost == 0


@pytest.mark.parametrize(("kind", "gap"), [(13, 20.0), (19, 20.0), (99, 1020.0)])
def test_what_arrives_is_not_lost_even_if_nobody_offered_it(kind, gap):
    bob = stream()
    for index in range(200):
        pause = index * 0.02 + (1.0 if index > 100 else 0.0)
        number = kind if index == 100 else 0
        payload = b"\x40" if index == 100 else PCMU.encode(LOUD)
        bob.receive(Packet(number, index, 160 * index, 7, payload).to_bytes(), THERE, 100.0 + pause)
    told = bob.stats(106.0)
    assert (told.lost, told.packets_received) == (0, 200)
    # RFC 3389: after comfort noise silence is meant, so the pause is no gap.
    assert bob.stats(105.0 - 0.02).longest_gap_ms == pytest.approx(gap)


def test_a_source_that_starts_anew_keeps_the_counts_of_the_one_before():
    alice, bob = pair()
    talk(alice, bob, 1.0, lose=[10])
    again = stream(start=5000)
    talk(again, bob, 1.0, start=101.0)
    told = bob.stats(102.0)
    assert (told.lost, told.packets_received) == (1, 49 + 49), (
        "the first packet of a new SSRC only announces it"
    )


def test_an_ssrc_that_is_ours_makes_us_take_another_once():
    alice = stream()
    ours = sent(alice.send(LOUD, 100.0))
    alice.receive(ours.to_bytes(), THERE, 100.0)
    changed = sent(alice.send(LOUD, 100.02)).ssrc
    assert changed != ours.ssrc
    for sequence in (8, 9, 10):
        alice.receive(replace(ours, ssrc=changed, sequence=sequence).to_bytes(), THERE, 100.04)
    assert sent(alice.send(LOUD, 100.06)).ssrc == changed, (
        "an echo of our own packets must not make us change for ever"
    )


def test_reports_tell_loss_jitter_and_the_round_trip():
    alice, bob = pair()
    talk(alice, bob, 20.0, lose=range(300, 310))
    assert alice.stats(120.0).round_trip_ms == pytest.approx(10.0, abs=0.1)
    assert bob.stats(120.0).round_trip_ms == pytest.approx(10.0, abs=0.1)


def test_a_report_comes_about_every_five_seconds_to_the_next_port():
    alice = stream()
    due = [
        tick * 0.02
        for tick in range(3000)
        if alice.send(QUIET, 100 + tick * 0.02) and alice.report(100 + tick * 0.02)
    ]
    assert due[0] == pytest.approx(2.5, abs=0.03)
    assert all(2.4 < later - earlier < 7.6 for earlier, later in pairwise(due))
    remote, data = alice.goodbye(160.0)
    assert remote == (THERE[0], THERE[1] + 1)
    assert stream(replace(PLAN, remote_rtcp=("192.0.2.9", 7))).report(103.0)[0] == ("192.0.2.9", 7)
    parsed = RtcpPacket.parse(data)
    assert b"\x05cname" in data and parsed.byes == [parsed.ssrc]


def test_who_only_listens_sends_a_receiver_report():
    bob = stream(replace(PLAN, direction=MediaDirection.RECVONLY))
    for index in range(4):
        bob.receive(Packet(0, index * 2, 0, 7, bytes(160)).to_bytes(), THERE, 100.0)
    parsed = RtcpPacket.parse(bob.report(103.0)[1])
    assert parsed.sender is None
    assert parsed.blocks == [
        ReportBlock(
            7, fraction_lost=3 * 256 // 7, lost=3, highest=6, jitter=parsed.blocks[0].jitter
        )
    ]


def test_after_their_goodbye_silence_is_no_gap():
    alice, bob = pair()
    talk(alice, bob, 1.0)
    bob.receive_report(alice.goodbye(101.0)[1], (HERE[0], HERE[1] + 1), 101.0)
    assert bob.stats(109.0).longest_gap_ms == pytest.approx(20.0)


def test_each_phones_tone_is_its_own_gentle_and_moves_the_meter():
    alice, bob = ToneSource(440), ToneSource(660)
    blocks = [alice.read(160) for _ in range(160)]
    assert blocks[0] != bob.read(160)
    peaks = [max(block) for block in blocks]
    assert max(peaks) < 32767 * 0.3 and min(peaks) < max(peaks) / 10
    assert blocks[:80] == blocks[80:] and {len(block) for block in blocks} == {160}
