"""A limit per source, so that one that floods does not take the others' turn.

A token bucket for each source address (for IPv6 each /64, of which a single host may have all):
`rate` datagrams a second go on, `burst` at once. The last quarter of a bucket is kept for what
belongs to calls already there (responses, ACK, BYE, CANCEL), so that what is dropped first is what
a caller can try again. The first bytes tell which it is, for what is to be dropped must cost less
than what is not.

The table of buckets is bounded, and anybody can forge addresses to fill it. So where a new source
needs the place of another, the fullest of some buckets goes, for to forget that one costs least;
and the new source begins with as many tokens as were in it. Thus forgetting makes no tokens: a
source that has used up its own is remembered for as long as another has more, and whoever comes
back when all are empty finds an empty bucket. Exempt hosts have no place in it.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address

from failover.config.networks import Networks

MAX_SOURCES = 10_000
LOOKED_AT = 16  # buckets, among which the fullest goes: some 10 us more, where all are limited
# octets; a datagram of more counts for as many as it could have been, for reading it takes so long
ORDINARY = 1500
KEPT = 0.25  # the share of a bucket for what belongs to calls
OF_CALLS = (b"SIP/2.0 ", b"ACK ", b"BYE ", b"CANCEL ")
REMEMBERED_HOSTS = 4_096  # of which it is known whether they are exempt


class Limit:
    """`rate` 0: everything is admitted."""

    def __init__(self, rate: int, burst: int, exempt: Networks, counters: Counter[str]) -> None:
        self._rate, self._burst, self._counters = rate, max(burst, 1), counters
        self._kept = self._burst * KEPT if self._burst >= 4 else 0.0
        self._is_exempt = lru_cache(REMEMBERED_HOSTS)(exempt.__contains__)
        self._buckets: dict[str, list[float]] = {}  # by source: [tokens, at that time]
        self._sources: list[str] = []  # those of _buckets, each in its place
        self._hand = 0  # the place to look at next for a bucket to forget

    def __len__(self) -> int:
        return len(self._buckets)

    def spares(self, host: str) -> bool:
        """Is everything from this IP address admitted?"""
        return not self._rate or self._is_exempt(host)

    def admits(self, data: bytes, host: str, now: float) -> bool:
        """Takes a token of this IP address's bucket, if there is one for such a datagram."""
        if not self._rate:
            return True
        source = _network(host) if ":" in host else host
        bucket = self._buckets.get(source)
        if bucket is None or source is not host:  # of a /64 some hosts may be exempt
            if self._is_exempt(host):
                return True
            bucket = bucket or self._add(source, now)
        tokens = self._tokens(bucket, now)
        cost = 1 + len(data) // ORDINARY
        admitted = tokens >= cost + (0.0 if data.startswith(OF_CALLS) else self._kept)
        bucket[0], bucket[1] = tokens - cost if admitted else tokens, now
        return admitted

    def _tokens(self, bucket: list[float], now: float) -> float:
        return min(self._burst, bucket[0] + (now - bucket[1]) * self._rate)

    def _add(self, source: str, now: float) -> list[float]:
        tokens: float = self._burst
        if len(self._sources) < MAX_SOURCES:
            self._sources.append(source)
        else:
            place, tokens = self._fullest(now)
            del self._buckets[self._sources[place]]
            self._sources[place] = source
            self._counters["limit.forgotten"] += 1
        bucket = self._buckets[source] = [tokens, now]
        return bucket

    def _fullest(self, now: float) -> tuple[int, float]:
        """Place and tokens of the first bucket that is full, else of the fullest looked at."""
        found, most = self._hand, -1.0
        for _ in range(LOOKED_AT):
            place = self._hand
            self._hand = (place + 1) % len(self._sources)
            tokens = self._tokens(self._buckets[self._sources[place]], now)
            if tokens > most:
                found, most = place, tokens
            if tokens >= self._burst:
                break
        return found, most


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, a /64 of IPv6 addresses."""
    return _network(host) if ":" in host else host


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """The /64 of an IPv6 address."""
    return IPv6Address(host).packed[:8].hex()
