"""The messages of the ladder as text and as a pcap file."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from plumbing.address import Address
from stage.observation.observations import LadderRow


def as_pcap(rows: Iterable[LadderRow], offset: float) -> bytes:
    """A capture file (pcap, raw IPv4) of the messages whose text is known. `offset`: wall minus
    monotonic seconds."""
    packets = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)]  # LINKTYPE_RAW
    for row in rows:
        if row.text:
            data = row.text.encode()
            packet = _ipv4(_parse(row.source_address), _parse(row.target_address), data)
            seconds = row.at + offset
            stamp = int(seconds), int(seconds % 1 * 1_000_000)
            packets.append(struct.pack("<IIII", *stamp, len(packet), len(packet)) + packet)
    return b"".join(packets)


def _parse(address: str) -> Address:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _ipv4(source: Address, target: Address, data: bytes) -> bytes:
    udp = struct.pack("!HHHH", source[1], target[1], 8 + len(data), 0) + data
    ends = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return header[:10] + checksum + header[12:] + udp


def as_text(rows: Iterable[LadderRow], zero: float) -> str:
    """A line per message with the seconds since `zero`, and its text indented beneath."""
    lines: list[str] = []
    for row in rows:
        if not row.source:
            lines.append(f"{row.at - zero:9.3f}  ---- {row.label} ----")
            continue
        addresses = f"{row.source_address} > {row.target_address}" if row.source_address else ""
        lines.append(
            f"{row.at - zero:9.3f}  {row.source} -> {row.target}  {row.label}  {addresses}".rstrip()
        )
        lines += [f"           | {line}" for line in row.text.splitlines()]
    return "\n".join(lines) + "\n"
