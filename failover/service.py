"""The forwarder as a running thing: the `sip` thread, its sockets and heartbeats around the core.

Everything the core owns is touched on the `sip` thread only; other threads `ask` it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from failover import status
from failover.chronicle import Chronicle, Reader, plain
from failover.core import Core
from failover.health import DOWN, FAILING, Health
from failover.legs import OwnAddress
from failover.limit import Limit
from failover.metrics import metrics
from failover.passive import LOOK_INTERVAL
from failover.reception import Reception
from failover.secret import Secret, passing
from failover.settings import PHONES, ServerLine, Settings, differences
from failover.standing import ACTIVE, Standing, Takeover
from failover.station import Station
from failover.table import Server, ServerTable, Wish
from failover.traffic import Traffic
from failover.vigil import Link
from plumbing.address import Address
from plumbing.batch import Channel, best
from plumbing.loop import Loop

POLITE = 0.02  # seconds that what has come may take before the sockets close: a twin waits for them
LEG_AGAIN = 1.0
# settings a reload cannot change
NEXT_START = {"forwarder.listen", "forwarder.standby", "forwarder.secret.file", "registration.listen", "admin.listen"}


class Forwarder:
    """`start()` returns once it serves, or stands by for another one that has its address, or raises OSError; `stop()`
    may be called twice. Without a secret it makes one that ends with it."""

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
        self._core.stand_by()
        self._core.passive.configure(settings.passive_requests, settings.passive_seconds)
        self._station = Station(self._loop, settings.listen, self)
        self._manner = best()

    # -- any thread -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Watches the servers, and serves if the address can be had."""
        links = self._traffic.links
        try:
            for server in self._core.table.servers:
                links[server.name] = Link(server)
            self._station.begin(self.settings.standby)
            self._reception.open(self._loop)
        except OSError:
            self._close()
            raise
        for link in links.values():
            self._watch(link)
        self._traffic.vigil.watch(links, self.settings.interval, self.settings.fall)
        self.every(LOOK_INTERVAL, self._look_at_work)
        self._loop.start()

    def stop(self) -> None:
        """What has come is still passed on; a forwarder on standby has the address a moment later."""
        self._loop.post(self._finish)
        self._loop.stop()
        self._close()

    @property
    def standing(self) -> Standing:
        """Active or standby, since when and why."""
        return self._station.standing

    @property
    def registration(self) -> Address | None:
        """Where servers register themselves; the port may be another than the wished one."""
        return self._reception.address

    def reload(self, settings: Settings) -> list[str]:
        """Serves by other settings from now on; returns what changed. Raises OSError and changes nothing if a new
        server's sockets cannot be opened."""
        return self._loop.ask(lambda: self._adopt(settings))

    def status(self) -> dict[str, object]:
        """The /status object."""
        return self._loop.ask(self._status)

    def failovers(self) -> list[dict[str, object]]:
        """The /failovers list."""
        offset = time.time() - time.monotonic()
        return self._loop.ask(lambda: status.recorded(self._core, self._station.takeovers, offset))

    def wish(self, name: str, wish: Wish) -> None:
        """What the operator wants of a server, until told otherwise or started again. KeyError: there is none of that
        name."""
        self._loop.ask(lambda: self._traffic.carry_out(self._core.wish(name, wish, time.monotonic())))

    def metrics(self) -> str:
        """The /metrics text."""
        return self._loop.ask(self._metrics)

    def summary(self) -> str:
        """One line for systemctl status."""
        return self._loop.ask(lambda: status.summary(self._core, self.standing))

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

    # -- sip thread: the address ------------------------------------------------------------------------------------

    def take(self, sock: socket.socket) -> None:
        phones = self._traffic.phones = Channel(sock, self._manner)
        self._loop.watch(sock, partial(self._traffic.receive, phones, PHONES))
        self._open_legs()
        self._core.serve(time.monotonic())

    def let_go(self) -> None:
        for link in self._traffic.links.values():
            self._close_leg(link)
        if self._traffic.phones:
            self._loop.unwatch(self._traffic.phones.sock)
            self._traffic.phones.sock.close()
            self._traffic.phones = None
        self._core.stand_by()

    def stands(self, standing: Standing, takeover: Takeover | None) -> None:
        self._chronicle.stands(self._core, standing, takeover)
        if takeover and standing.role is ACTIVE:
            self._open_reception()  # its address may have come with ours

    def _open_reception(self) -> None:
        try:
            self._reception.open(self._loop)
        except OSError as error:
            self.trouble("open", f"registration.listen: {error}")
            self._loop.at(time.monotonic() + LEG_AGAIN, self._open_reception)

    def trouble(self, operation: str, text: str) -> None:
        self._chronicle.trouble(self._core, operation, text)

    def _open_legs(self) -> None:
        """Those that are not open. A server that cannot be reached now keeps nobody from the others."""
        if not self._traffic.phones:
            return
        missing = False
        for link in self._traffic.links.values():
            try:
                self._open_leg(link)
            except OSError as error:
                missing = True
                self._chronicle.trouble(self._core, "open", f"{link.server.name}'s leg: {error}")
        if missing:
            self._loop.at(time.monotonic() + LEG_AGAIN, self._open_legs)

    def _open_leg(self, link: Link) -> None:
        if not link.channel:
            channel = link.open(self.settings.listen, self._manner)
            self._loop.watch(channel.sock, partial(self._traffic.receive, channel, link.server.name))
            self._loop.post(lambda: self._traffic.take_landed(link))

    def _close_leg(self, link: Link) -> None:
        if link.channel:
            self._loop.unwatch(link.channel.sock)
            link.close_leg()

    def _finish(self) -> None:
        """Nothing more is taken after what is here."""
        self._station.end()
        self._traffic.finish(POLITE)
        self.let_go()

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
                    link = fresh[line.name] = Link(server)
                    if self._traffic.phones:
                        self._open_leg(link)
        except OSError:
            for link in fresh.values():
                self._close_leg(link)
                link.close()
            raise
        gone = [link for name, link in links.items() if name not in kept]
        links = self._traffic.links = {line.name: fresh.get(line.name) or links[line.name] for line in lines}
        self._own.advertise = settings.advertise
        self.settings = settings
        for link in gone:
            self._close_leg(link)
            self._loop.unwatch(link.heartbeat.sock)
            link.close()
        servers = [link.server for link in links.values()]
        table = ServerTable(servers, settings.policy, settings.convergence, settings.path)
        self._core.passive.configure(settings.passive_requests, settings.passive_seconds)
        self._traffic.carry_out(self._core.adopt(table, settings.fall, settings.rise, now))
        for link in fresh.values():
            self._watch(link)
        self._traffic.vigil.watch(links, settings.interval, settings.fall)

    def _look_at_work(self) -> None:
        self._traffic.carry_out(self._core.passive.look(time.monotonic()))

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

    def _watch(self, link: Link) -> None:
        self._loop.watch(link.heartbeat.sock, lambda: self._traffic.vigil.hear(link))

    def _status(self) -> dict[str, object]:
        now, wall = time.monotonic(), time.time()
        told = status.status(self._core, self.settings.listen, self.standing, self._started, now, wall)
        takeovers = [status.takeover(each, wall - now) for each in self._station.takeovers]
        registration = self._reception.status(now, wall)
        return {**told, "takeovers": takeovers, "secret": self.secret.fingerprint, "registration": registration}

    def _metrics(self) -> str:
        return metrics(self._core, self.standing, self._started, time.monotonic(), time.time())

    def _close(self) -> None:
        for link in self._traffic.links.values():
            link.close()
        self._reception.close()
        if self._traffic.phones:
            self._traffic.phones.sock.close()
        self._traffic.links, self._traffic.phones = {}, None
        self._chronicle.end()
