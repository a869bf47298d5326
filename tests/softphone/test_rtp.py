"""RTP and RTCP as pure cores: packets, loss, jitter, pace, digits, and who is believed.

Invariant of the fuzz tests: any bytes either parse or raise RtpError or RtcpError.
"""

from dataclasses import replace

import pytest
from fuzz_kit import noise

from softphone.media.dtmf import DIGITS, DigitReceiver, DigitSender
from softphone.media.levels import GapMeter
from softphone.media.rtcp import (
    ReportBlock,
    RtcpError,
    RtcpPacket,
    SenderInfo,
    middle,
    ntp_time,
    round_trip,
)
from softphone.media.rtp import Packet, PacketClock, ReceiverStats, RtpError, Sender
from softphone.media.source_filter import SourceFilter

PACKET = Packet(0, 7, 160, 0xCAFE, b"sound")
BOB, MALLORY = ("192.0.2.9", 5000), ("198.51.100.6", 6000)


def test_a_packet_comes_back_as_it_was():
    marked = replace(PACKET, marker=True, payload_type=101)
    assert marked.to_bytes()[:4] == bytes([0x80, 0x80 | 101, 0, 7])
    assert Packet.parse(marked.to_bytes()) == marked


def test_csrcs_extension_and_padding_are_no_sound():
    plain = PACKET.to_bytes()
    dressed = (
        bytes([0x80 | 0x20 | 0x10 | 2])
        + plain[1:12]
        + bytes(8)
        + b"\xbe\xde\0\x01abcd"
        + b"sound"
        + b"\0\0\x03"
    )
    assert Packet.parse(dressed) == PACKET


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PACKET.to_bytes()[:11],
        b"\x40" + PACKET.to_bytes()[1:],
        b"\x8f" + PACKET.to_bytes()[1:],
        b"\x90" + PACKET.to_bytes()[1:14],
        b"\x90" + PACKET.to_bytes()[1:12] + b"\0\0\xff\xff",
        b"\xa0" + PACKET.to_bytes()[1:] + b"\0",
        b"\xa0" + PACKET.to_bytes()[1:] + b"\xff",
    ],
)
def test_what_is_no_packet_says_so(data):
    with pytest.raises(RtpError):
        Packet.parse(data)


def test_any_bytes_parse_or_raise_rtp_error():
    parsed = 0
    for data in noise(2000, longest=80):
        for bent in (data, b"\x80" + data):
            try:
                packet = Packet.parse(bent)
            except RtpError:
                continue
            assert Packet.parse(packet.to_bytes()) == packet
            parsed += 1
    assert parsed > 500


def test_sequence_and_timestamp_wrap():
    sender = Sender(1, 0xFFFF, 0xFFFFFFFF - 100)
    first = Packet.parse(sender.packet(0, b"", False))
    sender.pass_time(160)
    second = Packet.parse(sender.packet(0, b"", False))
    assert (first.sequence, second.sequence, second.timestamp) == (0xFFFF, 0, 59)


def heard(sequences, reception=None):
    reception = reception or ReceiverStats(0xCAFE, sequences[0])
    for index, sequence in enumerate(sequences):
        reception.receive(
            replace(PACKET, sequence=sequence & 0xFFFF, timestamp=160 * index), now=0.02 * index
        )
    return reception


def test_loss_is_what_was_expected_and_did_not_come():
    assert heard([10, 11, 12]).lost == 0
    assert heard([10, 12, 15]).lost == 3
    assert heard([10, 12, 11]).lost == 0, "late is not lost"
    assert heard([10, 11, 11]).lost == -1, "twice counts against it (RFC 3550 A.3)"


def test_loss_is_counted_across_the_wrap():
    reception = heard([65534, 65535, 1, 2])
    assert (reception.lost, reception.highest) == (1, 0x10002)


def test_the_fraction_lost_is_of_the_time_since_the_last_report():
    reception = heard([1, 2, 3, 5])
    assert reception.fraction_lost() == 256 // 5
    assert heard([6, 7], reception).fraction_lost() == 0


def test_one_wild_sequence_number_is_ignored_and_two_in_a_row_are_a_new_start():
    reception = heard([1, 2, 40000, 4])
    assert (reception.lost, reception.received) == (1, 3)
    heard([50000, 50001, 50002], reception)
    assert (reception.lost, reception.received) == (1, 5)


def test_jitter_follows_the_formula_of_the_rfc():
    reception = ReceiverStats(1, 0)
    for index, late in enumerate([0, 0.004, 0, 0.004]):
        reception.receive(
            replace(PACKET, sequence=index, timestamp=160 * index), now=0.02 * index + late
        )
    expected = 0.0
    for _ in range(3):
        expected += (0.004 * 8000 - expected) / 16
    assert reception.jitter == pytest.approx(expected)


