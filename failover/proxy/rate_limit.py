"""A rate limit per source, so that one source that floods does not starve the others.

Each source address (for IPv6 each /64, because one host may have all of it) has a token bucket:
`rate` datagrams a second are admitted, `burst` at once. The last quarter of a bucket is reserved
for messages of existing calls (responses, ACK, BYE, CANCEL), so that what is dropped first is what
a caller can try again. The first octets tell which it is, because a datagram that is dropped must
cost less than one that is not.

The table of buckets is bounded, and anybody can forge addresses to fill it. So a new source takes
the place of the fullest of EVICTION_SAMPLE buckets, and begins with the tokens that were in it.
Thus eviction makes no tokens: a source that has used up its own is remembered as long as another
has more, and one that comes back when all are empty finds an empty bucket. Exempt hosts have no
bucket.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address

from failover.config.networks import Networks

MAX_SOURCES = 10_000
EVICTION_SAMPLE = 16  # buckets; some 10 us, where all are limited
OCTETS_PER_TOKEN = 1500  # a longer datagram costs more tokens, because parsing it takes longer
RESERVED_SHARE = 0.25  # of a bucket, for messages of existing calls
OF_CALLS = (b"SIP/2.0 ", b"ACK ", b"BYE ", b"CANCEL ")
MAX_CACHED_HOSTS = 4_096  # of which it is known whether they are exempt


class RateLimit:
    """The token buckets. `rate` 0: everything is admitted. Counts in `counters`:
    `limit.forgotten`."""

    def __init__(self, rate: int, burst: int, exempt: Networks, counters: Counter[str]) -> None:
        self._rate, self._burst, self._counters = rate, max(burst, 1), counters
        self._reserved = self._burst * RESERVED_SHARE if self._burst >= 4 else 0.0
        self._in_exempt = lru_cache(MAX_CACHED_HOSTS)(exempt.__contains__)
        self._buckets: dict[str, list[float]] = {}  # by source: [tokens, at that time]
        self._sources: list[str] = []  # those of _buckets, each in its place
        self._hand = 0  # the place to look at next for a bucket to forget

    def __len__(self) -> int:
        return len(self._buckets)

    def is_exempt(self, host: str) -> bool:
        """Is everything from this IP address admitted?"""
        return not self._rate or self._in_exempt(host)

    def admits(self, data: bytes, host: str, now: float) -> bool:
        """Takes the tokens for a datagram from this IP address's bucket, if it has as many."""
        if not self._rate:
            return True
        source = _network(host) if ":" in host else host  # source_of, without a call
        bucket = self._buckets.get(source)
        if bucket is None or source is not host:  # of a /64 some hosts may be exempt
            if self._in_exempt(host):
                return True
            bucket = bucket or self._add(source, now)
        tokens = self._tokens(bucket, now)
        cost = 1 + len(data) // OCTETS_PER_TOKEN
        admitted = tokens >= cost + (0.0 if data.startswith(OF_CALLS) else self._reserved)
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
        for _ in range(EVICTION_SAMPLE):
            place = self._hand
            self._hand = (place + 1) % len(self._sources)
            tokens = self._tokens(self._buckets[self._sources[place]], now)
            if tokens > most:
                found, most = place, tokens
            if tokens >= self._burst:
                break
        return found, most


def source_of(host: str) -> str:
    """The source that a host counts as: its IPv4 address, or its /64 of IPv6 addresses."""
    return _network(host) if ":" in host else host


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """The /64 of an IPv6 address."""
    return IPv6Address(host).packed[:8].hex()
