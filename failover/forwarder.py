"""The forwarder as a running thing: the `sip` thread, its sockets and heartbeats around the core.

Everything the core owns is touched on the `sip` thread only; other threads `ask` it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from failover.admin import status
from failover.admin.event_log import Chronicle, Reader, plain
from failover.admin.metrics import metrics
from failover.config.settings import PHONES, ServerLine, Settings, differences
from failover.config.shared_secret import Secret, passing
from failover.net.active_standby import ACTIVE, AddressWatcher, HaState, Takeover, can_move
from failover.net.health_checker import Link
from failover.net.keepalived_track_file import TrackFile
from failover.net.options_ping import Heartbeat
from failover.net.registration_listener import Reception
from failover.net.relay import Traffic
from failover.net.sockets import OwnAddress, check_family
from failover.proxy.core import Core
from failover.proxy.rate_limit import Limit
from failover.upstream.health import DOWN, FAILING, Health
from failover.upstream.passive_checks import LOOK_INTERVAL
from failover.upstream.server_table import AdminState, Server, ServerTable
from failover.upstream.visibility import GracePeriod, ServerVisibility, any_answers
from plumbing.address import Address, format_address
from plumbing.event_loop import Loop
from plumbing.udp_batch import Channel, fastest_io

POLITE = 0.02  # seconds that what has come may take before the sockets close: a twin waits for them
LOOK_OUT = 0.05  # seconds between two looks at whether a server is seen
OPEN_AGAIN = 0.25  # seconds between two attempts to open what could not be opened
RELOAD_PATIENCE = 5.0  # seconds
CHANGES_APART = 1.0  # seconds
# settings a reload cannot change
NEXT_START = {
    "forwarder.listen",
    "forwarder.standby",
    "forwarder.secret.file",
    "registration.listen",
    "admin.listen",
}


class Forwarder:
    """`start()` returns once it serves, or stands by for another one that has its address, or
    raises OSError; `stop()` may be called twice. Without a secret it makes one that ends with
    it."""

    def __init__(self, settings: Settings, secret: Secret | None = None) -> None:
        self.settings = settings
        self.secret = secret or passing("none was given")
        self._own = OwnAddress(settings.listen, settings.advertise, settings.names)
        self._loop = Loop("sip")
        self._chronicle = Chronicle()
        self._started = time.monotonic()
        # In use at once, for a forwarder that starts again must not refuse the calls of servers
        # that live.
        servers = [
            self._server(line, Health(FAILING, self._started, "not asked yet"))
            for line in settings.servers
        ]
        table = ServerTable(servers, settings.policy, settings.convergence, settings.path)
        self._core = Core(
            table,
            self.secret.key,
            self._own.towards_phone,
            settings.fall,
            settings.rise,
            self._is_own,
            self._own.towards,
        )
        self._reception = Reception(
            settings, self.secret.key, self._core.counters, self._own.is_own, self
        )
        self._traffic = Traffic(self._loop, self._core, self._chronicle, self._new_limit(settings))
        self._core.stand_by()
        self._core.passive.configure(settings.passive_requests, settings.passive_seconds)
        self._sight, self._track_file = ServerVisibility(), TrackFile("")
        self._watcher = AddressWatcher(self._loop, settings.listen, self)
        self._manner = fastest_io()
        self._next_change = 0.0

    # -- any thread --------------------------------------------------------------------------------

    def start(self) -> None:
        """Watches the servers, and serves if the address can be had."""
        links = self._traffic.links
        links.update((server.name, Link(server)) for server in self._core.table.servers)
        try:
            self._watcher.start(self.settings.standby)
            self._reception.open(self._loop)
        except BaseException:
            self._close()
            raise
        self._traffic.vigil.watch(links, self.settings.interval, self.settings.fall)
        self.every(LOOK_INTERVAL, self._look_at_work)
        self.every(OPEN_AGAIN, self._open_all)
        self.every(LOOK_OUT, self._look_out)
        self._loop.start()

    def stop(self) -> None:
        """What has come is still passed on; a forwarder on standby has the address a moment later.
        Raises TimeoutError, and leaves the sockets open, while the `sip` thread is busy with
        something else."""
        self._loop.post(self._finish)
        self._loop.stop()
        self._close()

    @property
    def ha_state(self) -> HaState:
        """Active or standby, since when and why."""
        return self._watcher.state

    @property
    def registration(self) -> Address | None:
        """Where servers register themselves; the port may be another than the wished one."""
        return self._reception.address

    def reload(self, settings: Settings) -> list[str]:
        """Serves by other settings from now on; returns what changed. A server that cannot be
        reached is DOWN. Raises TimeoutError if the `sip` thread is busy; its text says whether the
        change is still under way."""
        return self._loop.ask(lambda: self._adopt(settings), RELOAD_PATIENCE)

    def status(self) -> dict[str, object]:
        """The /status object."""
        return self._loop.ask(self._status)

    def failovers(self) -> list[dict[str, object]]:
        """The /failovers list."""
        offset = time.time() - time.monotonic()
        return self._loop.ask(lambda: status.recorded(self._core, self._watcher.takeovers, offset))

    def wish(self, name: str, wish: AdminState) -> None:
        """What the operator wants of a server, until told otherwise or started again. KeyError:
        there is none of that name."""
        self._loop.ask(
            lambda: self._traffic.carry_out(self._core.wish(name, wish, time.monotonic()))
        )

    def metrics(self) -> str:
        """The /metrics text."""
        return self._loop.ask(self._metrics)

    def summary(self) -> str:
        """One line for systemctl status."""
        return self._loop.ask(lambda: status.summary(self._core, self.ha_state))

    def every(self, seconds: float, function: Callable[[], object]) -> None:
        """Calls the function again and again on the `sip` thread, for as long as that thread lives
        and gets on."""

        def again() -> None:
            self._loop.at(time.monotonic() + seconds, again)
            function()

        self._loop.post(again)

    def subscribe(self, reader: Reader) -> None:
        """Puts ("hello", status) and then every event into the queue; what finds it full is lost to
        that reader."""

        def join() -> None:
            reader.put_nowait(("hello", self._status()))
            self._chronicle.readers.append(reader)

        self._loop.ask(join)

    def unsubscribe(self, reader: Reader) -> None:
        self._loop.post(lambda: self._chronicle.leave(reader))

    # -- sip thread: the address -------------------------------------------------------------------

    def serve_on(self, sock: socket.socket) -> None:
        phones = self._traffic.phones = Channel(sock, self._manner, self._uses)
        self._loop.watch(sock, partial(self._traffic.receive, phones, PHONES))
        self._move_heartbeats()
        self._open_links()
        self._core.serve(time.monotonic())

    def release_address(self) -> None:
        phones, self._traffic.phones = self._traffic.phones, None
        for link in self._traffic.links.values():
            self._close_side(link)
        if phones:
            self._drop(phones.sock)
        self._core.stand_by()
        self._move_heartbeats()
        self._open_links()

    def _move_heartbeats(self) -> None:
        """They are to leave from the address that the forwarder listens on, while that is here."""
        for link in self._traffic.links.values():
            link.stale = can_move(self.settings.listen)

    def role_changed(self, state: HaState, takeover: Takeover | None) -> None:
        self._chronicle.stands(self._core, state, takeover)
        if takeover and state.role is ACTIVE:
            self._open_all()  # the registration address may have come with ours

    def trouble(self, operation: str, text: str) -> None:
        self._chronicle.trouble(self._core, operation, text)

    # -- sip thread: what is opened, and again and again where it cannot be ------------------------

    def _open_all(self) -> None:
        self._open_links()
        try:
            self._reception.open(self._loop)
        except OSError as error:
            self._chronicle.trouble(self._core, "open", f"registration.listen: {error}")

    def _open_links(self) -> None:
        """What of them is not open. A server that cannot be reached now keeps nobody from the
        others."""
        for link in list(self._traffic.links.values()):
            self._loop.call(partial(self._open_link, link))

    def _open_link(self, link: Link) -> None:
        try:
            if not link.heartbeat or link.stale:
                self._open_heartbeat(link)
            if self._traffic.phones and not link.channel:
                self._open_side(link)
        except OSError as error:
            if link.heartbeat and (link.channel or not self._traffic.phones):
                # heartbeats have another chance on the socket that they had: the old route may come
                # back
                return
            self._close_link(link)
            self._unreachable(link, error)

    def _open_side(self, link: Link) -> None:
        channel = link.open_side(self.settings.listen, self._manner)
        self._loop.watch(channel.sock, partial(self._traffic.receive, channel, link.server.name))
        self._loop.post(lambda: self._traffic.take_landed(link))

    def _open_heartbeat(self, link: Link) -> None:
        former = link.heartbeat
        heartbeat = link.open_heartbeat(self.settings.listen[0])
        if former:
            moved = former.host != heartbeat.host
            self._drop_heartbeat(former)
            if moved and link.channel:  # the side, too, may be bound to an address that is no more
                self._close_side(link)
                self._open_side(link)
        for sock in heartbeat.socks:
            self._loop.watch(sock, partial(self._traffic.vigil.hear, link))

    def _unreachable(self, link: Link, error: OSError) -> None:
        """It is DOWN for as long as its sockets cannot be opened, so nobody sends it anything
        meanwhile."""
        server, trouble = link.server, (error.strerror or str(error)).lower()
        if trouble != link.trouble:
            link.trouble = trouble
            self._chronicle.trouble(self._core, "open", f"a socket to {server.name}: {error}")
        why = f"{format_address(server.address)} cannot be reached: {trouble}"
        self._traffic.refused(server.name, why)
        # that of before may be about something else
        server.health = replace(server.health, why=why)

    def _close_link(self, link: Link) -> None:
        self._close_side(link)
        if link.heartbeat:
            self._drop_heartbeat(link.heartbeat)
            link.heartbeat = None

    def _drop_heartbeat(self, heartbeat: Heartbeat) -> None:
        for sock in heartbeat.socks:
            self._drop(sock)

    def _close_side(self, link: Link) -> None:
        if link.channel:
            self._drop(link.channel.sock)
            link.channel = None

    def _drop(self, sock: socket.socket) -> None:
        """Closes it, whatever its state: one that stayed open would keep the address from its next
        owner, us too."""
        self._loop.call(partial(self._loop.unwatch, sock))
        sock.close()

    # -- sip thread: do we see a server? -----------------------------------------------------------

    def _look_out(self) -> None:
        core, name = self._core, self.settings.track_file
        if self._track_file.name != name:
            self._track_file, core.grace = TrackFile(name), GracePeriod() if name else None
        self._tell_sight(
            self._sight.update(any_answers(core.table.servers, core.fall), time.monotonic())
        )

    def _tell_sight(self, sees: bool) -> None:
        try:
            if self._track_file.update(sees, time.monotonic()):
                self._chronicle.note(
                    f"sees {'a server' if sees else 'NO SERVER'}: keepalived is told"
                )
        except OSError as error:
            self._chronicle.trouble(
                self._core, "track", f"{self._track_file.name}: {error.strerror or error}"
            )

    def _finish(self) -> None:
        """Handles what has been received, and closes the sockets."""
        tell = partial(self._tell_sight, False)
        for step in (
            self._watcher.stop,
            tell,
            partial(self._traffic.finish, POLITE),
            self.release_address,
        ):
            self._loop.call(step)

    # -- sip thread: members -----------------------------------------------------------------------

    def _adopt(self, new: Settings) -> list[str]:
        """Serves by what a reload has read; the servers that have registered themselves stay."""
        old = self.settings
        changed = differences(old, new)
        new = replace(
            new,
            listen=old.listen,
            admin=old.admin,
            secret_file=old.secret_file,
            registration=old.registration,
        )
        self._serve((*new.servers, *self._reception.beside(new)), new)
        self._reception.rebase(new)
        self._traffic.limit = self._new_limit(new)
        for line in new.servers:
            # it may have come by itself before
            self._traffic.links[line.name].server.shutting_down = False
        return [
            f"{said} (at the next start)" if said.split()[0] in NEXT_START else said
            for said in changed
        ]

    def _serve(self, lines: Sequence[ServerLine], settings: Settings) -> None:
        """Swaps the table, closes what is gone, opens what is new. Raises OSError, and changes
        nothing, for a server whose address is of another family than the forwarder's."""
        now = time.monotonic()
        links = self._traffic.links
        known = {name: link.server.address for name, link in links.items()}
        kept = {line.name for line in lines if known.get(line.name) == line.address}
        fresh: dict[str, Link] = {}
        for line in lines:
            check_family(settings.listen, line.address)
            if line.name not in kept:
                server = self._server(line, Health(DOWN, now, "new in the list, not heard yet"))
                if line.name in links:
                    # it has moved, the wish is for its name
                    server.admin_state = links[line.name].server.admin_state
                fresh[line.name] = Link(server)
        gone = [link for name, link in links.items() if name not in kept]
        links = self._traffic.links = {
            line.name: fresh.get(line.name) or links[line.name] for line in lines
        }
        self._own.advertise, self._own.names = settings.advertise, settings.names
        self.settings = settings
        self._traffic.vigil.watch(links, settings.interval, settings.fall)
        for link in gone:
            self._close_link(link)
        servers = [link.server for link in links.values()]
        table = ServerTable(servers, settings.policy, settings.convergence, settings.path)
        self._core.passive.configure(settings.passive_requests, settings.passive_seconds)
        self._loop.call(
            lambda: self._traffic.carry_out(
                self._core.adopt(table, settings.fall, settings.rise, now)
            )
        )
        self._open_links()

    def _uses(self, phone: Address, local: str, again: bool) -> None:
        """A phone sends to another of our addresses than the system would send from. What was read
        of one that did otherwise before is forgotten, but not more than once a second, lest a
        stranger make that its pastime."""
        self._own.uses(phone, local)
        now = time.monotonic()
        if again and now >= self._next_change:
            self._next_change = now + CHANGES_APART
            self._core.lines.changed()

    def _is_own(self, address: Address) -> bool:
        """Where the system cannot be asked a message is somebody else's."""
        try:
            return self._own.is_own(address)
        except OSError:
            return False

    def _look_at_work(self) -> None:
        self._traffic.carry_out(self._core.look(time.monotonic()))

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

    def _status(self) -> dict[str, object]:
        now, wall, errors = time.monotonic(), time.time(), self._loop.errors
        listen, links = self.settings.listen, self.settings.links
        told = status.status(
            self._core, listen, self.ha_state, self._started, now, wall, errors, links
        )
        takeovers = [status.takeover(each, wall - now) for each in self._watcher.takeovers]
        registration = self._reception.status(now, wall)
        told["sees_server"] = self._sight.clear
        return {
            **told,
            "takeovers": takeovers,
            "secret": self.secret.fingerprint,
            "registration": registration,
        }

    def _metrics(self) -> str:
        now, wall = time.monotonic(), time.time()
        return metrics(self._core, self.ha_state, self._started, now, wall, self._loop.errors)

    def _close(self) -> None:
        for link in self._traffic.links.values():
            link.close()
        self._reception.close()
        if self._traffic.phones:
            self._traffic.phones.sock.close()
        self._traffic.links, self._traffic.phones = {}, None
        self._chronicle.end()
