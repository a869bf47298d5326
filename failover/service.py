"""The forwarder as a running thing: the `sip` thread, its sockets and heartbeats around the core.

Everything the core owns is touched on the `sip` thread only; other threads `ask` it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from failover import status
from failover.chronicle import Chronicle, Reader, plain
from failover.core import Core
from failover.health import DOWN, FAILING, Health
from failover.legs import OwnAddress, open_phones
from failover.limit import Limit
from failover.metrics import metrics
from failover.reception import Reception
from failover.secret import Secret, passing
from failover.settings import PHONES, ServerLine, Settings, differences
from failover.table import Server, ServerTable, Wish
from failover.traffic import Traffic
from failover.vigil import Link
from plumbing.batch import Channel, best
from plumbing.loop import Loop

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
        self._traffic = Traffic(self._loop, self._core, self._chronicle, self._new_limit(settings))
        self._manner = best()

    # -- any thread -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Binds, then serves."""
        try:
            phones = self._traffic.phones = Channel(open_phones(self.settings.listen), self._manner)
            self._traffic.links = {server.name: self._link(server) for server in self._core.table.servers}
            self._reception.open(self._loop)
        except OSError:
            self._close()
            raise
        self._loop.watch(phones.sock, partial(self._traffic.receive, phones, PHONES))
        for link in self._traffic.links.values():
            self._watch(link)
        self._traffic.vigil.watch(self._traffic.links, self.settings.interval, self.settings.fall)
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
        self._loop.ask(lambda: self._traffic.carry_out(self._core.wish(name, wish, time.monotonic())))

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
        self._traffic.limit = self._new_limit(new)
        for line in new.servers:
            self._traffic.links[line.name].server.farewell = False  # it may have come by itself before
        return [f"{said} (at the next start)" if said.split()[0] in NEXT_START else said for said in changed]

    def _serve(self, lines: Sequence[ServerLine], settings: Settings) -> None:
        """Opens all that is new first, then swaps the table, then closes what is gone."""
        now = time.monotonic()
        links = self._traffic.links
        known = {name: link.server.address for name, link in links.items()}
        kept = {line.name for line in lines if known.get(line.name) == line.address}
        fresh: dict[str, Link] = {}
        try:
            for line in lines:
                if line.name not in kept:
                    health = Health(DOWN, now, "new in the list, not heard yet")
                    server = self._server(line, health)
                    if line.name in links:
                        server.wish = links[line.name].server.wish  # it has moved, the wish is for its name
                    fresh[line.name] = self._link(server)
        except OSError:
            for link in fresh.values():
                link.close()
            raise
        gone = [link for name, link in links.items() if name not in kept]
        links = self._traffic.links = {line.name: fresh.get(line.name) or links[line.name] for line in lines}
        self._own.advertise = settings.advertise
        self.settings = settings
        for link in gone:
            self._loop.unwatch(link.leg)
            self._loop.unwatch(link.heartbeat.sock)
            link.close()
        servers = [link.server for link in links.values()]
        table = ServerTable(servers, settings.policy, settings.convergence, settings.path)
        self._traffic.carry_out(self._core.adopt(table, settings.fall, settings.rise, now))
        for link in fresh.values():
            self._watch(link)
        self._traffic.vigil.watch(links, settings.interval, settings.fall)

    def take_in(self, registered: Sequence[ServerLine]) -> None:
        self._serve((*self.settings.servers, *registered), self.settings)

    def farewell(self, name: str, leaving: bool) -> None:
        self._traffic.carry_out(self._core.farewell(name, leaving, time.monotonic()))

    def health(self) -> Mapping[str, Health]:
        return {name: link.server.health for name, link in self._traffic.links.items()}

    def say(self, reason: str, text: str) -> None:
        self._chronicle.rarely(time.monotonic(), reason, plain(text, 300))

    def _new_limit(self, settings: Settings) -> Limit:
        return Limit(settings.rate, settings.burst, settings.exempt, self._core.counters)

    def _server(self, line: ServerLine, health: Health) -> Server:
        return Server(line, health, self.secret.key)

    def _link(self, server: Server) -> Link:
        return Link(server, self.settings.listen, self._manner)

    def _watch(self, link: Link) -> None:
        self._loop.watch(link.leg, partial(self._traffic.receive, link.channel, link.server.name))
        self._loop.watch(link.heartbeat.sock, lambda: self._traffic.vigil.hear(link))
        self._loop.post(lambda: self._traffic.take_landed(link))

    def _status(self) -> dict[str, object]:
        now, wall = time.monotonic(), time.time()
        told = status.status(self._core, self.settings.listen, self._started, now, wall)
        return {**told, "secret": self.secret.fingerprint, "registration": self._reception.status(now, wall)}

    def _close(self) -> None:
        for link in self._traffic.links.values():
            link.close()
        self._reception.close()
        if self._traffic.phones:
            self._traffic.phones.sock.close()
        self._traffic.links, self._traffic.phones = {}, None
        self._chronicle.end()
