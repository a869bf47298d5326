"""The forwarder's traffic: takes datagrams from its sockets to the core, and to other sockets what
the core says.

Used on the `sip` thread only. What came in together is handled together, then sent together.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import chain

from failover.admin.event_log import EventLog
from failover.config.settings import PHONES
from failover.net.health_checker import Link, Vigil
from failover.net.sockets import queued, refusals
from failover.proxy.core import Core
from failover.proxy.events import Outcome
from failover.proxy.rate_limit import Limit
from failover.upstream.health import REFUSED
from plumbing.address import Address, format_address
from plumbing.event_loop import Loop
from plumbing.throttled_log import LOG_INTERVAL_SECONDS
from plumbing.udp_batch import Channel, Datagram, Failure, Outgoing

NO_QUEUE: list[Outgoing] = []
MOST_PLAIN = 4_096  # addresses
UNAVAILABLE, TOO_LARGE = 503, 513  # RFC 3261 21.5.4, 21.5.10
REMEMBERED_SENDS = 256  # lots sent to phones, for refusals to be matched with
BACKLOG = 20_000  # datagrams, more than a receive buffer holds


class Traffic:
    """`phones` and `links` have the sockets, which are open while the forwarder is the active one;
    `limit` holds for the phones'."""

    def __init__(self, loop: Loop, core: Core, event_log: EventLog, limit: Limit) -> None:
        self.phones: Channel | None = None
        self.links: dict[str, Link] = {}
        self.limit = limit
        self.vigil = Vigil(loop, core, event_log, self.carry_out, self.listen, self.refused)
        self._loop, self._core, self._event_log = loop, core, event_log
        self._leaving: dict[str, list[Outgoing]] = {}  # by side
        # Addresses from which everything is taken for what it is: no server's, and not limited; and
        # as long as which table and which limit hold.
        self._plain: set[Address] = set()
        self._plain_while: tuple[object, object] = (None, None)
        self._replaying = False
        self._sent: deque[list[Outgoing]] = deque(maxlen=REMEMBERED_SENDS)  # to phones
        self._quiet_until = 0.0  # for what is said of those who are limited

    # -- in ----------------------------------------------------------------------------------------

    def receive(self, channel: Channel, side: str) -> None:
        """Takes some of what is there: others wait too."""
        datagrams, error = channel.receive()
        if not datagrams and side == PHONES:
            self._hear_refusals(channel)
        if datagrams or side != PHONES or not isinstance(error, ConnectionError):
            self._take(datagrams, error, side)

    def listen(self, link: Link) -> None:
        """Takes all that a server has sent until now, wherever it came in."""
        if not link.channel or not self.phones:
            return
        self._drain(link.channel, link.server.name)
        if link.channel.sock.getsockname()[1] != self.phones.sock.getsockname()[1]:
            # a side of its own port hears only what answers to that
            self._drain(self.phones, PHONES)

    def take_landed(self, link: Link) -> None:
        self._take(link.landed, None, PHONES)

    def finish(self, patience: float) -> None:
        """Takes what has come until now, for so many seconds at most."""
        until = time.monotonic() + patience
        for link in self.links.values():
            if link.channel:
                self._drain(link.channel, link.server.name, until)
        if self.phones:
            self._drain(self.phones, PHONES, until)

    def _drain(self, channel: Channel, side: str, until: float = float("inf")) -> None:
        taken = 0
        while taken < BACKLOG and time.monotonic() < until:
            datagrams, error = channel.drain()
            if not datagrams and not error:
                return
            self._take(datagrams, error, side)
            taken += max(1, len(datagrams))

    def _take(self, datagrams: Sequence[Datagram], error: OSError | None, side: str) -> None:
        """What came in on a side, and the error that was met after it."""
        now = time.monotonic()
        link, leaving, plain = self.links.get(side), self._leaving, self._plain_sources()
        quick = None if self._event_log.wants_messages else self._core.quick
        to_last, queue = "", NO_QUEUE
        for data, source in datagrams:
            try:
                if (
                    side == PHONES
                    and source not in plain
                    and not self._is_phones(data, source, now)
                ):
                    to_last = ""  # all may have left meanwhile
                    continue
                send = quick(data, side, source, now) if quick else None
                if send:
                    to, onward, target = send
                    if to != to_last:
                        to_last, queue = to, leaving.setdefault(to, [])
                    queue.append((onward, target))
                else:
                    self._note(self._core.receive(data, side, source, now))
            # a defect of ours, which costs this datagram and none of those behind it
            except Exception as failure:
                self._loop.failed(failure)
                to_last = ""
        if link and datagrams:
            self.vigil.spoke(link, now)
        self._flush()
        if isinstance(error, ConnectionError):
            self.refused(side, "its port refused a message")
        elif error:
            self._event_log.trouble(self._core, "receive", f"{side}: {error}")

    def _plain_sources(self) -> set[Address]:
        table, limit = self._plain_while
        if (
            table is not self._core.table
            or limit is not self.limit
            or len(self._plain) > MOST_PLAIN
        ):
            self._plain_while = self._core.table, self.limit
            self._plain.clear()
        return self._plain

    def _is_phones(self, data: bytes, source: Address, now: float) -> bool:
        """False if what came to the phones' socket is a server's, and was handled as such, or is
        too much."""
        server = self._core.table.by_address.get(source)
        if server:
            # One that sends to another of our addresses than its side has, or whose side has a port
            # of its own.
            self._take([(data, source)], None, server.name)
            return False
        if self.limit.admits(data, source[0], now):
            if self.limit.spares(source[0]):
                self._plain.add(source)
            return True
        self._limited(source, now)
        return False

    def _limited(self, source: Address, now: float) -> None:
        """Costs as little as can be: of this there may be more than of all else."""
        self._core.counters["dropped.limited"] += 1
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_INTERVAL_SECONDS
            so_far = f"{self._core.counters['dropped.limited']} datagrams of all sources so far"
            why = f"more than limit.rate and limit.burst; {so_far}"
            self._event_log.throttled(
                now, "limited", f"dropped (limited) from {format_address(source)}: {why}"
            )

    # -- out ---------------------------------------------------------------------------------------

    def carry_out(self, *outcomes: Outcome) -> None:
        """Sends and tells. A refusal on the way moves its server's work, which is then carried out
        too."""
        try:
            for outcome in outcomes:
                self._note(outcome)
        finally:
            self._flush()

    def refused(self, name: str, why: str) -> None:
        self._gone(name, why)
        self._flush()

    def _note(self, outcome: Outcome) -> None:
        """Tells what happened; what is to be sent leaves at the next flush."""
        for send in outcome.sends:
            self._leaving.setdefault(send.to, []).append((send.data, send.target))
        for event in outcome.events:
            self._loop.call(partial(self._event_log.record, self._core, event))

    def _flush(self) -> None:
        while self._leaving:
            side, datagrams = self._leaving.popitem()
            try:
                self._send(side, datagrams)
            except Exception as failure:  # others leave all the same
                self._loop.failed(failure)
        while self._core.unfit:
            self._loop.failed(self._core.unfit.pop())
        if self._core.inflight.moving and not self._replaying:
            self._replaying = True
            self._loop.post(self._replay)

    def _send(self, side: str, datagrams: list[Outgoing]) -> None:
        link = self.links.get(side)
        channel = link.channel if link else self.phones if side == PHONES else None
        # a server that was in the list, or could be reached, a moment ago; or we are on standby now
        if not channel:
            self._core.counters["dropped.closed"] += len(datagrams)
            return
        failures = channel.send(datagrams)
        if not link:
            self._sent.append(datagrams)
            failures = self._send_again(channel, datagrams, failures)
        elif not failures:
            self.vigil.sent(link)
        if failures:
            self._failed(side, datagrams, failures)

    def _send_again(
        self, channel: Channel, datagrams: list[Outgoing], failures: list[Failure]
    ) -> list[Failure]:
        """On a socket for many peers the system tells one's refusal in place of sending to another:
        that one is sent to once more. Returns what has failed for a reason of its own."""
        refused = [index for index, error in failures if isinstance(error, ConnectionError)]
        if refused:
            self._loop.post(lambda: self._hear_refusals(channel))
            again = channel.send([datagrams[index] for index in refused])
            failures = [each for each in failures if each[0] not in refused]
            failures += [(refused[at], error) for at, error in again]
        return failures

    def _failed(self, side: str, datagrams: list[Outgoing], failures: list[Failure]) -> None:
        """The peer's computer refused, or the system would not send: then its sender hears so (RFC
        3261 16.9, 18.4)."""
        now = time.monotonic()
        for index, error in failures:
            data, target = datagrams[index]
            if isinstance(error, ConnectionError):
                continue
            self._event_log.trouble(self._core, "send", f"to {side} {target or ''}: {error}")
            # a server that cannot be reached is soon found DOWN
            if side == PHONES or error.errno == errno.EMSGSIZE:
                status = TOO_LARGE if error.errno == errno.EMSGSIZE else UNAVAILABLE
                self._loop.call(partial(self._undelivered, data, side, status, now))
        if side != PHONES and any(isinstance(error, ConnectionError) for _, error in failures):
            self._gone(side, "its port refused a message")

    def _hear_refusals(self, channel: Channel) -> None:
        """A phone's computer refused: its server need not wait for it. What the refusal quotes is
        looked for among the last messages sent; a stranger's invention is none of them."""
        now = time.monotonic()
        for quoted, target in refusals(channel.sock):
            self._core.counters["refused"] += 1
            for data, sent_to in chain.from_iterable(reversed(self._sent)):
                if sent_to == target and data.startswith(quoted):
                    self._loop.call(partial(self._undelivered, data, PHONES, UNAVAILABLE, now))
                    break
        self._flush()

    def _undelivered(self, data: bytes, side: str, status: int, now: float) -> None:
        self._note(self._core.undelivered(data, side, status, now))

    def _replay(self) -> None:
        self._replaying = False
        try:
            self.carry_out(self._core.replay(time.monotonic()))
        finally:
            self._flush()  # which sees to what is still to be replayed

    def _hear(self, data: bytes, side: str, source: Address, now: float) -> None:
        self._note(self._core.receive(data, side, source, now))

    def _gone(self, name: str, why: str) -> None:
        """Its port refused. What it had said before that still counts: the system tells the refusal
        first."""
        link = self.links.get(name)
        if link:
            now = time.monotonic()
            for data, source in queued(link.channel.sock, BACKLOG) if link.channel else ():
                self._loop.call(partial(self._hear, data, name, source, now))
            self._note(self._core.signal(name, REFUSED, now, why))
