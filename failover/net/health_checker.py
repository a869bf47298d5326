"""The health checker: pings the servers, and tells the core what their answers and silence mean.

Used on the `sip` thread only. When to ping and when silence is a miss is in check_schedule.py; what
follows for the server is in health.py. Here are the sockets, the clock and one timer for all
servers.

Rules

  1. What has arrived counts before silence does: before it counts a miss, the checker reads the
     server's sockets, for the forwarder itself may have been busy.
  2. If the timer fires more than an interval late, the process was asleep or busy, and the servers'
     silence of that time means nothing.
  3. While a server is up, any message that it sends is a sign of life. While it is DOWN, only
     answers to pings count, each to a ping sent after the last change of its state: a frozen server
     that continues answers what it finds in its queue.
  4. When it is about to come up, its side is read while it is still DOWN, so that the core drops
     the messages which it sent before.
  5. The checks never end: the timer is armed before anything can fail, and each step for each
     server is a Loop.call of its own.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from failover.admin.event_log import EventLog
from failover.net.options_ping import SERVICE_UNAVAILABLE, Answer
from failover.net.sockets import ServerLink
from failover.proxy.core import Core
from failover.upstream.check_schedule import FAST_SHARE
from failover.upstream.health import ANSWER, FAILING, MISS, Signal
from plumbing.event_loop import Loop, Timer

if TYPE_CHECKING:
    from failover.net.relay import Relay


class HealthChecker:
    """Checks the servers of the relay's links."""

    def __init__(self, loop: Loop, core: Core, event_log: EventLog, relay: Relay) -> None:
        self._loop, self._core, self._event_log, self._relay = loop, core, event_log, relay
        self._links = relay.links
        self._interval = self._patience = 0.0
        self._timer: Timer | None = None
        self._due = 0.0

    def configure(self, interval: float, fall: int) -> None:
        """Checks all links at once, and at this pace from now on."""
        self._interval, self._patience = interval, interval * (fall + 1)
        for link in self._links.values():
            link.schedule.interval, link.schedule.fall = interval, fall
        self._arm(time.monotonic())

    # -- what happens ------------------------------------------------------------------------------

    def message_sent(self, link: ServerLink) -> None:
        """A message was sent to the server: it is pinged soon if it stays silent."""
        now = time.monotonic()
        # only if that can be earlier than the timer, for this runs for every message
        if link.schedule.message_sent(now) and self._due > now + self._interval * FAST_SHARE:
            self._arm(min(self._due, now + link.schedule.fast_interval))

    def message_received(self, link: ServerLink, now: float) -> None:
        """The server has sent a message, other than an answer to a ping."""
        server, schedule, owing = link.server, link.schedule, self._core.pending.has_requests
        if not server.up:
            return
        # A hung server's timers repeat messages, too. So a message counts if the server has handled
        # something since the last one, or lately, or if there is no other server to move to.
        works, link.handled = server.handled != link.handled, server.handled
        lives = schedule.message_received(now, owing, works) or (
            self._core.table.is_last(server) and schedule.message_received(now, owing, last=True)
        )
        if lives and server.health.state is FAILING:
            self._signal(link, ANSWER, now, "sends messages")

    def _signal(
        self,
        link: ServerLink,
        signal: Signal,
        now: float,
        why: str,
        answered_503: bool | None = None,
    ) -> None:
        failover = self._core.failover
        self._relay.carry_out(failover.signal(link.server.name, signal, now, why, answered_503))

    def receive(self, link: ServerLink) -> None:
        """Reads the answers to pings."""
        now = time.monotonic()
        if not link.ping:
            return
        try:
            answers = link.ping.receive(now, self._patience)
        except OSError as error:
            self._ping_failed(link, error)
            return
        for answer in answers:
            self._answered(link, answer, now)

    def _ping_failed(self, link: ServerLink, error: OSError) -> None:
        if isinstance(error, ConnectionError):
            self._relay.server_refused(link.server.name, "its port refused a heartbeat")
            return
        link.error, link.rebind = (error.strerror or str(error)).lower(), True
        self._event_log.trouble("heartbeat", f"{link.server.name}: {error}")

    def _answered(self, link: ServerLink, answer: Answer, now: float) -> None:
        link.error, link.rebind = "", False
        link.schedule.check_answered(answer.asked, now)
        link.server.check_duration = now - answer.asked
        if not link.server.up:
            if answer.asked < link.server.health.since:  # rule 3
                return
            self._relay.drain(link)  # rule 4
        why = f"answers heartbeats ({answer.status})"
        self._signal(link, ANSWER, now, why, answer.status == SERVICE_UNAVAILABLE)

    # -- the timer ---------------------------------------------------------------------------------

    def _check_all(self) -> None:
        due = self._due
        self._arm(time.monotonic() + self._interval)  # rule 5
        checked = [link for link in list(self._links.values()) if self._check(link, due)]
        now = time.monotonic()
        latest = now + self._interval
        next_due = [link.schedule.next_due(self._fast(link)) for link in checked]
        self._arm(min(latest, max(now, min(next_due, default=latest))))

    def _check(self, link: ServerLink, due: float) -> bool:
        """Returns False if the link has no sockets or a step has failed; then its schedule is not
        asked when it is due, and it is checked an interval later."""
        if not link.ping:
            return False
        late = time.monotonic() - due > self._interval  # rule 2
        steps = (self._catch_up, self._count_miss, self._send_ping)
        succeeded = [self._loop.call(partial(step, link, late)) for step in steps]  # rule 5
        return all(succeeded)

    def _catch_up(self, link: ServerLink, late: bool) -> None:
        if late or link.schedule.miss_due(time.monotonic()):  # rule 1
            self.receive(link)
            if link.server.up:
                self._relay.drain(link)

    def _count_miss(self, link: ServerLink, late: bool) -> None:
        now = time.monotonic()
        if late:
            link.schedule.restart_silence(now)
        if link.schedule.miss_due(now):
            link.schedule.count_miss()
            why = "no answer to heartbeats" + (f": {link.error}" if link.error else "")
            self._signal(link, MISS, now, why)

    def _send_ping(self, link: ServerLink, _late: bool) -> None:
        now = time.monotonic()
        if not link.ping or not link.schedule.check_due(now, self._fast(link)):
            return
        link.schedule.check_sent(now)
        active = self._core.failover.active_since is not None
        role = self._core.table.role(link.server) if active else ""
        try:
            link.ping.send(now, self._patience, role)
        except OSError as error:
            self._ping_failed(link, error)

    def _arm(self, due: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.at(due, self._check_all)

    @staticmethod
    def _fast(link: ServerLink) -> bool:
        """Is it worth more than one ping an interval: in use, or on its way back?"""
        return link.server.up or link.server.health.steady_since is not None
