"""Whose packets are listened to, and where ours go: symmetric RTP (RFC 4961) that a stranger cannot take over.

The address of the session description is believed at once. Another address, or another SSRC from the same one, must
first send two packets in sequence (RFC 3550 A.1), and another address is only believed while the present one is silent.
"""

from __future__ import annotations

from softphone.media.rtp import Packet

Address = tuple[str, int]
SILENCE = 0.5  # seconds without a packet after which a stream may come from elsewhere


class SourceFilter:
    def __init__(self, remote: Address) -> None:
        self.remote = remote  # where to send: as signalled, then as heard
        self.ssrc: int | None = None
        self._signalled = remote
        self._heard_at = float("-inf")
        self._candidate: tuple[Address, int, int] | None = None  # source, SSRC and sequence number to expect

    def signal(self, remote: Address) -> None:
        """A session description names this address; the same one again changes nothing."""
        if remote != self._signalled:
            self._signalled = self.remote = remote
            self.forget()

    def forget(self) -> None:
        """The source said goodbye, or another is announced: the next one is believed at once."""
        self.ssrc = self._candidate = None
        self._heard_at = float("-inf")

    def accepts(self, packet: Packet, source: Address, now: float) -> bool:
        known = source == self.remote and (self.ssrc is None or packet.ssrc == self.ssrc)
        if not known:
            candidate = (source, packet.ssrc, packet.sequence)
            proven = candidate == self._candidate
            self._candidate = (source, packet.ssrc, (packet.sequence + 1) & 0xFFFF)
            if not proven or (source != self.remote and now - self._heard_at < SILENCE):
                return False
        self.remote, self.ssrc, self._heard_at, self._candidate = source, packet.ssrc, now, None
        return True
