"""The forwarder as a running thing: the `sip` thread, its sockets and heartbeats around the core.

Everything the core owns is touched on the `sip` thread only; other threads `ask` it.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from failover import status
from failover.chronicle import Chronicle, Reader
from failover.core import Core
from failover.health import ANSWER, DOWN, FAILING, MISS, REFUSED, Health
from failover.heartbeat import BURST, MAX_DATAGRAM, NOT_NOW, Answer, Heartbeat
from failover.legs import Datagram, OwnAddress, open_leg, open_phones
from failover.outcome import Outcome, Send
from failover.secret import Secret, passing
from failover.settings import PHONES, ServerLine, Settings, differences
from failover.table import Server, ServerTable
from plumbing.address import Address
from plumbing.loop import Loop

BACKLOG = 20_000  # datagrams, more than a receive buffer holds
NEXT_START = {"forwarder.listen", "forwarder.secret.file", "admin.listen"}  # settings a reload cannot change


class Link:
    """All that leads to one server. `landed`: what others sent that came in on its leg before it was connected."""

    def __init__(self, server: Server, listen: Address) -> None:
        self.server = server
        self.heartbeat = Heartbeat(server.address, secrets.token_hex(8))
        try:
            self.leg, self.landed = open_leg(listen, server.address)
        except OSError:
            self.heartbeat.close()
            raise

    def close(self) -> None:
        self.leg.close()
        self.heartbeat.close()


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
        table = ServerTable(servers, settings.policy, settings.convergence)
        self._core = Core(table, self.secret.key, lambda host: self._own.towards(host), settings.fall, settings.rise)
        self._links: dict[str, Link] = {}
        self._phones: socket.socket | None = None
        self._due = 0.0

    # -- any thread -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Binds, then serves."""
        try:
            self._phones = open_phones(self.settings.listen)
            self._links = {server.name: Link(server, self.settings.listen) for server in self._core.table.servers}
        except OSError:
            self._close()
            raise
        phones = self._phones
        self._loop.watch(phones, lambda: self._receive(phones, PHONES))
        for link in self._links.values():
            self._watch(link)
        self._due = time.monotonic()
        self._loop.at(self._due, self._beat)
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

    def metrics(self) -> str:
        """The /metrics text."""
        return self._loop.ask(lambda: status.metrics(self._core, self._started, time.monotonic()))

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
                self._refused(leg)
                continue
            except OSError as error:
                self._chronicle.trouble(self._core, "receive", f"{leg}: {error}")
                continue
            self._take(data, leg, source[:2])

    def _take(self, data: bytes, leg: str, source: Address) -> None:
        if leg == PHONES and source in self._core.table.by_address:
            # A server that sends to another of our addresses than its leg has, or whose leg has a port of its own.
            leg = self._core.table.by_address[source].name
        self._carry_out(self._core.receive(data, leg, source, time.monotonic()))

    def _take_all(self, datagrams: list[Datagram]) -> None:
        for data, source in datagrams:
            self._take(data, PHONES, source)

    def _carry_out(self, outcome: Outcome) -> None:
        """Sends and tells. A refusal on the way moves its server's work, which is then carried out too."""
        waiting = deque([outcome])
        while waiting:
            outcome = waiting.popleft()
            for event in outcome.events:
                self._chronicle.tell(self._core, event)
            for send in outcome.sends:
                if not self._send(send):
                    waiting.append(self._core.signal(send.to, REFUSED, time.monotonic(), "its port refused a message"))

    def _send(self, send: Send) -> bool:
        """False if the server's computer refused. Whatever else fails is counted: UDP promises nothing."""
        link = self._links.get(send.to)
        try:
            if link:
                link.leg.send(send.data)
            elif self._phones and send.target:
                self._phones.sendto(send.data, send.target)
        except ConnectionError:
            return link is None
        except (OSError, OverflowError, ValueError) as error:
            self._chronicle.trouble(self._core, "send", f"to {send.to} {send.target or ''}: {error}")
        return True

    def _refused(self, leg: str) -> None:
        if leg != PHONES:
            self._carry_out(self._core.signal(leg, REFUSED, time.monotonic(), "its port refused a message"))

    # -- sip thread: heartbeats -------------------------------------------------------------------------------------

    def _beat(self) -> None:
        """Once an interval: what has come counts, then who kept silent missed one, then everybody is asked again."""
        now = time.monotonic()
        late = now - self._due > self.settings.interval  # we slept, so nobody else's silence means anything
        for link in list(self._links.values()):
            self._hear(link)
            if not link.heartbeat.heard and not late:
                self._carry_out(self._core.signal(link.server.name, MISS, now, "no answer to heartbeats"))
            link.heartbeat.heard = False
            try:
                link.heartbeat.ask(now, self.settings.patience)
            except ConnectionError:
                self._heartbeat_refused(link)
            except OSError as error:
                self._chronicle.trouble(self._core, "heartbeat", f"{link.server.name}: {error}")
        self._due = max(self._due + self.settings.interval, time.monotonic())
        self._loop.at(self._due, self._beat)

    def _hear(self, link: Link) -> None:
        now = time.monotonic()
        try:
            for answer in link.heartbeat.hear(now, self.settings.patience):
                self._answered(link, answer, now)
        except ConnectionError:
            self._heartbeat_refused(link)
        except OSError as error:
            self._chronicle.trouble(self._core, "heartbeat", f"{link.server.name}: {error}")

    def _answered(self, link: Link, answer: Answer, now: float) -> None:
        link.heartbeat.heard = True
        health = link.server.health
        if not health.alive:
            # Each step back to life needs an answer to a question asked after the one before: of what a thawed server
            # finds in its queue, nothing proves that it is back.
            if answer.asked < health.since:
                return
            self._receive(link.leg, link.server.name, BACKLOG)  # what is stale falls while the fence still stands
        why = f"answers heartbeats ({answer.status})"
        leaving = answer.status == NOT_NOW
        self._carry_out(self._core.signal(link.server.name, ANSWER, now, why, leaving))

    def _heartbeat_refused(self, link: Link) -> None:
        self._carry_out(self._core.signal(link.server.name, REFUSED, time.monotonic(), "its port refused a heartbeat"))

    # -- sip thread: members ----------------------------------------------------------------------------------------

    def _adopt(self, new: Settings) -> list[str]:
        """Opens all that is new first, then swaps the table, then closes what is gone."""
        now = time.monotonic()
        same = {line.name: line for line in self.settings.servers}
        kept = {line.name for line in new.servers if same.get(line.name) == line}
        fresh: dict[str, Link] = {}
        try:
            for line in new.servers:
                if line.name not in kept:
                    health = Health(DOWN, now, "new in the list, not heard yet")
                    fresh[line.name] = Link(self._server(line, health), self.settings.listen)
        except OSError:
            for link in fresh.values():
                link.close()
            raise
        gone = [link for name, link in self._links.items() if name not in kept]
        self._links = {line.name: fresh.get(line.name) or self._links[line.name] for line in new.servers}
        old = self.settings
        changed = differences(old, new)
        self._own.advertise = new.advertise
        self.settings = replace(new, listen=old.listen, admin=old.admin, secret_file=old.secret_file)
        for link in gone:
            self._loop.unwatch(link.leg)
            self._loop.unwatch(link.heartbeat.sock)
            link.close()
        table = ServerTable([link.server for link in self._links.values()], new.policy, new.convergence)
        self._carry_out(self._core.adopt(table, new.fall, new.rise, now))
        for link in fresh.values():
            self._watch(link)
        return [f"{said} (at the next start)" if said.split()[0] in NEXT_START else said for said in changed]

    def _server(self, line: ServerLine, health: Health) -> Server:
        return Server(line, health, self.secret.key)

    def _watch(self, link: Link) -> None:
        self._loop.watch(link.leg, lambda: self._receive(link.leg, link.server.name))
        self._loop.watch(link.heartbeat.sock, lambda: self._hear(link))
        self._loop.post(lambda: self._take_all(link.landed))

    def _status(self) -> dict[str, object]:
        return status.status(self._core, self.settings.listen, self._started, time.monotonic(), time.time())

    def _close(self) -> None:
        for link in self._links.values():
            link.close()
        if self._phones:
            self._phones.close()
        self._links, self._phones = {}, None
        self._chronicle.end()
