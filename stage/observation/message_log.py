"""The messages of the ladder as text and as a pcap file, and their words caught on the loopback.

The forwarder's /events name a message and do not quote it. Where it does (`LadderRow.text`) that is
used; otherwise `PacketCapture` reads the datagrams of the forwarder's port from the loopback
interface. That takes Linux and CAP_NET_RAW, as sngrep does; without, the ladder has no words.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from plumbing.address import Address, format_address
from stage.observation.observations import LadderRow

ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4  # a datagram of the loopback is seen twice, once as sent and once as received
ETHERNET_HEADER = 14
PACKETS_KEPT = 4000
STOP_SECONDS = 0.5  # the reader looks that often whether it should end


class Packet(NamedTuple):
    """`at` is monotonic seconds."""

    at: float
    source: Address
    target: Address
    data: bytes


class PacketCapture:
    """Thread `capture`: keeps the latest datagrams from and to UDP `port` of this computer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._packets: deque[Packet] = deque(maxlen=PACKETS_KEPT)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.why_not = "Not started."

    def start(self) -> None:
        """Begin if this computer and its user may; `why_not` is the reason otherwise."""
        if not hasattr(socket, "AF_PACKET"):
            self.why_not = "Reading the words of messages takes Linux."
            return
        try:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            sock.bind(("lo", 0))
        except OSError:
            self.why_not = (
                "Reading the words of messages takes the right to capture packets (CAP_NET_RAW), "
                "as sngrep does."
            )
            return
        self.why_not = ""
        sock.settimeout(STOP_SECONDS)
        self._thread = threading.Thread(target=self._run, args=(sock,), name="capture", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Twice is fine."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(2 * STOP_SECONDS)

    def find(self, row: LadderRow) -> str:
        """The words of the message as it reached `row.target_address`, "" if not caught."""
        start = b"SIP/2.0 " + row.label[:3].encode() if row.label[:3].isdigit() else b""
        start = start or row.method.encode() + b" "
        call = row.call_id.encode("utf-8", "surrogateescape")
        for packet in reversed(tuple(self._packets)):
            if (
                packet.at <= row.at + 0.5
                and format_address(packet.target) == row.target_address
                and packet.data.startswith(start)
                and call in packet.data
            ):
                return packet.data.decode("utf-8", "backslashreplace")
        return ""

    def _run(self, sock: socket.socket) -> None:
        with sock:
            while not self._stopped.is_set():
                try:
                    frame, sender = sock.recvfrom(65_535)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if sender[2] == PACKET_OUTGOING:
                    packet = parse_frame(frame)
                    if packet and self._port in (packet.source[1], packet.target[1]):
                        self._packets.append(packet)


def parse_frame(frame: bytes) -> Packet | None:
    """An Ethernet frame with IPv4 and UDP, else None."""
    if len(frame) < ETHERNET_HEADER + 28 or frame[12:14] != b"\x08\x00":
        return None
    ip = frame[ETHERNET_HEADER:]
    udp = ip[(ip[0] & 15) * 4 :]
    if ip[9] != socket.IPPROTO_UDP or len(udp) < 8:
        return None
    source, target, length = struct.unpack("!HHH", udp[:6])
    return Packet(
        time.monotonic(),
        (socket.inet_ntoa(ip[12:16]), source),
        (socket.inet_ntoa(ip[16:20]), target),
        udp[8:length],
    )


def as_pcap(rows: Iterable[LadderRow], text_of: Callable[[LadderRow], str], offset: float) -> bytes:
    """A capture file (pcap, raw IPv4) of the messages whose words are known. `offset`: wall minus
    monotonic seconds."""
    packets = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101)]  # LINKTYPE_RAW
    for row in rows:
        text = text_of(row)
        if text:
            data = text.encode("utf-8", "surrogateescape")
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


def as_text(rows: Iterable[LadderRow], zero: float, text_of: Callable[[LadderRow], str]) -> str:
    """A line per message with the seconds since `zero`, and its words indented beneath."""
    lines: list[str] = []
    for row in rows:
        if not row.source:
            lines.append(f"{row.at - zero:9.3f}  ---- {row.label} ----")
            continue
        addresses = f"{row.source_address} > {row.target_address}" if row.source_address else ""
        lines.append(
            f"{row.at - zero:9.3f}  {row.source} -> {row.target}  {row.label}  {addresses}".rstrip()
        )
        lines += [f"           | {line}" for line in text_of(row).splitlines()]
    return "\n".join(lines) + "\n"
