"""Does this forwarder see a server? It matters to two forwarders that share an address which
keepalived moves.

A forwarder whose own way to the servers is cut is to lose the address to one that still sees them.
`Sight` is what it tells keepalived; `Grace` is for the requests that come before the address has
gone. Both are told the time, and do nothing themselves.

Why it does not flap: what is told to be lost is told to be back only after a moment without a
break, longer for a way that breaks off again and again; and keepalived moves the address only if
the other forwarder was the better one for three adverts (examples/keepalived).
"""

from __future__ import annotations

from collections.abc import Iterable

from failover.upstream.health import FAILING, Breaks
from failover.upstream.server_table import Server

# seconds for which a server has to be seen without a break before it is told; longer than an
# advert_int
STEADY = 0.15
# losses within a minute of the last one that cost no more than that; then it is 1, 2, 4 ... LONGEST
# seconds
FREE = 2
LONGEST = 8.0
GRACE = 1.0  # seconds; keepalived moves the address within 0.6 (docs/operations.txt)
QUIET = 5.0  # seconds without such a request after which there is grace again


def heard(servers: Iterable[Server], fall: int) -> bool:
    """Has one of them answered lately? The last one that lives is in use for longer (failover.py),
    for a busy server is better than none; here it counts like any other: where another forwarder
    hears it, that one is better off."""
    return any(_answers(server, fall) for server in servers)


def _answers(server: Server, fall: int) -> bool:
    health = server.health
    return server.seen and health.alive and not (health.state is FAILING and health.count >= fall)


class Sight:
    """`clear`: a server is seen, and was without a break for as long as that takes."""

    def __init__(self) -> None:
        self.clear = False
        self._since: float | None = None  # when a server was first seen, of this time
        self._losses = Breaks()

    def look(self, hears: bool, now: float) -> bool:
        """To be called again and again; returns `clear`."""
        if not hears:
            self._losses = self._losses.another(now) if self.clear else self._losses
            self.clear, self._since = False, None
            return False
        if self._since is None:
            self._since = now
        self.clear = self.clear or now - self._since >= self._hold
        return self.clear

    @property
    def _hold(self) -> float:
        more = self._losses.count - FREE
        return min(2.0 ** (more - 1), LONGEST) if more > 0 else STEADY


class Grace:
    """Is a request that finds no server to be left unanswered? Its sender says it again after 0.5 s
    (RFC 3261 17.1), and by then another forwarder may have the address. So for the first second in
    which there are such requests."""

    def __init__(self) -> None:
        self._since = self._last = float("-inf")

    def covers(self, now: float) -> bool:
        if now - self._last > QUIET:
            self._since = now
        self._last = now
        return now - self._since < GRACE
