"""Watching the servers: asks them, hears them, and tells the core what their answers and their
silence mean.

Used on the `sip` thread only. When to ask and what silence means is in check_schedule.py,
what follows from it in health.py.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial

from failover.admin.event_log import Chronicle
from failover.net.options_ping import NOT_NOW, Answer, Heartbeat
from failover.net.sockets import open_side
from failover.proxy.core import Core
from failover.proxy.events import Outcome
from failover.upstream.check_schedule import FAST_SHARE, CheckSchedule
from failover.upstream.health import ANSWER, FAILING, MISS
from failover.upstream.server_table import Server
from plumbing.address import Address
from plumbing.event_loop import Loop, Timer
from plumbing.udp_batch import Channel, Datagram, DatagramIO


class Link:
    """The sockets that lead to one server: `heartbeat`'s, and while the forwarder is active
    `channel`, its side. Either is None while it cannot be opened, as where no route leads to the
    server; it is then tried again and again, and the server is not asked and is DOWN. `landed`:
    datagrams of others that came in on the side before it was connected. `trouble`: the system's
    last refusal to open or use the sockets, "" once a heartbeat is answered. `stale`: it would not
    send a heartbeat, so the socket may be bound to an address that this computer has no more; or
    the forwarder's own address has come or left."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.schedule = CheckSchedule(time.monotonic())
        self.heartbeat: Heartbeat | None = None
        self.channel: Channel | None = None
        self.handled = 0  # of the server's, when it spoke last
        self.landed: list[Datagram] = []
        self.trouble = ""
        self.stale = False

    def open_side(self, listen: Address, manner: DatagramIO) -> Channel:
        """Raises OSError where the server's address cannot be reached."""
        side, self.landed = open_side(listen, self.server.address)
        self.channel = Channel(side, manner)
        return self.channel

    def open_heartbeat(self, host: str) -> Heartbeat:
        """`host`: what the forwarder listens on. Raises OSError where the server's address cannot
        be reached."""
        self.heartbeat = Heartbeat(self.server.address, secrets.token_hex(8), host)
        self.stale = False
        return self.heartbeat

    def close(self) -> None:
        if self.channel:
            self.channel.sock.close()
        if self.heartbeat:
            self.heartbeat.close()
        self.channel = self.heartbeat = None


