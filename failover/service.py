"""The forwarder as a running thing: the `sip` thread, its sockets and heartbeats around the core.

Everything the core owns is touched on the `sip` thread only; other threads `ask` it.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from failover import status
from failover.chronicle import QUIET, Chronicle, Reader, plain
from failover.core import Core
from failover.health import DOWN, FAILING, REFUSED, Health
from failover.heartbeat import BURST, MAX_DATAGRAM
from failover.legs import Datagram, OwnAddress, open_phones, queued
from failover.limit import Limit
from failover.metrics import metrics
from failover.outcome import Outcome, Send
from failover.reception import Reception
from failover.secret import Secret, passing
from failover.settings import PHONES, ServerLine, Settings, differences
from failover.table import Server, ServerTable, Wish
from failover.vigil import Link, Vigil
from plumbing.address import Address, format_address
from plumbing.loop import Loop

BACKLOG = 20_000  # datagrams, more than a receive buffer holds
# settings a reload cannot change
NEXT_START = {"forwarder.listen", "forwarder.secret.file", "registration.listen", "admin.listen"}


class Forwarder:
    """`start()` returns once every socket is bound, or raises OSError; `stop()` may be called twice. Without a secret
    it makes one that ends with it."""

    def __init__(self, settings: Settings, secret: Secret | None = None) -> None:
        self.settings = settings
        self.secret = secret or passing("none was given")
        self._own = OwnAddress(settings.listen, settings.advertise)
        self._loop = Loop("sip")
        self._chronicle = Chronicle()
        self._started = time.monotonic()
        # In use at once, for a forwarder that starts again must not refuse the calls of servers that live.
        servers = [self._server(line, Health(FAILING, self._started, "not asked yet")) for line in settings.servers]
        table = ServerTable(servers, settings.policy, settings.convergence, settings.path)
        self._core = Core(table, self.secret.key, lambda host: self._own.towards(host), settings.fall, settings.rise)
        self._reception = Reception(settings, self.secret.key, self._core.counters, self._own.is_own, self)
        self._limit = self._new_limit(settings)
        self._quiet_until = 0.0  # for what is said of those who are limited
        self._links: dict[str, Link] = {}
        self._phones: socket.socket | None = None
        self._replaying = False
        self._vigil = Vigil(
            self._loop, self._core, self._chronicle, self._carry_out, self._listen, self._refused
        )

    # -- any thread -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Binds, then serves."""
        try:
            self._phones = open_phones(self.settings.listen)
            self._links = {server.name: Link(server, self.settings.listen) for server in self._core.table.servers}
            self._reception.open(self._loop)
        except OSError:
            self._close()
            raise
        phones = self._phones
        self._loop.watch(phones, lambda: self._receive(phones, PHONES))
        for link in self._links.values():
            self._watch(link)
        self._vigil.watch(self._links, self.settings.interval, self.settings.fall)
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()
        self._close()

    def reload(self, settings: Settings) -> list[str]:
        """Serves by other settings from now on; returns what changed. Raises OSError and changes nothing if a new
        server's sockets cannot be opened."""
        return self._loop.ask(lambda: self._adopt(settings))

    def status(self) -> dict[str, object]:
        """The /status object."""
        return self._loop.ask(self._status)

    def failovers(self) -> list[dict[str, object]]:
        """The /failovers list."""
        return self._loop.ask(lambda: status.failovers(self._core, time.time() - time.monotonic()))

    def wish(self, name: str, wish: Wish) -> None:
        """What the operator wants of a server, until told otherwise or started again. KeyError: there is none of that
        name."""
        self._loop.ask(lambda: self._carry_out(self._core.wish(name, wish, time.monotonic())))

    def metrics(self) -> str:
        """The /metrics text."""
        return self._loop.ask(lambda: metrics(self._core, self._started, time.monotonic(), time.time()))

    def summary(self) -> str:
        """One line for systemctl status."""
        return self._loop.ask(lambda: status.summary(self._core))

    def every(self, seconds: float, function: Callable[[], object]) -> None:
        """Calls the function again and again on the `sip` thread, for as long as that thread lives and gets on."""

        def again() -> None:
            self._loop.at(time.monotonic() + seconds, again)
            function()

        self._loop.post(again)

    def subscribe(self, reader: Reader) -> None:
        """Puts ("hello", status) and then every event into the queue; what finds it full is lost to that reader."""

        def join() -> None:
            reader.put_nowait(("hello", self._status()))
            self._chronicle.readers.append(reader)

        self._loop.ask(join)

    def unsubscribe(self, reader: Reader) -> None:
        self._loop.post(lambda: self._chronicle.leave(reader))

    # -- sip thread: messages ---------------------------------------------------------------------------------------

    def _receive(self, sock: socket.socket, leg: str, most: int = BURST) -> None:
        """Takes what is there, but not for ever: others wait too."""
        for _ in range(most):
            try:
                data, source = sock.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except ConnectionError:
                self._refused(leg, "its port refused a message")
                continue
            except OSError as error:
                self._chronicle.trouble(self._core, "receive", f"{leg}: {error}")
                continue
            self._take(data, leg, source[:2])

    def _take(self, data: bytes, leg: str, source: Address) -> None:
        if leg == PHONES and source in self._core.table.by_address:
            # A server that sends to another of our addresses than its leg has, or whose leg has a port of its own.
            leg = self._core.table.by_address[source].name
        now = time.monotonic()
        if leg == PHONES and not self._limit.admits(data, source[0], now):
            self._limited(source, now)
            return
        outcome = self._core.receive(data, leg, source, now)
        link = self._links.get(leg)
        if link:
            self._vigil.spoke(link, now)
        self._carry_out(outcome)

    def _limited(self, source: Address, now: float) -> None:
        """Costs as little as can be: of this there may be more than of all else."""
        self._core.counters["dropped.limited"] += 1
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            so_far = f"{self._core.counters['dropped.limited']} datagrams of all sources so far"
            why = f"more than limit.rate and limit.burst; {so_far}"
            self._chronicle.rarely(now, "limited", f"dropped (limited) from {format_address(source)}: {why}")

    def _listen(self, link: Link) -> None:
        """Takes all that a server has sent until now, wherever it came in."""
        self._receive(link.leg, link.server.name, BACKLOG)
        if self._phones and link.leg.getsockname()[1] != self._phones.getsockname()[1]:
            self._receive(self._phones, PHONES, BACKLOG)  # a leg of its own port hears only what answers to that

    def _take_all(self, datagrams: list[Datagram]) -> None:
        for data, source in datagrams:
            self._take(data, PHONES, source)

    def _carry_out(self, *outcomes: Outcome) -> None:
        """Sends and tells. A refusal on the way moves its server's work, which is then carried out too."""
        waiting = deque(outcomes)
        while waiting:
            outcome = waiting.popleft()
            for event in outcome.events:
                self._chronicle.tell(self._core, event)
            for send in outcome.sends:
                if not self._send(send):
                    waiting += self._gone(send.to, "its port refused a message")
        if self._core.inflight.moving and not self._replaying:
            self._replaying = True
            self._loop.post(self._replay)

    def _replay(self) -> None:
        self._replaying = False
        self._carry_out(self._core.replay(time.monotonic()))

    def _send(self, send: Send) -> bool:
        """False if the server's computer refused. Whatever else fails is counted: UDP promises nothing."""
        link = self._links.get(send.to)
        try:
            if link:
                link.leg.send(send.data)
                self._vigil.sent(link)
            elif self._phones and send.target:
                self._phones.sendto(send.data, send.target)
        except ConnectionError:
            return link is None
        except (OSError, OverflowError, ValueError) as error:
            self._chronicle.trouble(self._core, "send", f"to {send.to} {send.target or ''}: {error}")
        return True

    def _refused(self, leg: str, why: str) -> None:
        self._carry_out(*self._gone(leg, why))

    def _gone(self, name: str, why: str) -> list[Outcome]:
        """Its port refused. What it had said before that still counts: the system tells the refusal first."""
        link = self._links.get(name)
        if not link:
            return []
        now = time.monotonic()
        said = [self._core.receive(data, name, source, now) for data, source in queued(link.leg, BACKLOG)]
        return [*said, self._core.signal(name, REFUSED, now, why)]

    # -- sip thread: members ----------------------------------------------------------------------------------------

    def _adopt(self, new: Settings) -> list[str]:
        """Serves by what a reload has read; the servers that have registered themselves stay."""
        old = self.settings
        changed = differences(old, new)
        new = replace(
            new, listen=old.listen, admin=old.admin, secret_file=old.secret_file, registration=old.registration
        )
        self._serve((*new.servers, *self._reception.beside(new)), new)
        self._reception.rebase(new)
        self._limit = self._new_limit(new)
        for line in new.servers:
            self._links[line.name].server.farewell = False  # it may have come by itself before
        return [f"{said} (at the next start)" if said.split()[0] in NEXT_START else said for said in changed]

    def _serve(self, lines: Sequence[ServerLine], settings: Settings) -> None:
        """Opens all that is new first, then swaps the table, then closes what is gone."""
        now = time.monotonic()
        known = {name: link.server.address for name, link in self._links.items()}
        kept = {line.name for line in lines if known.get(line.name) == line.address}
        fresh: dict[str, Link] = {}
        try:
            for line in lines:
                if line.name not in kept:
                    health = Health(DOWN, now, "new in the list, not heard yet")
                    server = self._server(line, health)
                    if line.name in self._links:
                        server.wish = self._links[line.name].server.wish  # it has moved, the wish is for its name
                    fresh[line.name] = Link(server, self.settings.listen)
        except OSError:
            for link in fresh.values():
                link.close()
            raise
        gone = [link for name, link in self._links.items() if name not in kept]
        self._links = {line.name: fresh.get(line.name) or self._links[line.name] for line in lines}
        self._own.advertise = settings.advertise
        self.settings = settings
        for link in gone:
            self._loop.unwatch(link.leg)
            self._loop.unwatch(link.heartbeat.sock)
            link.close()
        servers = [link.server for link in self._links.values()]
        table = ServerTable(servers, settings.policy, settings.convergence, settings.path)
        self._carry_out(self._core.adopt(table, settings.fall, settings.rise, now))
        for link in fresh.values():
            self._watch(link)
        self._vigil.watch(self._links, settings.interval, settings.fall)

    def take_in(self, registered: Sequence[ServerLine]) -> None:
        self._serve((*self.settings.servers, *registered), self.settings)

    def farewell(self, name: str, leaving: bool) -> None:
        self._carry_out(self._core.farewell(name, leaving, time.monotonic()))

    def health(self) -> Mapping[str, Health]:
        return {name: link.server.health for name, link in self._links.items()}

    def say(self, reason: str, text: str) -> None:
        self._chronicle.rarely(time.monotonic(), reason, plain(text, 300))

    def _new_limit(self, settings: Settings) -> Limit:
        return Limit(settings.rate, settings.burst, settings.exempt, self._core.counters)

    def _server(self, line: ServerLine, health: Health) -> Server:
        return Server(line, health, self.secret.key)

    def _watch(self, link: Link) -> None:
        self._loop.watch(link.leg, lambda: self._receive(link.leg, link.server.name))
        self._loop.watch(link.heartbeat.sock, lambda: self._vigil.hear(link))
        self._loop.post(lambda: self._take_all(link.landed))

    def _status(self) -> dict[str, object]:
        now, wall = time.monotonic(), time.time()
        told = status.status(self._core, self.settings.listen, self._started, now, wall)
        return {**told, "secret": self.secret.fingerprint, "registration": self._reception.status(now, wall)}

    def _close(self) -> None:
        for link in self._links.values():
            link.close()
        self._reception.close()
        if self._phones:
            self._phones.close()
        self._links, self._phones = {}, None
        self._chronicle.end()