def test_a_wrapping_timestamp_and_a_long_pause_are_no_jitter():
    reception = ReceiverStats(1, 0)
    for index, (timestamp, now) in enumerate(
        [(2**32 - 160, 0.0), (0, 0.02), (160, 0.04), (160 + 8000 * 600, 0.06)]
    ):
        reception.receive(replace(PACKET, sequence=index, timestamp=timestamp), now)
    assert reception.jitter == pytest.approx(0.0, abs=1e-6)


def test_ticks_keep_the_absolute_clock_however_late_each_is():
    pacer = PacketClock(start=100.0)
    assert pacer.due(99.99) == (0, 0)
    done = 0
    for tick in range(1000):
        late = 0.015 * (tick % 2)
        done += pacer.due(100.0 + tick * 0.02 + late)[1]
    assert done == 1000 and pacer.deadline == pytest.approx(120.0)


def test_a_stall_is_made_up_for_only_up_to_a_bound():
    pacer = PacketClock(start=100.0, burst=3)
    assert pacer.due(100.0) == (0, 1)
    assert pacer.due(100.041) == (0, 2)
    assert pacer.due(101.001) == (45, 3)
    assert pacer.deadline == pytest.approx(101.02)


def test_the_signalled_source_is_heard_at_once_and_a_stranger_is_not():
    source = SourceFilter(BOB)
    assert source.accepts(PACKET, BOB, now=1.0)
    for step in range(1, 20):
        assert not source.accepts(
            replace(PACKET, ssrc=666, sequence=step), MALLORY, now=1.0 + step * 0.02
        )
        assert source.accepts(replace(PACKET, sequence=7 + step), BOB, now=1.0 + step * 0.02)
    assert source.remote == BOB


def streaming(source, origin, start, packets=100, first=7, ssrc=0xCAFE):
    """Which of so many packets, 20 ms apart, are believed to be the other side's."""
    steps = range(packets)
    return [
        source.accepts(replace(PACKET, ssrc=ssrc, sequence=first + n), origin, start + n * 0.02)
        for n in steps
    ]


@pytest.mark.parametrize(
    "named",
    [
        "10.0.0.5",
        "172.17.0.2",
        "192.168.1.7",
        "100.64.3.4",
        "169.254.1.1",
        "127.0.0.1",
        "fd00::5",
        "fe80::5",
    ],
)
def test_behind_a_nat_media_goes_where_it_comes_from_once_two_packets_follow_each_other(named):
    source, seen = SourceFilter((named, 5000)), ("203.0.113.5", 1024)
    assert streaming(source, seen, 1.0, packets=2) == [False, True]
    assert source.remote == seen and source.elsewhere


def test_a_nat_within_the_building_is_known_by_where_signalling_comes_from():
    source, seen = (
        SourceFilter(("172.17.0.2", 5000), peers=["192.168.1.20"]),
        ("192.168.1.20", 1024),
    )
    assert streaming(source, seen, 1.0, packets=2) == [False, True] and source.remote == seen


@pytest.mark.parametrize(
    ("named", "stranger"),
    [
        ("192.0.2.9", "198.51.100.6"),
        ("192.0.2.9", "10.0.0.6"),
        ("10.0.0.5", "10.0.0.66"),
        ("127.0.0.1", "127.0.0.2"),
        ("192.168.1.7", "172.16.0.9"),
        ("2001:db8::9", "2001:db8::66"),
        ("fd00::5", "fd00::66"),
    ],
)
def test_strangers_do_not_get_the_microphone_of_a_call_whose_other_side_is_silent(named, stranger):
    # RFC 7362 4: latching is for NATs; here there is none.
    source = SourceFilter((named, 5000))
    assert not any(streaming(source, (stranger, 5000), 1.0))
    assert source.remote == (named, 5000) and not source.elsewhere
    assert streaming(source, (named, 5000), 4.0, ssrc=5) == [True] * 100, (
        "they have not kept the right one out either"
    )


def test_the_named_address_takes_the_stream_back_from_a_host_that_a_nat_explained():
    source, seen = SourceFilter(("10.0.0.5", 5000)), ("203.0.113.5", 1024)
    assert streaming(source, seen, 1.0)[-1]
    assert streaming(source, ("10.0.0.5", 5000), 3.0, packets=3, ssrc=5) == [False, True, True]
    assert source.remote == ("10.0.0.5", 5000) and not source.elsewhere


def test_another_port_of_the_named_host_is_believed_without_any_nat():
    source = SourceFilter(BOB)
    assert streaming(source, (BOB[0], 6000), 1.0, packets=2) == [False, True]
    assert source.remote == (BOB[0], 6000) and not source.elsewhere


