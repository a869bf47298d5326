"""The filter of RTP sources: whose packets are played, and where ours go: symmetric RTP (RFC 4961)
that a stranger cannot take over.

The rules, in order of their weight:

1. The address that signalling named last is believed at once, and served for as long as nothing
   below says otherwise. An address that signalling named before does not get our stream back: late
   packets, or a stream that the other side forgot to stop, must not pull it there. It is heard
   again only if nothing has come from the new one for a second.
2. Another port of the same host must send two packets in sequence (RFC 3550 A.1) while the present
   one is silent.
3. Another host must do so too, and is believed only where a NAT explains it (RFC 7362 4):
   signalling came from that host itself, or the named address is a private one, which the host that
   is seen is not. The address that signalling named takes the stream back from it. A stranger's two
   packets would else bring our microphone to the stranger.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from plumbing.address import Address
from softphone.media.rtp import Packet

SILENCE = 0.5  # seconds without a packet after which a stream may come from elsewhere
LEFT = 1.0  # seconds without a packet from the address named last until an older one is heard again
MOST_LEFT = 12  # addresses that are remembered
# RFC 1918, 3927, 4193, 4291, 6598 and a phone that knew no better: addresses that mean nothing
# beyond a NAT. (ipaddress.is_private counts the networks of documentation too and leaves out that
# of RFC 6598.)
PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "fc00::/7",
        "fe80::/10",
        "::1/128",
    )
)


class SourceFilter:
    """`remote`: as signalled. `peers`: hosts that the other side's signalling is known to come
    from."""

    def __init__(self, remote: Address, peers: Iterable[str] = ()) -> None:
        self.remote = remote  # where to send: as signalled, then as heard
        self.ssrc: int | None = None
        self._heard = remote  # where what is heard comes from
        self._signalled = remote
        self._peers = frozenset(peers)
        self._heard_at = float("-inf")
        self._candidate: tuple[Address, int, int] | None = None
        self._left: dict[
            Address, bool
        ] = {}  # addresses that signalling has left; True: they were named by it
        self._left_at: float | None = None  # when the first packet came after that

    @property
    def elsewhere(self) -> bool:
        """Does our sound go to another host than the one signalling named?"""
        return self.remote[0] != self._signalled[0]

    def signal(
        self, remote: Address, peers: Iterable[str] = (), reports: Address | None = None
    ) -> bool:
        """A session description names this address; the same one again changes nothing. Did it
        change? `reports`: where RTCP went until now, which is left with the rest."""
        self._peers = self._peers.union(peers)
        if remote == self._signalled:
            return False
        for left, named in ((self.remote, False), (reports, False), (self._signalled, True)):
            if left is not None:
                self._left[left] = named or self._left.get(left, False)
        self._left.pop(remote, None)
        for oldest in list(self._left)[:-MOST_LEFT]:
            del self._left[oldest]
        self._signalled = self.remote = self._heard = remote
        self._left_at = None
        self.forget()
        return True

    def forget(self) -> None:
        """The source said goodbye, or another is announced: the next one is believed at once."""
        self.ssrc = self._candidate = None
        self._heard_at = float("-inf")

    def is_current(self, packet: Packet, source: Address) -> bool:
        """Does the packet belong to the stream that is being heard?"""
        return source == self._heard and packet.ssrc == self.ssrc

    def has_left(self, source: Address) -> bool:
        """Is this an address that signalling has left?"""
        return source in self._left

    def accepts(self, packet: Packet, source: Address, now: float) -> bool:
        if not (self.is_current(packet, source) or (source == self.remote and self.ssrc is None)):
            if not self._may_be_theirs(source, now):
                return False
            candidate = (source, packet.ssrc, packet.sequence)
            proven = candidate == self._candidate
            self._candidate = (source, packet.ssrc, (packet.sequence + 1) & 0xFFFF)
            # Another SSRC of the same address, or the very host that was announced, need not wait.
            waits = source not in (self.remote, self._heard)
            waits = waits and not (self.elsewhere and source[0] == self._signalled[0])
            if not proven or (waits and now - self._heard_at < SILENCE):
                return False
        if not self._left.get(source):
            self.remote = source
        self._heard, self.ssrc, self._heard_at, self._candidate = source, packet.ssrc, now, None
        return True

    def _may_be_theirs(self, source: Address, now: float) -> bool:
        if source in self._left:
            self._left_at = now if self._left_at is None else self._left_at
            return now - max(self._left_at, self._heard_at) > LEFT
        host, named = source[0], self._signalled[0]
        return (
            host in (named, self.remote[0])
            or host in self._peers
            or (is_private(named) and not is_private(host))
        )


def is_private(host: str) -> bool:
    """Is this an address that does not reach beyond its own network?"""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in PRIVATE)
