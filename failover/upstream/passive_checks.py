"""Passive health check: does a server that answers heartbeats do its work, too?

Heartbeats (health_checker.py) find a server that is silent. They do not find one that answers
heartbeats and swallows everything else. HAProxy's `observe`, Envoy's outlier detection and
Kamailio's ds_mark_dst watch the real requests for that; here nothing that was swallowed is lost.

 1. A server works as long as it handles messages: answers a request, be it provisionally, or
    passes one or a response on. A phone that does not answer is not its server's fault.
 2. A run is a row of messages of which a server has handled none. If it has HEDGE_REQUESTS and
    goes on for HEDGE_SECONDS, each request older than that, and each response and ACK that was
    not passed on, goes to the next server too. Nothing else changes, so that a server which was
    merely busy loses nothing.
 3. A run of `passive.requests` that goes on for `passive.seconds` while another server has handled
    some of the hedged requests: the server is ejected. What it owes goes to the next one, and so
    does everything new. Without the other server's proof one source of garbage, which every
    server drops, would look like a dead server.
 4. An ejected server is sent one real request after 1 s, 2 s, 4 s ... 64 s. Unhandled for
    TRIAL_SECONDS it goes to the next server. A server that has handled one is in use again. One
    that is to take no new calls is sent none.
 5. A server is never ejected where no other is usable, and is in use again when none is left.

Cost: messages that a server has handled are counted (`Server.handled`). The keys of those that it
was sent are noted only while there are few of them, or none is handled (`Server.unhandled`; None:
not noted). Everything else is done here, every LOOK_INTERVAL.

Trap: while messages are hedged, their server counts as ejected, or their hints would lead back to
it. So `ejected` is set and reset around that, and nothing else may run in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from failover.proxy.events import NOTHING, Outcome, joined
from failover.proxy.pending_messages import RequestKey
from failover.upstream.server_table import AdminState, Server

if TYPE_CHECKING:
    from failover.upstream.failover import Failover

LOOK_INTERVAL = 0.1  # seconds between two looks at all servers
HEDGE_REQUESTS, HEDGE_SECONDS = 3, 1.0
MAX_HEDGED_AT_ONCE = 200  # requests; a hundredth of a second's work
TRIAL_SECONDS = 0.5
FIRST_TRIAL_DELAY, MAX_TRIAL_DELAY = 1.0, 64.0  # seconds
EJECTION_MEMORY_SECONDS = 60.0  # in use, after which an ejection is forgotten
MAX_NOTED = 50  # messages between two looks; of more the keys are not noted


class Run:
    """A server's run of unhandled messages, and its trials. Times are monotonic seconds, as exact
    as the looks are."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.handled = 0  # `server.handled` when the run began
        self.total = 0  # messages sent to the server until the last look
        self.base = 0  # of these, before the run began
        self.rescued = 0  # requests of this server that others had handled when the run began
        self.first_at: float | None = None  # when the run's first message was seen
        self.last_at = 0.0
        self.readmitted_at = float("-inf")
        self.trial_delay = FIRST_TRIAL_DELAY
        self.trial_due = 0.0
        self.trial_sent_at: float | None = None

    @property
    def sent(self) -> int:
        """Messages in the run."""
        return self.total - self.base

    @property
    def recent(self) -> int:
        """Messages since the last look."""
        return self.server.requests + self.server.relayed - self.total

    def begin(
        self, rescued: int, now: float, keys: set[RequestKey] | None, one_way: int = 0
    ) -> None:
        """Begins a run with the unhandled requests of `keys` (None: they are not noted) and so many
        responses and ACKs."""
        server, pending = self.server, len(keys or ()) + one_way
        self.total += self.recent
        self.handled, self.base = server.handled, self.total - pending
        self.first_at, self.last_at, self.rescued = now if pending else None, now, rescued
        server.unhandled = keys

    def note(self, now: float) -> None:
        """Counts the messages of the last interval."""
        if self.recent:
            self.total, self.last_at = self.total + self.recent, now
            self.first_at = now if self.first_at is None else self.first_at

    def lasts(self, requests: int, seconds: float, now: float) -> bool:
        if self.first_at is None or self.sent < requests or now - self.first_at < seconds:
            return False
        return self.last_at - self.first_at >= min(seconds, HEDGE_SECONDS)