@pytest.mark.parametrize("overlap", [2, 5000])
def test_late_packets_of_the_address_that_signalling_has_left_do_not_pull_ours_back(overlap):
    source, old, moved = SourceFilter((BOB[0], 40000)), (BOB[0], 40000), (BOB[0], 41000)
    streaming(source, old, 1.0)
    source.signal(moved)
    assert not any(streaming(source, old, 3.0, packets=2, first=107))
    for step in range(overlap):
        now = 3.1 + step * 0.02
        assert source.accepts(replace(PACKET, ssrc=5, sequence=step & 0xFFFF), moved, now), (
            "from its first packet on"
        )
        assert not source.accepts(replace(PACKET, sequence=109 + step), old, now)
    assert source.remote == moved


def test_a_side_that_moved_and_only_listens_is_served_though_the_old_stream_goes_on():
    source, old, moved = SourceFilter(BOB), BOB, (BOB[0], 41000)
    streaming(source, old, 1.0)
    source.signal(moved)
    heard = streaming(source, old, 3.0, packets=500, first=107)
    assert source.remote == moved
    assert not any(heard[:50]) and all(heard[60:]), "what the old one says is better than silence"
    assert streaming(source, moved, 13.0, packets=3, ssrc=5) == [False, True, True], (
        "and the new one better than both"
    )
    assert not any(streaming(source, old, 13.1, packets=10, first=700))


def test_what_a_nat_made_of_the_address_that_was_left_is_left_with_it_for_a_second():
    source, seen = SourceFilter(("10.0.0.5", 5000)), ("203.0.113.5", 1024)
    streaming(source, seen, 1.0)
    source.signal(("10.0.0.5", 6000))
    assert not any(streaming(source, seen, 3.0, packets=50))
    assert streaming(source, ("203.0.113.5", 1025), 3.5, packets=2, ssrc=5) == [False, True]
    source.signal(("10.0.0.5", 7000))
    assert streaming(source, ("203.0.113.5", 1025), 5.0, packets=60, ssrc=5)[-1], (
        "a NAT that kept the stream's port"
    )
    assert source.remote == ("203.0.113.5", 1025)


def test_an_address_that_was_left_may_be_named_again():
    source, moved = SourceFilter(BOB), (BOB[0], 41000)
    source.signal(moved)
    assert not any(streaming(source, BOB, 1.0, packets=10))
    source.signal(BOB)
    assert streaming(source, BOB, 11.0, packets=2) == [True, True]
    assert not any(streaming(source, moved, 11.0, packets=2))


def test_a_stream_may_move_once_its_old_address_is_silent():
    source, moved = SourceFilter(BOB), ("192.0.2.9", 7777)
    source.accepts(PACKET, BOB, now=1.0)
    accepted = [
        source.accepts(replace(PACKET, sequence=8 + step), moved, now=1.0 + step * 0.02)
        for step in range(30)
    ]
    assert accepted.index(True) == 25 and all(accepted[25:]) and source.remote == moved


def test_a_new_ssrc_of_the_same_source_needs_two_packets():
    source = SourceFilter(BOB)
    source.accepts(PACKET, BOB, now=1.0)
    assert not source.accepts(replace(PACKET, ssrc=5), BOB, now=1.02)
    assert source.accepts(replace(PACKET, ssrc=5, sequence=8), BOB, now=1.04)


def test_an_address_signalled_anew_is_believed_and_the_same_one_changes_nothing():
    source, moved = SourceFilter(BOB), (BOB[0], 1024)
    for sequence in (1, 2):
        source.accepts(replace(PACKET, sequence=sequence), moved, now=1.0)
    source.signal(BOB)
    assert source.remote == moved
    source.signal(MALLORY)
    assert source.remote == MALLORY and source.accepts(replace(PACKET, ssrc=9), MALLORY, now=1.1)


REPORT = RtcpPacket(
    ssrc=1,
    sender=SenderInfo(ntp=ntp_time(1_000_000.5), timestamp=160, packets=50, octets=8000),
    blocks=[
        ReportBlock(
            2, fraction_lost=10, lost=-3, highest=70000, jitter=12, lsr=0x10000, dlsr=0x8000
        )
    ],
    cname="a1b2c3",
)


@pytest.mark.parametrize(
    "report", [REPORT, replace(REPORT, sender=None), replace(REPORT, byes=[1, 2])]
)
@pytest.mark.parametrize("cname", ["", "a", "ab", "abc", "abcd", "zoë"])
def test_a_report_comes_back_as_it_was(report, cname):
    report = replace(report, cname=cname)
    data = report.to_bytes()
    assert len(data) % 4 == 0 and RtcpPacket.parse(data) == replace(report, cname="")
    assert bytes([1, len(cname.encode())]) + cname.encode() + b"\0" in data


