"""One audio stream, both ways: what to send at each tick and what each arriving datagram means.

Pure: the session (session.py) owns the sockets, the clock and the thread and tells the stream what
happened and when.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from sip.sdp import TELEPHONE_EVENT, Address, MediaDirection, MediaPlan
from softphone.media.dtmf import DigitReceiver, DigitSender
from softphone.media.g711 import BLOCK, CODECS, RATE, Codec
from softphone.media.jitter_buffer import SILENCE, JitterBuffer
from softphone.media.levels import GapMeter, PeakMeter
from softphone.media.rtcp import (
    ReportBlock,
    RtcpError,
    RtcpPacket,
    SenderInfo,
    middle,
    ntp_time,
    round_trip,
)
from softphone.media.rtp import Packet, ReceiverStats, RtpError, Sender
from softphone.media.source_filter import SourceFilter

Datagram = tuple[Address, bytes]

REPORT_INTERVAL = 5.0  # seconds, the least of RFC 3550 6.2; varied by half of it each way (6.3.1)
LONGEST_PAYLOAD = 1600  # 200 ms
NOWHERE = ("0.0.0.0", "::")
COMFORT_NOISE = (13, 19)  # RFC 3389 5.3; 19 is what drafts of it used and some phones still send


@dataclass(frozen=True)
class MediaStats:
    """The statistics of a stream, for a display. `in` is what comes from the other side, `out` what
    goes there.

    Levels: 0..1, the peak of the last 20 ms, falling gently. longest_gap_ms: longest pause between
    two arrivals while both sides were talking (start-up and hold do not count; one that still lasts
    does). elsewhere: the host our sound goes to if that is not the one the other side named (it is
    behind a NAT), else "".
    """

    packets_sent: int = 0
    packets_received: int = 0
    lost: int = 0
    jitter_ms: float = 0.0
    longest_gap_ms: float = 0.0
    level_in: float = 0.0
    level_out: float = 0.0
    round_trip_ms: float | None = None
    codec: str = ""
    elsewhere: str = ""


class Stream:
    """`new_number` gives random 32-bit numbers; `wall` is the time of day that belongs to `now`."""

    def __init__(
        self, plan: MediaPlan, new_number: Callable[[], int], cname: str, now: float, wall: float
    ) -> None:
        self.digits = DigitSender()
        self._new_number = new_number
        self._cname = cname
        self._wall_offset = wall - now
        # RFC 3550 5.1: random, and far from a wrap
        self._sender = Sender(new_number(), new_number() >> 17, new_number())
        self._source = SourceFilter(plan.remote, plan.peers)
        self._reception: ReceiverStats | None = None
        self._reception_reported = 0
        self._lost_before = 0  # by sources that are gone
        self._packets_received = 0
        self._buffer = JitterBuffer()
        self._digits_heard = DigitReceiver()
        self._level_in, self._level_out = PeakMeter(), PeakMeter()
        self._gap = GapMeter()
        self._flowing = self._both = False
        self._echo: Address | None = None
        self._report_to: Address | None = None
        self._report_at = now + REPORT_INTERVAL / 2
        self._packets_reported = 0
        self._their_report: tuple[int, float] | None = None
        self._round_trip: float | None = None
        self.plan = plan
        self.configure(plan)

    def configure(self, plan: MediaPlan, held: bool = False) -> None:
        """Offer and answer have met (again). `held`: we put the other side on hold, so the
        microphone stays here."""
        kept_talking = self._both and plan.remote == self.plan.remote
        before = self._rtcp_remote()
        reports = plan.remote_rtcp or (plan.remote[0], plan.remote[1] + 1)
        self.plan = plan
        self._codec = CODECS[plan.codec]
        # Numbers bind the sender of a description to nothing (RFC 3264 5.1): whatever we ever
        # offered may come.
        self._codecs: dict[int, Codec] = {codec.payload_type: codec for codec in CODECS.values()}
        self._codecs[plan.payload_type] = self._codec
        self._events = {TELEPHONE_EVENT, plan.telephone_event} - self._codecs.keys()
        somewhere = plan.remote[0] not in NOWHERE
        if somewhere and self._source.signal(
            plan.remote, plan.peers, before if before != reports else None
        ):
            self._report_to = None
        self._reports = somewhere
        self._sends = somewhere and plan.direction.sends and not held
        self._hears = plan.direction.receives and not held
        self._both = self._sends and plan.direction is MediaDirection.SENDRECV
        if not (kept_talking and self._both):
            self._gap.reset()
        if not self._hears:
            self._buffer.clear()

    def send(self, samples: array[int], now: float) -> Datagram | None:
        """20 ms have passed in which these samples were said: the packet for them, if any is to go
        out."""
        packet: bytes | None = None
        if self._sends:
            event = (
                self.digits.next(self._sender.timestamp)
                if self.plan.telephone_event is not None
                else None
            )
            if event and self.plan.telephone_event is not None:
                payload, began, marker = event
                packet = self._sender.packet(self.plan.telephone_event, payload, marker, began)
            else:
                # RFC 3551 4.1: the marker says that sound begins after a pause.
                payload = self._codec.encode(samples)
                packet = self._sender.packet(self.plan.payload_type, payload, not self._flowing)
        self._flowing = packet is not None
        self._level_out.hear(samples if self._flowing else SILENCE)
        self._sender.pass_time(BLOCK)
        self._sent_at = now
        return (self._source.remote, packet) if packet else None

    def pass_time(self, ticks: int) -> None:
        """So many ticks were missed; what was to be said in them is not said later."""
        self._sender.pass_time(ticks * BLOCK)

    def play(self) -> array[int]:
        """The next 20 ms to be heard."""
        samples = self._buffer.get() if self._hears else SILENCE
        self._level_in.hear(samples)
        return samples

    def receive(self, data: bytes, source: Address, now: float) -> str | None:
        """A datagram came to the RTP port; the digit it tells, if it does."""
        try:
            packet = Packet.parse(data)
        except RtpError:
            return None
        codec = self._codecs.get(packet.payload_type)
        known = codec is not None or packet.payload_type in self._events
        # A packet of an unknown payload type proves no new source.
        if not known and not self._source.is_current(packet, source):
            return None
        if len(packet.payload) > LONGEST_PAYLOAD or not self._source.accepts(packet, source, now):
            return None
        if packet.ssrc == self._sender.ssrc:
            self._collide(source)
        if not self._count(packet, now):
            return None
        if not known:
            # It has arrived, so it is not lost, though we cannot play it. After comfort noise
            # silence is meant.
            if packet.payload_type in COMFORT_NOISE:
                self._gap.reset()
            return None
        if codec is None:
            return (
                self._digits_heard.receive(packet.payload, packet.timestamp)
                if self._hears
                else None
            )
        if self._hears:
            self._buffer.put(packet.timestamp, codec.decode(packet.payload))
        return None

    def receive_report(self, data: bytes, source: Address, now: float) -> None:
        """A datagram came to the RTCP port."""
        expected = self._source.remote[0], (self.plan.remote_rtcp or self.plan.remote)[0]
        if source[0] not in expected or self._source.has_left(source):
            return
        try:
            compound = RtcpPacket.parse(data)
        except RtcpError:
            return
        self._report_to = source
        heard = self._reception.ssrc if self._reception else None
        if compound.sender and compound.ssrc == heard:
            self._their_report = middle(compound.sender.ntp), now
        for block in compound.blocks:
            if block.ssrc == self._sender.ssrc:
                self._round_trip = round_trip(block, self._ntp(now)) or self._round_trip
        if heard in compound.byes:
            self._source.forget()
            self._gap.reset()

    def report(self, now: float) -> Datagram | None:
        """The RTCP packet that is due by now, if one is."""
        if now < self._report_at:
            return None
        self._report_at = now + REPORT_INTERVAL * (0.5 + self._new_number() / 2**32)
        return (self._rtcp_remote(), self._compound(now).to_bytes()) if self._reports else None

    def goodbye(self, now: float) -> Datagram | None:
        """The last RTCP packet of this stream (RFC 3550 6.3.7: none if nothing was ever sent)."""
        if not self._reports or self._sender.packets == 0:
            return None
        compound = self._compound(now)
        compound.byes = [self._sender.ssrc]
        return self._rtcp_remote(), compound.to_bytes()

    def stats(self, now: float) -> MediaStats:
        reception = self._reception
        return MediaStats(
            packets_sent=self._sender.packets,
            packets_received=self._packets_received,
            lost=self._lost_before + (max(reception.lost, 0) if reception else 0),
            jitter_ms=reception.jitter * 1000 / RATE if reception else 0.0,
            longest_gap_ms=self._gap.longest(now) * 1000,
            level_in=self._level_in.level,
            level_out=self._level_out.level,
            round_trip_ms=self._round_trip * 1000 if self._round_trip is not None else None,
            codec=self.plan.codec,
            elsewhere=self._source.remote[0] if self._source.elsewhere else "",
        )

    def _count(self, packet: Packet, now: float) -> bool:
        if self._reception is None or self._reception.ssrc != packet.ssrc:
            self._lost_before += max(self._reception.lost, 0) if self._reception else 0
            self._reception = ReceiverStats(packet.ssrc, packet.sequence)
            self._reception_reported = 0
            self._their_report = None
            self._digits_heard = DigitReceiver()
            self._buffer.clear()
        if not self._reception.receive(packet, now):
            return False
        self._packets_received += 1
        if self._both:
            self._gap.arrive(now)
        return True

    def _collide(self, source: Address) -> None:
        # RFC 3550 8.2: take another SSRC. Once for each source, for one that follows sends our own
        # packets back.
        if source != self._echo:
            self._echo = source
            self._sender.ssrc = self._new_number()

    def _ntp(self, now: float) -> int:
        return ntp_time(now + self._wall_offset)

    def _rtcp_remote(self) -> Address:
        host, port = self._source.remote
        if self._report_to and self._report_to[0] == host:
            return self._report_to
        if self.plan.remote_rtcp and self._source.remote == self.plan.remote:
            return self.plan.remote_rtcp
        return host, min(port + 1, 65535)

    def _compound(self, now: float) -> RtcpPacket:
        compound = RtcpPacket(self._sender.ssrc, cname=self._cname)
        if self._sender.packets != self._packets_reported:
            self._packets_reported = self._sender.packets
            since = int((now - self._sent_at) * RATE)
            timestamp = (self._sender.timestamp + since) & 0xFFFFFFFF
            compound.sender = SenderInfo(
                self._ntp(now), timestamp, self._sender.packets, self._sender.octets
            )
        reception = self._reception
        if reception and reception.received != self._reception_reported:
            self._reception_reported = reception.received
            lsr, came_at = self._their_report or (0, now)
            delay = min(max(int((now - came_at) * 65536), 0), 0xFFFFFFFF)
            fraction = reception.fraction_lost()
            jitter = min(int(reception.jitter), 0xFFFFFFFF)
            compound.blocks.append(
                ReportBlock(
                    reception.ssrc, fraction, reception.lost, reception.highest, jitter, lsr, delay
                )
            )
        return compound
