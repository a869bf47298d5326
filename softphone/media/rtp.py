"""RTP packets and what a receiver learns from them (RFC 3550 5 and appendix A). Pure: bytes,
numbers and `now`."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from softphone.media.g711 import RATE

HEADER = struct.Struct(">BBHII")
MAX_DROPOUT = 3000
MAX_MISORDER = 100


class RtpError(ValueError):
    """These bytes are not an RTP packet."""


@dataclass(frozen=True)
class Packet:
    """One RTP packet; CSRCs, extension and padding are gone from `payload`."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    @classmethod
    def parse(cls, data: bytes) -> Packet:
        if len(data) < HEADER.size:
            raise RtpError("shorter than an RTP header")
        first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
        if first >> 6 != 2:
            raise RtpError("not RTP version 2")
        start, end = HEADER.size + 4 * (first & 15), len(data)
        if first & 0x10:
            if end < start + 4:
                raise RtpError("the header extension is cut off")
            start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
        if first & 0x20:
            if data[-1] == 0:
                raise RtpError("a padding of no bytes")
            end -= data[-1]
        if start > end:
            raise RtpError("header and padding are longer than the packet")
        return cls(second & 127, sequence, timestamp, ssrc, data[start:end], second >= 128)

    def to_bytes(self) -> bytes:
        second = self.payload_type | (128 if self.marker else 0)
        return HEADER.pack(0x80, second, self.sequence, self.timestamp, self.ssrc) + self.payload


class Sender:
    """Numbers the packets of one source. Time passes in samples whether or not anything is sent."""

    def __init__(self, ssrc: int, sequence: int, timestamp: int) -> None:
        self.ssrc = ssrc
        self.packets = 0
        self.octets = 0
        self.timestamp = timestamp & 0xFFFFFFFF
        self._sequence = sequence & 0xFFFF

    def packet(
        self, payload_type: int, payload: bytes, marker: bool, timestamp: int | None = None
    ) -> bytes:
        """The next packet; a telephone-event says the `timestamp` at which it began (RFC 4733
        2.1)."""
        stamp = self.timestamp if timestamp is None else timestamp
        sequence, self._sequence = self._sequence, (self._sequence + 1) & 0xFFFF
        self.packets += 1
        self.octets += len(payload)
        return Packet(payload_type, sequence, stamp, self.ssrc, payload, marker).to_bytes()

    def pass_time(self, samples: int) -> None:
        self.timestamp = (self.timestamp + samples) & 0xFFFFFFFF


class ReceiverStats:
    """The statistics of one source: order, loss (RFC 3550 A.1, A.3) and jitter (A.8)."""

    def __init__(self, ssrc: int, first_sequence: int) -> None:
        self.ssrc = ssrc
        self.received = 0
        self.jitter = 0.0  # samples
        self._base = self._highest = first_sequence
        self._suspect: int | None = None
        self._expected_before = self._received_before = 0
        self._transit: float | None = None

    def receive(self, packet: Packet, now: float) -> bool:
        """Count the packet; False for one too far out of order to believe."""
        ahead = (packet.sequence - self._highest) & 0xFFFF
        if ahead < MAX_DROPOUT:
            self._highest += ahead
        elif ahead > 0x10000 - MAX_MISORDER:
            pass  # late or twice, but counted (A.3)
        # two in a row: the other side started its numbers anew
        elif packet.sequence == self._suspect:
            self._restart(packet.sequence)
        else:
            self._suspect = (packet.sequence + 1) & 0xFFFF
            return False
        self._suspect = None
        self.received += 1
        self._measure(packet.timestamp, now)
        return True

    def _restart(self, sequence: int) -> None:
        # Packets that were lost until now stay lost: the new numbers begin with the same
        # difference.
        lost = self.lost
        self._highest = sequence
        self._base = sequence - self.received - lost
        self._transit = None

    def _measure(self, timestamp: int, now: float) -> None:
        transit = now * RATE - timestamp
        if self._transit is not None:
            change = transit - self._transit
            change -= round(change / 2**32) * 2**32  # the timestamp may have wrapped in between
            if abs(change) < 10 * RATE:  # a pause with a new timestamp is no jitter
                self.jitter += (abs(change) - self.jitter) / 16
        self._transit = transit

    @property
    def highest(self) -> int:
        """Highest sequence number, wraps included."""
        return self._highest

    @property
    def expected(self) -> int:
        return self._highest - self._base + 1

    @property
    def lost(self) -> int:
        """Packets expected and not received; negative when some came twice."""
        return self.expected - self.received

    def fraction_lost(self) -> int:
        """Loss since the last time this was asked, in 256ths (RFC 3550 A.3)."""
        expected = self.expected - self._expected_before
        received = self.received - self._received_before
        self._expected_before, self._received_before = self.expected, self.received
        lost = expected - received
        return min(lost * 256 // expected, 255) if expected > 0 and lost > 0 else 0


class PacketClock:
    """Ticks of one absolute clock: tick n is due at start + n * interval, however late the ticks
    before it were."""

    def __init__(self, start: float, interval: float = 0.02, burst: int = 3) -> None:
        self._start, self._interval, self._burst = start, interval, burst
        self._passed = 0

    @property
    def deadline(self) -> float:
        return self._start + self._passed * self._interval

    def due(self, now: float) -> tuple[int, int]:
        """(ticks to skip, ticks to do) by now. After a stall at most `burst` are made up for, the
        rest are skipped."""
        if now < self.deadline:
            return 0, 0
        ticks = int((now - self._start) / self._interval) + 1 - self._passed
        ticks = max(ticks, 1)  # the division may round to just before the deadline
        self._passed += ticks
        return max(ticks - self._burst, 0), min(ticks, self._burst)
