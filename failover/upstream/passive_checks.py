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

Cost: servers count the messages that they were sent and have handled. The pending messages are
looked through only for a server that has handled nothing since the last look.

Trap: while messages are hedged, their server counts as ejected, or their hints would lead back to
it. So `ejected` is set and reset around that, and nothing else may run in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from failover.proxy.events import NOTHING, Outcome, joined
from failover.proxy.pending_messages import PendingMessages
from failover.upstream.server_table import AdminState, Server

if TYPE_CHECKING:
    from failover.upstream.failover import Failover

LOOK_INTERVAL = 0.1  # seconds between two looks at all servers
HEDGE_REQUESTS, HEDGE_SECONDS = 3, 1.0
MAX_HEDGED_AT_ONCE = 200  # requests; a hundredth of a second's work
TRIAL_SECONDS = 0.5
FIRST_TRIAL_DELAY, MAX_TRIAL_DELAY = 1.0, 64.0  # seconds
EJECTION_MEMORY_SECONDS = 60.0  # in use, after which an ejection is forgotten


class Run:
    """A server's run of unhandled messages, and its trials. Times are monotonic seconds, as exact
    as the looks are."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.trial_delay = FIRST_TRIAL_DELAY
        self.trial_due = 0.0
        self.trial_sent_at: float | None = None
        self.readmitted_at = float("-inf")
        self.begin(0, 0.0)

    def begin(self, rescued: int, now: float) -> None:
        """Begins a run. `rescued`: requests of this server that others have handled by now."""
        self.began_at, self.rescued = now, rescued
        self.handled = self.server.handled
        self.sent: int | None = None  # messages in the run; None: not counted yet
        self.first_at = self.last_at = now  # when the first and the last of them were seen
        self._counted = self.server.requests + self.server.relayed

    @property
    def since(self) -> float:
        """When its earliest messages came: shortly before the look that began it."""
        return self.began_at - 2 * LOOK_INTERVAL

    def count(self, pending: PendingMessages, now: float) -> None:
        """Counts the messages since the last look; at the run's first look also the pending ones
        that came shortly before it began."""
        if self.sent is None:
            self.sent = pending.count_unhandled(self.server.name, self.since, self.began_at)
        messages = self.server.requests + self.server.relayed
        recent, self._counted = messages - self._counted, messages
        if recent:
            self.first_at = self.first_at if self.sent else now
            self.sent, self.last_at = self.sent + recent, now

    def lasts(self, requests: int, seconds: float, now: float) -> bool:
        if not self.sent or self.sent < requests or now - self.first_at < seconds:
            return False
        return self.last_at - self.first_at >= min(seconds, HEDGE_SECONDS)


class PassiveCheck:
    """Watches the servers of `failover`, and has it act."""

    def __init__(self, failover: Failover) -> None:
        self._failover = failover
        self.configure(20, 3.0)
        self._runs: dict[Server, Run] = {}
        self._looked_at = float("-inf")
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
        self._runs[server].trial_sent_at = now

    def readmit(self, server: Server, now: float, why: str) -> Outcome:
        """Puts an ejected server back into use."""
        if not server.ejected:
            return NOTHING
        server.ejected = ""
        if self.trial is server:
            self.trial = None
        run = self._runs.setdefault(server, Run(server))
        run.readmitted_at, run.trial_sent_at = now, None
        run.begin(self._rescued(server), now)
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
            run.begin(self._rescued(server), now)
            return NOTHING
        run.count(self._failover.pending, now)
        if not self._has_substitute(server):
            return NOTHING
        if run.lasts(self._requests, self._seconds, now) and self._rescued(server) > run.rescued:
            return self._eject(run, now)
        if run.lasts(HEDGE_REQUESTS, HEDGE_SECONDS, now):
            return self._hedge(run, now)
        return NOTHING

    def _hedge(self, run: Run, now: float) -> Outcome:
        """Sends what the server has not handled for a while to the next server too. What it left
        alone before the run, while it handled others, it may have dropped for a reason."""
        server, pending = run.server, self._failover.pending
        before = now - HEDGE_SECONDS
        taken = pending.take_requests(server.name, run.since, before, MAX_HEDGED_AT_ONCE)
        taken += pending.take_one_way(server.name)
        if not taken:
            return NOTHING
        server.ejected = "hedged"  # for as long as these are sent: no hint leads back to it
        try:
            return self._failover.hedge(taken, now)
        finally:
            server.ejected = ""

    def _eject(self, run: Run, now: float) -> Outcome:
        server, silence = run.server, now - run.first_at
        why = f"answers heartbeats, but has handled none of {run.sent} messages in {silence:.1f} s"
        recently = now - run.readmitted_at < EJECTION_MEMORY_SECONDS
        run.trial_delay = (
            min(2 * run.trial_delay, MAX_TRIAL_DELAY) if recently else FIRST_TRIAL_DELAY
        )
        run.trial_due, run.trial_sent_at = now + run.trial_delay, None
        run.handled = server.handled
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

    def _rescued(self, server: Server) -> int:
        """How many requests that were taken from a server other servers have handled."""
        return sum(
            other.handled_for_others
            for other in self._failover.table.servers
            if other is not server
        )
