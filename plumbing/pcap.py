"""Capture files (pcap) of UDP datagrams, for Wireshark, tshark and sngrep. Pure.

Format: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html, link type 101 (raw IP).
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from typing import NamedTuple

from plumbing.address import Address

MAGIC = 0xA1B2C3D4  # times in microseconds
LINKTYPE_RAW = 101
LONGEST = 65535
UDP = 17
HOPS = 64


class CapturedDatagram(NamedTuple):
    """`at`: seconds since 1970. Hosts are literal addresses, both of one family."""

    at: float
    source: Address
    target: Address
    data: bytes


def pcap(datagrams: Iterable[CapturedDatagram]) -> bytes:
    """The file. What has no literal address is left out."""
    parts = [struct.pack("<IHHiIII", MAGIC, 2, 4, 0, 0, LONGEST, LINKTYPE_RAW)]
    for each in datagrams:
        packet = _ip_packet(each)
        if packet is not None:
            seconds, micros = divmod(round(each.at * 1_000_000), 1_000_000)
            parts.append(struct.pack("<IIII", seconds, micros, len(packet), len(packet)))
            parts.append(packet)
    return b"".join(parts)


def _ip_packet(datagram: CapturedDatagram) -> bytes | None:
    try:
        source = ipaddress.ip_address(datagram.source[0].partition("%")[0])
        target = ipaddress.ip_address(datagram.target[0].partition("%")[0])
    except ValueError:
        return None
    length = 8 + len(datagram.data)
    if source.version != target.version or length + 40 > LONGEST:
        return None
    ports = struct.pack("!HHH", datagram.source[1], datagram.target[1], length)
    pseudo = source.packed + target.packed + struct.pack("!II", length, UDP)
    checksum = _checksum(pseudo + ports + b"\0\0" + datagram.data) or 0xFFFF
    udp = ports + struct.pack("!H", checksum) + datagram.data
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, length, UDP, HOPS)
        return head + source.packed + target.packed + udp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, HOPS, UDP, 0)
    head += source.packed + target.packed
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - int(total)