def test_packets_of_an_unknown_type_are_passed_over():
    data = REPORT.to_bytes() + bytes([0x80, 204, 0, 2]) + b"\0\0\0\x01name"
    assert RtcpPacket.parse(data) == replace(REPORT, cname="")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes([0x80, 202, 0, 1, 0, 0, 0, 1]),
        bytes([0x40, 201, 0, 1, 0, 0, 0, 1]),
        bytes([0x81, 201, 0, 1, 0, 0, 0, 1]),
        bytes([0x80, 201, 0, 9, 0, 0, 0, 1]),
        bytes([0x80, 201, 0, 1, 0, 0, 0, 1, 0x80]),
        bytes([0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 203, 0, 0]),
        bytes([0xA0, 201, 0, 1, 0, 0, 0, 9]),
    ],
)
def test_what_is_no_report_says_so(data):
    with pytest.raises(RtcpError):
        RtcpPacket.parse(data)


def test_any_bytes_parse_or_raise_rtcp_error():
    for number, rest in enumerate(noise(2000, longest=90)):
        head = bytes([number % 256, 200 + number % 4])
        for data in (head + rest, bytes([0x80, 201, 0, 1, 0, 0, 0, 1]) + head + rest, rest):
            try:
                RtcpPacket.parse(data)
            except RtcpError:
                continue


def test_the_round_trip_is_what_the_other_side_did_not_keep():
    sent, came = ntp_time(1000.0), ntp_time(1000.75)
    block = ReportBlock(1, 0, 0, 0, 0, lsr=middle(sent), dlsr=int(0.5 * 65536))
    assert round_trip(block, came) == pytest.approx(0.25, abs=1e-4)
    assert round_trip(replace(block, lsr=0), came) is None
    assert round_trip(replace(block, dlsr=5 << 16), came) is None, (
        "a delay longer than the time that passed"
    )


def events(sender, ticks):
    return [sender.next(160 * tick) for tick in range(ticks)]


def test_a_digit_lasts_100_ms_and_ends_three_times_at_the_timestamp_it_began():
    sender = DigitSender()
    sender.press("5")
    sent = events(sender, 10)
    payloads = [event[0] for event in sent if event]
    assert sent[8:] == [None, None]
    assert {event[1] for event in sent if event} == {0}
    assert [event[2] for event in sent if event] == [True] + [False] * 7
    assert [int.from_bytes(p[2:], "big") for p in payloads] == [
        160,
        320,
        480,
        640,
        800,
        960,
        960,
        960,
    ]
    assert [p[1] & 0x80 for p in payloads] == [0] * 5 + [0x80] * 3


def test_every_digit_arrives_once_though_packets_are_lost_or_doubled():
    sender, receiver = DigitSender(), DigitReceiver()
    for digit in DIGITS:
        sender.press(digit)
    sent = [event for event in events(sender, 200) if event]
    kept = [event for index, event in enumerate(sent) if index % 4 == 3]
    told = [receiver.receive(payload, began) for payload, began, _ in kept + kept[-1:]]
    assert "".join(digit for digit in told if digit) == DIGITS


def test_an_old_event_that_comes_again_is_no_new_digit():
    receiver = DigitReceiver()
    first, second = b"\x01\x8a\x03\xc0", b"\x02\x0a\x00\xa0"
    assert [
        receiver.receive(first, 0),
        receiver.receive(second, 1600),
        receiver.receive(first, 0),
    ] == ["1", "2", None]
    assert receiver.receive(b"\x01", 3200) is None and receiver.receive(b"\x40\0\0\0", 3200) is None


@pytest.mark.parametrize("wrong", ["", "12", "x", "٣"])
def test_only_digits_can_be_pressed(wrong):
    with pytest.raises(ValueError):
        DigitSender().press(wrong)


def test_digits_wait_only_up_to_a_bound():
    sender = DigitSender()
    with pytest.raises(ValueError, match="wait"):
        for _ in range(100):
            sender.press("1")


def test_the_longest_gap_is_between_arrivals_and_hold_does_not_count():
    gap = GapMeter()
    assert gap.longest(99.0) == 0.0, "nothing has come yet"
    for now in (100.0, 100.02, 100.07):
        gap.arrive(now)
    gap.reset()
    gap.arrive(200.0)
    assert gap.longest(200.01) == pytest.approx(0.05)
    assert gap.longest(201.0) == pytest.approx(1.0), "a silence that lasts counts too"
