"""Does this forwarder see a server? Two forwarders share an address that keepalived moves; the one
whose own way to the servers is cut is to lose it to the one that still sees them.

`ServerVisibility` is what keepalived is told; `GracePeriod` is for the requests that come before
the address has moved. Both are told the time.

Why the address does not flap: a loss is taken back only after a while without a break, a longer one
for a way that breaks again and again; and keepalived moves the address only if the other forwarder
was the better one for three adverts (examples/keepalived).
"""

from __future__ import annotations

from collections.abc import Iterable

from failover.upstream.health import FAILING, Breaks
from failover.upstream.server_table import Server

# Seconds for which a server must be seen without a break before it is told. Longer than an
# advert_int.
STEADY_SECONDS = 0.15
# Losses within a minute that cost no more than that. Then it is 1, 2, 4 ... MAX_HOLD_SECONDS.
FREE_LOSSES = 2
MAX_HOLD_SECONDS = 8.0
GRACE_SECONDS = 1.0  # keepalived moves the address within 0.6 (docs/operations.txt)
RENEWAL_SECONDS = 5.0  # without such a request, after which there is grace again


def any_answers(servers: Iterable[Server], fall: int) -> bool:
    """Has a server answered lately? The last one that is up stays in use for longer than `fall`
    misses (failover.py), since a busy server is better than none. Here it counts like any other:
    another forwarder that hears it is better off."""
    return any(_answers(server, fall) for server in servers)


def _answers(server: Server, fall: int) -> bool:
    failed = server.health.state is FAILING and server.health.count >= fall
    return server.ever_answered and server.up and not failed


class ServerVisibility:
    """`clear`: a server is seen, and was for as long as is asked for without a break."""

    def __init__(self) -> None:
        self.clear = False
        self._seen_since: float | None = None
        self._losses = Breaks()

    def update(self, answers: bool, now: float) -> bool:
        """To be called again and again; returns `clear`."""
        if not answers:
            self._losses = self._losses.plus_one(now) if self.clear else self._losses
            self.clear, self._seen_since = False, None
            return False
        if self._seen_since is None:
            self._seen_since = now
        self.clear = self.clear or now - self._seen_since >= self._hold_seconds
        return self.clear

    @property
    def _hold_seconds(self) -> float:
        more = self._losses.count - FREE_LOSSES
        return min(2.0 ** (more - 1), MAX_HOLD_SECONDS) if more > 0 else STEADY_SECONDS


class GracePeriod:
    """Is a request that finds no server left unanswered? Its sender repeats it after 0.5 s (RFC
    3261 17.1), and by then another forwarder may have the address. So yes, for GRACE_SECONDS after
    the first such request."""

    def __init__(self) -> None:
        self._since = self._last_at = float("-inf")

    def covers(self, now: float) -> bool:
        if now - self._last_at > RENEWAL_SECONDS:
            self._since = now
        self._last_at = now
        return now - self._since < GRACE_SECONDS