class Vigil:
    """One timer for all servers. `carry_out` does what the core says; `listen(link)` reads all that
    its side holds; `refused(name, why)`: the system says that nobody is there."""

    def __init__(
        self,
        loop: Loop,
        core: Core,
        chronicle: Chronicle,
        carry_out: Callable[[Outcome], None],
        listen: Callable[[Link], None],
        refused: Callable[[str, str], None],
    ) -> None:
        self._loop, self._core, self._chronicle = loop, core, chronicle
        self._carry_out, self._listen, self._refused = carry_out, listen, refused
        self._links: dict[str, Link] = {}
        self._interval = self._patience = 0.0
        self._timer: Timer | None = None
        self._due = 0.0

    def watch(self, links: dict[str, Link], interval: float, fall: int) -> None:
        """These servers and at this pace, from now on."""
        self._links = links
        self._interval, self._patience = interval, interval * (fall + 1)
        for link in links.values():
            link.schedule.interval, link.schedule.fall = interval, fall
        self._look_at(time.monotonic())

    # -- what happens ------------------------------------------------------------------------------

    def sent(self, link: Link) -> None:
        """A message was passed on to it."""
        now = time.monotonic()
        # the least that a moment is
        if link.schedule.message_sent(now) and self._due > now + self._interval * FAST_SHARE:
            self._look_at(min(self._due, now + link.schedule.fast_interval))

    def spoke(self, link: Link, now: float) -> None:
        """It sent a message. What a server behind the fence says is no sign of life."""
        server, schedule, owing = link.server, link.schedule, self._core.inflight.owing
        if not server.up:
            return
        works, link.handled = server.handled != link.handled, server.handled
        lives = schedule.message_received(now, owing, works) or (
            self._core.is_last(server) and schedule.message_received(now, owing, last=True)
        )
        if lives and server.health.state is FAILING:
            self._carry_out(self._core.signal(server.name, ANSWER, now, "sends messages"))

    def hear(self, link: Link) -> None:
        """Takes the answers to heartbeats that have come."""
        now = time.monotonic()
        if not link.heartbeat:
            return
        try:
            answers = link.heartbeat.hear(now, self._patience)
        except OSError as error:
            self._failed(link, error)
            return
        for answer in answers:
            self._answered(link, answer, now)

    def _failed(self, link: Link, error: OSError) -> None:
        """The system would not send a heartbeat, or has told what became of one."""
        if isinstance(error, ConnectionError):
            self._refused(link.server.name, "its port refused a heartbeat")
            return
        link.trouble, link.stale = (error.strerror or str(error)).lower(), True
        self._chronicle.trouble(self._core, "heartbeat", f"{link.server.name}: {error}")

    def _answered(self, link: Link, answer: Answer, now: float) -> None:
        link.trouble, link.stale = "", False
        link.schedule.check_answered(answer.asked, now)
        link.server.check_duration = now - answer.asked
        health = link.server.health
        if not health.alive:
            # Each step back to life needs an answer to a question asked after the one before: of
            # what a thawed server finds in its queue, nothing proves that it is back.
            if answer.asked < health.since:
                return
            self._listen(link)  # what is stale falls while the fence still stands
        why = f"answers heartbeats ({answer.status})"
        self._carry_out(
            self._core.signal(link.server.name, ANSWER, now, why, answer.status == NOT_NOW)
        )

    # -- the timer ---------------------------------------------------------------------------------

    def _look(self) -> None:
        """Whatever fails for one server, the others are asked, and all of them again: the checks
        never end."""
        due, links = self._due, list(self._links.values())
        self._look_at(time.monotonic() + self._interval)  # should all else fail
        sound = [link for link in links if self._look_after(link, due)]
        now = time.monotonic()
        hopeful = [link.schedule.next_due(self._hopeful(link)) for link in sound]
        self._look_at(
            min(now + self._interval, max(now, min(hopeful, default=now + self._interval)))
        )

    def _look_after(self, link: Link, due: float) -> bool:
        """False if it is to be looked at an interval later, whatever its schedule says: it has no
        sockets, or something raised, which is counted and told. Each step is taken whether or not
        the one before raised."""
        if not link.heartbeat:
            return False
        # We slept, or were busy with the one before, so its silence means nothing.
        late = time.monotonic() - due > self._interval
        steps = (self._catch_up, self._judge, self._question)
        went = [self._loop.call(partial(step, link, late)) for step in steps]
        return all(went)

    def _catch_up(self, link: Link, late: bool) -> None:
        """What has come counts before silence does."""
        if late or link.schedule.miss_due(time.monotonic()):
            self.hear(link)
            if link.server.up:
                self._listen(link)

    def _judge(self, link: Link, late: bool) -> None:
        now = time.monotonic()
        if late:
            link.schedule.restart_silence(now)
        if link.schedule.miss_due(now):
            link.schedule.count_miss()
            why = "no answer to heartbeats" + (f": {link.trouble}" if link.trouble else "")
            self._carry_out(self._core.signal(link.server.name, MISS, now, why))

    def _question(self, link: Link, late: bool) -> None:
        now = time.monotonic()
        if not link.heartbeat or not link.schedule.check_due(now, self._hopeful(link)):
            return
        link.schedule.check_sent(now)
        # One on standby gives no server work, so it calls none hot.
        role = self._core.table.role(link.server) if self._core.serving is not None else ""
        try:
            link.heartbeat.ask(now, self._patience, role)
        except OSError as error:
            self._failed(link, error)

    def _look_at(self, due: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.at(due, self._look)

    @staticmethod
    def _hopeful(link: Link) -> bool:
        return link.server.up or link.server.health.steady_since is not None
