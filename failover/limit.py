"""A limit per source, so that one that floods does not take the others' turn.

A token bucket for each source address (for IPv6 each /64, of which a single host may have all): `rate` datagrams a
second go on, `burst` at once. The last quarter of a bucket is kept for what belongs to calls already there (responses,
ACK, BYE, CANCEL), so that what is dropped first is what a caller can try again. The first bytes tell which it is, for
what is to be dropped must cost less than what is not.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address

from failover.networks import Networks

MAX_SOURCES = 10_000  # who falls out, the oldest, comes back with a full bucket
ORDINARY = 1500  # octets; a datagram of more counts for as many as it could have been, for reading it takes so long
KEPT = 0.25  # the share of a bucket for what belongs to calls
OF_CALLS = (b"SIP/2.0 ", b"ACK ", b"BYE ", b"CANCEL ")


class Limit:
    """`rate` 0: everything is admitted."""

    def __init__(self, rate: int, burst: int, exempt: Networks, counters: Counter[str]) -> None:
        self._rate, self._burst, self._exempt, self._counters = rate, max(burst, 1), exempt, counters
        self._kept = self._burst * KEPT if self._burst >= 4 else 0.0
        self._buckets: dict[str, list[float] | None] = {}  # [tokens, at that time]; None: exempt

    def __len__(self) -> int:
        return len(self._buckets)

    def spares(self, host: str) -> bool:
        """Is everything from this IP address, of which something was admitted just now, admitted?"""
        return not self._rate or self._buckets[_network(host) if ":" in host else host] is None

    def admits(self, data: bytes, host: str, now: float) -> bool:
        """Takes a token of this IP address's bucket, if there is one for such a datagram."""
        if not self._rate:
            return True
        source = _network(host) if ":" in host else host
        if source not in self._buckets:
            self._add(source, host, now)
        bucket = self._buckets[source]
        if bucket is None:
            return True
        tokens = min(self._burst, bucket[0] + (now - bucket[1]) * self._rate)
        cost = 1 + len(data) // ORDINARY
        admitted = tokens >= cost + (0.0 if data.startswith(OF_CALLS) else self._kept)
        bucket[0], bucket[1] = tokens - cost if admitted else tokens, now
        return admitted

    def _add(self, source: str, host: str, now: float) -> None:
        if len(self._buckets) >= MAX_SOURCES:
            self._counters["limit.forgotten"] += 1
            del self._buckets[next(iter(self._buckets))]
        self._buckets[source] = None if host in self._exempt else [self._burst, now]


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """The /64 of an IPv6 address."""
    return IPv6Address(host).packed[:8].hex()
