"""RTCP reports: how each side hears the other, and goodbye (RFC 3550 6). Pure: numbers in, bytes
out, and back.

Only compound packets are read and written (RFC 3550 6.1): a report first, then SDES with the CNAME,
then maybe BYE.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

SR, RR, SDES, BYE = 200, 201, 202, 203
HEADER = struct.Struct(">BBH")
BLOCK = struct.Struct(">IB3sIIII")
SENDER = struct.Struct(">QIII")
NTP_EPOCH = 2208988800  # seconds from 1900 to 1970


class RtcpError(ValueError):
    """These bytes are not a compound RTCP packet."""


@dataclass(frozen=True)
class ReportBlock:
    """How a report's author receives source `ssrc`; `lsr` and `dlsr` in 65536ths of a second,
    `jitter` in samples."""

    ssrc: int
    fraction_lost: int
    lost: int
    highest: int
    jitter: int
    lsr: int = 0
    dlsr: int = 0


@dataclass(frozen=True)
class SenderInfo:
    ntp: int
    timestamp: int
    packets: int
    octets: int


@dataclass
class RtcpPacket:
    """The content of one compound packet. `cname` is written only."""

    ssrc: int
    sender: SenderInfo | None = None
    blocks: list[ReportBlock] = field(default_factory=list)
    cname: str = ""
    byes: list[int] = field(default_factory=list)

    @classmethod
    def parse(cls, data: bytes) -> RtcpPacket:
        """Read a datagram; packet types nobody here knows are passed over. RtcpError if it is none
        (RFC 3550 A.2)."""
        if len(data) < 8 or data[1] not in (SR, RR):
            raise RtcpError("the first packet is not a report")
        compound = cls(int.from_bytes(data[4:8], "big"))
        position = 0
        while position < len(data):
            if len(data) - position < HEADER.size:
                raise RtcpError("a header is cut off")
            first, kind, words = HEADER.unpack_from(data, position)
            end = position + 4 * (words + 1)
            if first >> 6 != 2 or end > len(data):
                raise RtcpError("wrong version or length")
            body = data[position + 4 : end]
            if first & 0x20:
                body = _without_padding(body, last=end == len(data))
            compound._read(kind, first & 31, body)
            position = end
        return compound

    def _read(self, kind: int, count: int, body: bytes) -> None:
        if kind in (SR, RR):
            start = 4 + (SENDER.size if kind == SR else 0)
            if len(body) < start + count * BLOCK.size:
                raise RtcpError("a report is cut off")
            if kind == SR:
                self.sender = SenderInfo(*SENDER.unpack_from(body, 4))
            self.blocks += [_read_block(body, start + index * BLOCK.size) for index in range(count)]
        elif kind == BYE:
            if len(body) < 4 * count:
                raise RtcpError("a BYE is cut off")
            self.byes += struct.unpack_from(f">{count}I", body)

    def to_bytes(self) -> bytes:
        blocks = b"".join(_write_block(block) for block in self.blocks)
        ssrc = self.ssrc.to_bytes(4, "big")
        if self.sender:
            info = self.sender
            sender = SENDER.pack(
                info.ntp, info.timestamp, info.packets & 0xFFFFFFFF, info.octets & 0xFFFFFFFF
            )
            report = _packet(SR, len(self.blocks), ssrc + sender + blocks)
        else:
            report = _packet(RR, len(self.blocks), ssrc + blocks)
        name = self.cname.encode()[:255]
        item = ssrc + bytes([1, len(name)]) + name
        item += bytes(4 - len(item) % 4)  # at least one null ends the list of items (RFC 3550 6.5)
        goodbye = struct.pack(f">{len(self.byes)}I", *self.byes)
        return (
            report
            + _packet(SDES, 1, item)
            + (_packet(BYE, len(self.byes), goodbye) if self.byes else b"")
        )


def ntp_time(wall: float) -> int:
    """Seconds since 1970 as a 64-bit NTP timestamp (RFC 3550 4)."""
    return int((wall + NTP_EPOCH) * 2**32) & 0xFFFFFFFFFFFFFFFF


def middle(ntp: int) -> int:
    """The middle 32 bits, as LSR has them."""
    return ntp >> 16 & 0xFFFFFFFF


def round_trip(block: ReportBlock, ntp: int) -> float | None:
    """Seconds there and back by a block about us that arrived at `ntp` (RFC 3550 6.4.1); None if it
    cannot say."""
    if block.lsr == 0:
        return None
    elapsed = (middle(ntp) - block.lsr - block.dlsr) & 0xFFFFFFFF
    return elapsed / 65536 if elapsed < 60 << 16 else None


def _packet(kind: int, count: int, body: bytes) -> bytes:
    return HEADER.pack(0x80 | count, kind, len(body) // 4) + body


def _read_block(body: bytes, at: int) -> ReportBlock:
    ssrc, fraction, lost, *rest = BLOCK.unpack_from(body, at)
    return ReportBlock(ssrc, fraction, int.from_bytes(lost, "big", signed=True), *rest)


def _write_block(block: ReportBlock) -> bytes:
    lost = min(max(block.lost, -0x800000), 0x7FFFFF).to_bytes(3, "big", signed=True)
    highest = block.highest & 0xFFFFFFFF
    return BLOCK.pack(
        block.ssrc, block.fraction_lost, lost, highest, block.jitter, block.lsr, block.dlsr
    )


def _without_padding(body: bytes, last: bool) -> bytes:
    if not last or not body or not 0 < body[-1] <= len(body) or body[-1] % 4:
        raise RtcpError("impossible padding")
    return body[: -body[-1]]
