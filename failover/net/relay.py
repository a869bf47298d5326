"""The relay: takes datagrams from the sockets to the core, and sends what the core returns.

Used on the `sip` thread only.

How a message passes

  The loop finds a socket readable and calls receive(): one datagram, or a batch (udp_batch.py).
  Each is given to the core's fast path, or to core.receive() if that returns nothing. What is to be
  sent is queued by side, in `_outgoing`, and leaves in one flush after the batch, so that sendmmsg
  has batches too. A flush may discover that a server is dead, which queues what it had pending: it
  repeats until nothing is queued.

What comes from where

  A server's socket is connected and tells the side by itself. On the phones' socket a datagram may
  be a server's all the same, by its source address (sockets.py). All others are phones', and
  limited. Sources that are neither a server nor limited are remembered in `_plain`, for as long as
  the same server table and limit are in force.

Errors

  ConnectionRefusedError on a server's socket: it is dead. It is reported before the datagrams that
  the server had sent, so these are handled first, while the core still listens to that server.
  On the phones' socket the system reports one phone's refusal in place of another one's send or
  receive: that is tried again, and the refused message is taken from the error queue (icmp_errors).
  A defect in our code costs one datagram: each is handled in a try of its own, and counted.
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
from failover.net.health_checker import HealthChecker
from failover.net.sockets import ServerLink, icmp_errors, queued
from failover.proxy.core import Core
from failover.proxy.events import Outcome
from failover.proxy.rate_limit import RateLimit
from failover.upstream.health import REFUSED
from plumbing.address import Address, format_address
from plumbing.event_loop import Loop
from plumbing.throttled_log import LOG_INTERVAL_SECONDS
from plumbing.udp_batch import Channel, Datagram, Failure, Outgoing

NO_QUEUE: list[Outgoing] = []
MAX_PLAIN = 4_096  # addresses
SERVICE_UNAVAILABLE, MESSAGE_TOO_LARGE = 503, 513  # RFC 3261 21.5.4, 21.5.10
MAX_SENT = 256  # batches sent to phones that are kept to be matched with ICMP errors
BACKLOG = 20_000  # datagrams, more than a receive buffer holds


class Relay:
    """`phones` is the phones' socket, None on standby; `links` are the servers', which
    server_links.py opens; `limit` applies to phones."""

    def __init__(self, loop: Loop, core: Core, event_log: EventLog, limit: RateLimit) -> None:
        self.phones: Channel | None = None
        self.links: dict[str, ServerLink] = {}
        self.limit = limit
        self.checker = HealthChecker(loop, core, event_log, self)
        self._loop, self._event_log = loop, event_log
        self._core, self._failover = core, core.failover
        self._outgoing: dict[str, list[Outgoing]] = {}  # by side
        self._plain: set[Address] = set()
        self._plain_for: tuple[object, object] = (None, None)  # the server table and the limit
        self._replay_posted = False
        self._sent: deque[list[Outgoing]] = deque(maxlen=MAX_SENT)
        self._next_limited_line = 0.0

    # -- in ----------------------------------------------------------------------------------------

    def receive(self, channel: Channel, side: str) -> None:
        """Handles one datagram or one batch of a readable socket."""
        datagrams, error = channel.receive()
        if not datagrams and side == PHONES:
            self._handle_icmp_errors(channel)
        if datagrams or side != PHONES or not isinstance(error, ConnectionError):
            self._handle(datagrams, error, side)

    def drain(self, link: ServerLink) -> None:
        """Handles everything that a server has sent until now."""
        if not link.channel or not self.phones:
            return
        self._drain(link.channel, link.server.name)
        if link.channel.sock.getsockname()[1] != self.phones.sock.getsockname()[1]:
            self._drain(self.phones, PHONES)  # where its requests arrive then

    def take_landed(self, datagrams: Sequence[Datagram]) -> None:
        """Handles what landed on a server's socket before that was connected."""
        self._handle(datagrams, None, PHONES)

    def finish(self, seconds: float) -> None:
        """Handles everything that has been received, for at most so long."""
        until = time.monotonic() + seconds
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
            self._handle(datagrams, error, side)
            taken += max(1, len(datagrams))

    def _handle(self, datagrams: Sequence[Datagram], error: OSError | None, side: str) -> None:
        """Handles the datagrams of one side, then the error that was met after them."""
        now = time.monotonic()
        link, outgoing, plain = self.links.get(side), self._outgoing, self._plain_sources()
        quick = None if self._event_log.wants_messages else self._core.quick
        last_side, queue = "", NO_QUEUE  # the queue of the datagram before
        for data, source in datagrams:
            try:
                if (
                    side == PHONES
                    and source not in plain
                    and not self._is_phones(data, source, now)
                ):
                    last_side = ""  # that may have flushed the queues
                    continue
                send = quick(data, side, source, now) if quick else None
                if send:
                    to, onward, target = send
                    if to != last_side:
                        last_side, queue = to, outgoing.setdefault(to, [])
                    queue.append((onward, target))
                else:
                    self._note(self._core.receive(data, side, source, now))
            except Exception as failure:  # a defect of ours, which costs this datagram only
                self._loop.failed(failure)
                last_side = ""
        if link and datagrams:
            self.checker.message_received(link, now)
        self._flush()
        if isinstance(error, ConnectionError):
            self.server_refused(side, "its port refused a message")
        elif error:
            self._event_log.trouble("receive", f"{side}: {error}")

    def _plain_sources(self) -> set[Address]:
        table, limit = self._plain_for
        changed = table is not self._failover.table or limit is not self.limit
        if changed or len(self._plain) > MAX_PLAIN:
            self._plain_for = self._failover.table, self.limit
            self._plain.clear()
        return self._plain

    def _is_phones(self, data: bytes, source: Address, now: float) -> bool:
        """Is this datagram on the phones' socket a phone's, and within the limit? If it is a
        server's, it is handled here."""
        server = self._failover.table.by_address.get(source)
        if server:
            self._handle([(data, source)], None, server.name)
            return False
        if self.limit.admits(data, source[0], now):
            if self.limit.is_exempt(source[0]):
                self._plain.add(source)
            return True
        self._drop_limited(source, now)
        return False

    def _drop_limited(self, source: Address, now: float) -> None:
        """Counts a datagram beyond the limit; a line a second, written only when it is due, since
        in a flood this runs more often than anything else."""
        self._core.counters["dropped.limited"] += 1
        if now >= self._next_limited_line:
            self._next_limited_line = now + LOG_INTERVAL_SECONDS
            so_far = f"{self._core.counters['dropped.limited']} datagrams of all sources so far"
            why = f"more than limit.rate and limit.burst; {so_far}"
            text = f"dropped (limited) from {format_address(source)}: {why}"
            self._event_log.throttled(now, "limited", text)

    # -- out ---------------------------------------------------------------------------------------

    def carry_out(self, *outcomes: Outcome) -> None:
        """Sends and records what the core returned, and what follows if a send is refused."""
        try:
            for outcome in outcomes:
                self._note(outcome)
        finally:
            self._flush()

    def server_refused(self, name: str, why: str) -> None:
        """The system reports that nobody receives at a server's address."""
        self._signal_refused(name, why)
        self._flush()

    def _note(self, outcome: Outcome) -> None:
        """Queues what is to be sent, and records the events."""
        for send in outcome.sends:
            self._outgoing.setdefault(send.to, []).append((send.data, send.target))
        for event in outcome.events:
            self._loop.call(partial(self._event_log.record, event))

    def _flush(self) -> None:
        while self._outgoing:
            side, datagrams = self._outgoing.popitem()
            try:
                self._send(side, datagrams)
            except Exception as failure:  # the other sides' leave all the same
                self._loop.failed(failure)
        while self._failover.replay_errors:
            self._loop.failed(self._failover.replay_errors.pop())
        if self._core.pending.moved and not self._replay_posted:
            self._replay_posted = True
            self._loop.post(self._replay)

    def _send(self, side: str, datagrams: list[Outgoing]) -> None:
        link = self.links.get(side)
        channel = link.channel if link else self.phones if side == PHONES else None
        if not channel:  # the server was removed a moment ago or is unreachable; or we are standby
            self._core.counters["dropped.closed"] += len(datagrams)
            return
        failures = channel.send(datagrams)
        if not link:
            self._sent.append(datagrams)
            failures = self._send_again(channel, datagrams, failures)
        elif not failures:
            self.checker.message_sent(link)
        if failures:
            self._handle_failures(side, datagrams, failures)

    def _send_again(
        self, channel: Channel, datagrams: list[Outgoing], failures: list[Failure]
    ) -> list[Failure]:
        """Sends once more to each phone in whose place the system reported another's refusal.
        Returns the failures that are left."""
        refused = [index for index, error in failures if isinstance(error, ConnectionError)]
        if refused:
            self._loop.post(partial(self._handle_icmp_errors, channel))
            again = channel.send([datagrams[index] for index in refused])
            failures = [each for each in failures if each[0] not in refused]
            failures += [(refused[at], error) for at, error in again]
        return failures

    def _handle_failures(
        self, side: str, datagrams: list[Outgoing], failures: list[Failure]
    ) -> None:
        """A peer's computer has refused, or the system would not send. The senders of requests are
        answered (RFC 3261 16.9, 18.4), except where a server cannot be reached, which the health
        check notices."""
        now = time.monotonic()
        for index, error in failures:
            data, target = datagrams[index]
            if isinstance(error, ConnectionError):
                continue
            self._event_log.trouble("send", f"to {side} {target or ''}: {error}")
            too_large = error.errno == errno.EMSGSIZE
            if side == PHONES or too_large:
                status = MESSAGE_TOO_LARGE if too_large else SERVICE_UNAVAILABLE
                self._loop.call(partial(self._undelivered, data, side, status, now))
        if side != PHONES and any(isinstance(error, ConnectionError) for _, error in failures):
            self._signal_refused(side, "its port refused a message")

    def _handle_icmp_errors(self, channel: Channel) -> None:
        """Answers requests that a phone's computer has refused. An ICMP error counts only if it
        quotes a message sent lately to that address, for anybody can invent one."""
        if channel is not self.phones:  # closed since this was posted
            return
        now = time.monotonic()
        for quoted, target in icmp_errors(channel.sock):
            self._core.counters["refused"] += 1
            for data, sent_to in chain.from_iterable(reversed(self._sent)):
                if sent_to == target and data.startswith(quoted):
                    undelivered = partial(self._undelivered, data, PHONES, SERVICE_UNAVAILABLE, now)
                    self._loop.call(undelivered)
                    break
        self._flush()

    def _undelivered(self, data: bytes, side: str, status: int, now: float) -> None:
        self._note(self._core.undelivered(data, side, status, now))

    def _replay(self) -> None:
        """Sends a part of a dead server's pending messages to the next one; the flush posts the
        next part."""
        self._replay_posted = False
        try:
            self.carry_out(self._failover.replay(time.monotonic()))
        finally:
            self._flush()

    def _receive_one(self, data: bytes, side: str, source: Address, now: float) -> None:
        self._note(self._core.receive(data, side, source, now))

    def _signal_refused(self, name: str, why: str) -> None:
        """Tells the core that the server is dead, after handling what it had sent before."""
        link = self.links.get(name)
        if link:
            now = time.monotonic()
            for data, source in queued(link.channel.sock, BACKLOG) if link.channel else ():
                self._loop.call(partial(self._receive_one, data, name, source, now))
            self._note(self._failover.signal(name, REFUSED, now, why))