class PassiveCheck:
    """Watches the servers of `failover`, and has it act."""

    def __init__(self, failover: Failover) -> None:
        self._failover = failover
        self.configure(20, 3.0)
        self._runs: dict[Server, Run] = {}
        self._looked_at = float("-inf")
        self._hedging_until = float("-inf")
        self.trial: Server | None = None  # an ejected server that the next new request goes to

    def configure(self, requests: int, seconds: float) -> None:
        """Sets `passive.requests` (0: off) and `passive.seconds`."""
        self._requests, self._seconds = requests, seconds

    def look(self, now: float) -> Outcome:
        """Checks all servers; to be called every LOOK_INTERVAL."""
        # Then nobody listened for a while, so silence means nothing.
        late = now - self._looked_at > 3 * LOOK_INTERVAL
        self._looked_at = now
        self.due_trial()
        servers = self._failover.table.servers
        self._runs = {each: self._runs.get(each) or Run(each) for each in servers}
        return joined(self._look_at(self._runs[server], late, now) for server in servers)

    def due_trial(self) -> Server | None:
        """`trial`, unless it has gone since that was decided, or is to get no new calls."""
        if self.trial and not self._may_be_tried(self.trial):
            self.trial = None
        return self.trial

    def start_trial(self, server: Server, now: float) -> None:
        """A new request goes to the server that is on trial."""
        self.trial = None
        run = self._runs[server]
        run.trial_sent_at = now
        server.unhandled = set()

    def readmit(self, server: Server, now: float, why: str) -> Outcome:
        """Puts an ejected server back into use."""
        if not server.ejected:
            return NOTHING
        server.ejected = ""
        if self.trial is server:
            self.trial = None
        run = self._runs.setdefault(server, Run(server))
        run.readmitted_at, run.trial_sent_at = now, None
        run.begin(self._rescued(server), now, set())
        return self._failover.readmitted(server, now, why)

    # -- one server -------------------------------------------------------------------------------

    def _look_at(self, run: Run, late: bool, now: float) -> Outcome:
        server = run.server
        if server.ejected:
            return self._look_at_ejected(run, now)
        if (
            server.handled != run.handled
            or late
            or not server.accepts_dialogs
            or not self._requests
        ):
            few = run.recent < MAX_NOTED or now < self._hedging_until
            self._begin(run, now, noted=few and server.accepts_dialogs and self._requests > 0)
            return NOTHING
        if server.unhandled is None:
            self._begin(run, now, noted=True)
            return NOTHING
        run.note(now)
        if not self._has_substitute(server):
            return NOTHING
        if run.lasts(self._requests, self._seconds, now) and self._rescued(server) > run.rescued:
            return self._eject(run, now)
        if run.lasts(HEDGE_REQUESTS, HEDGE_SECONDS, now):
            return self._hedge(server, now)
        return NOTHING

    def _hedge(self, server: Server, now: float) -> Outcome:
        """Sends what the server has not handled for a while to the next server too."""
        unhandled, pending = server.unhandled or set(), self._failover.pending
        rows = pending.take_requests(unhandled, now - HEDGE_SECONDS, MAX_HEDGED_AT_ONCE)
        rows += pending.take_one_way(server.name)
        if not rows:
            return NOTHING
        self._hedging_until = now + 3 * LOOK_INTERVAL
        for other in self._failover.table.servers:
            if other.unhandled is None:
                other.unhandled = set()
        server.ejected = "hedged"  # for as long as these are sent: no hint leads back to it
        try:
            return self._failover.hedge(rows, now)
        finally:
            server.ejected = ""

    def _eject(self, run: Run, now: float) -> Outcome:
        server, silence = run.server, now - (run.first_at or now)
        why = f"answers heartbeats, but has handled none of {run.sent} messages in {silence:.1f} s"
        recently = now - run.readmitted_at < EJECTION_MEMORY_SECONDS
        run.trial_delay = (
            min(2 * run.trial_delay, MAX_TRIAL_DELAY) if recently else FIRST_TRIAL_DELAY
        )
        run.trial_due, run.trial_sent_at = now + run.trial_delay, None
        run.handled = server.handled
        server.unhandled = set()
        return self._failover.eject(server, now, why)

    def _look_at_ejected(self, run: Run, now: float) -> Outcome:
        server = run.server
        if server.handled != run.handled:
            return self.readmit(server, now, "handles requests again")
        if not self._has_substitute(server) or not self._requests:
            return self.readmit(server, now, "nobody else is left")
        if run.trial_sent_at is not None:
            if now - run.trial_sent_at < TRIAL_SECONDS:
                return NOTHING
            run.trial_delay, run.trial_sent_at = min(2 * run.trial_delay, MAX_TRIAL_DELAY), None
            run.trial_due = now + run.trial_delay
            return self._failover.hand_over(server, now)
        if now >= run.trial_due and not self.trial and self._may_be_tried(server):
            self.trial = server
        return NOTHING

    def _may_be_tried(self, server: Server) -> bool:
        """A trial is a new call, so the server must be one that takes new calls but for its
        ejection."""
        listed = self._failover.table.by_name.get(server.name) is server
        wanted = server.admin_state is AdminState.ENABLED and not server.draining_itself
        return listed and server.up and bool(server.ejected) and wanted

    def _has_substitute(self, server: Server) -> bool:
        return any(
            other.accepts_dialogs for other in self._failover.table.servers if other is not server
        )

    def _begin(self, run: Run, now: float, noted: bool) -> None:
        """Begins a run with what was sent since about the last look and is not handled. If requests
        were not noted until now, some of them were handled; hedging those does no harm."""
        server, pending = run.server, self._failover.pending
        if not noted:
            run.begin(self._rescued(server), now, None)
            return
        keys = pending.requests_since(server.name, now - 2 * LOOK_INTERVAL)
        if server.unhandled is not None:
            keys &= server.unhandled
        run.begin(self._rescued(server), now, keys, pending.count_one_way(server.name))

    def _rescued(self, server: Server) -> int:
        """How many requests that were taken from a server other servers have handled."""
        return sum(
            other.handled_for_others
            for other in self._failover.table.servers
            if other is not server
        )
