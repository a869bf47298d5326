"""Whose packets are listened to, and where ours go: symmetric RTP (RFC 4961) that a stranger cannot take over.

The rules, in order of their weight:

1. The address that signalling named last is believed at once. Addresses it has just left are refused: their late
   packets, or a stream that the other side forgot to stop, must not pull ours back.
2. Another port of the same host must send two packets in sequence (RFC 3550 A.1) while the present one is silent.
3. Another host must do so too, and is believed only where a NAT explains it (RFC 7362 4): signalling came from that
   host itself, or the named address is a private one, which the host that is seen is not. The address that signalling
   named takes the stream back from it. A stranger's two packets would else bring our microphone to the stranger.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from softphone.media.rtp import Packet

Address = tuple[str, int]
SILENCE = 0.5  # seconds without a packet after which a stream may come from elsewhere
MOST_LEFT = 12
LEFT = 5.0  # seconds without a packet after which an address that signalling has left may be used again
# RFC 1918, 3927, 4193, 4291, 6598 and a phone that knew no better: addresses that mean nothing beyond a NAT.
# (ipaddress.is_private counts the networks of documentation too and leaves out that of RFC 6598.)
PRIVATE = tuple(ipaddress.ip_network(text) for text in (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "127.0.0.0/8",
    "fc00::/7", "fe80::/10", "::1/128",
))  # fmt: skip


class SourceFilter:
    """`remote`: as signalled. `peers`: hosts that the other side's signalling is known to come from."""

    def __init__(self, remote: Address, peers: Iterable[str] = ()) -> None:
        self.remote = remote  # where to send: as signalled, then as heard
        self.ssrc: int | None = None
        self._signalled = remote
        self._peers = frozenset(peers)
        self._heard_at = float("-inf")
        self._candidate: tuple[Address, int, int] | None = None  # source, SSRC and sequence number to expect
        self._left: dict[Address, float | None] = {}  # when last heard, None: not since it was left

    @property
    def elsewhere(self) -> bool:
        """Does our sound go to another host than the one signalling named?"""
        return self.remote[0] != self._signalled[0]

    def signal(self, remote: Address, peers: Iterable[str] = (), reports: Address | None = None) -> bool:
        """A session description names this address; the same one again changes nothing. Did it change? `reports`:
        where RTCP went until now, which is left with the rest."""
        self._peers = self._peers.union(peers)
        if remote == self._signalled:
            return False
        for left in (self._signalled, self.remote, reports):
            if left is not None:
                self._left[left] = None
        self._left.pop(remote, None)
        for oldest in list(self._left)[:-MOST_LEFT]:
            del self._left[oldest]
        self._signalled = self.remote = remote
        self.forget()
        return True

    def forget(self) -> None:
        """The source said goodbye, or another is announced: the next one is believed at once."""
        self.ssrc = self._candidate = None
        self._heard_at = float("-inf")

    def is_current(self, packet: Packet, source: Address) -> bool:
        """Does the packet belong to the stream that is being heard?"""
        return source == self.remote and packet.ssrc == self.ssrc

    def accepts(self, packet: Packet, source: Address, now: float) -> bool:
        known = source == self.remote and (self.ssrc is None or packet.ssrc == self.ssrc)
        if not known:
            if not self._may_be_theirs(source, now):
                return False
            candidate = (source, packet.ssrc, packet.sequence)
            proven = candidate == self._candidate
            self._candidate = (source, packet.ssrc, (packet.sequence + 1) & 0xFFFF)
            # Another SSRC of the same address, or the very address that was announced, need not wait.
            waits = source != self.remote and not (self.elsewhere and source[0] == self._signalled[0])
            if not proven or (waits and now - self._heard_at < SILENCE):
                return False
        self.remote, self.ssrc, self._heard_at, self._candidate = source, packet.ssrc, now, None
        return True

    def _may_be_theirs(self, source: Address, now: float) -> bool:
        if self.has_left(source, now):
            return False
        host, named = source[0], self._signalled[0]
        return host in (named, self.remote[0]) or host in self._peers or (is_private(named) and not is_private(host))

    def has_left(self, source: Address, now: float) -> bool:
        """Does this come from an address that signalling has left? Each packet prolongs it: a stream that the other
        side forgot to stop never counts."""
        if source not in self._left:
            return False
        last = self._left[source]
        if last is not None and now - last > LEFT:
            del self._left[source]
            return False
        self._left[source] = now
        return True


def is_private(host: str) -> bool:
    """Is this an address that does not reach beyond its own network?"""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in PRIVATE)
