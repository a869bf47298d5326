"""The forwarder: wires the parts together, runs the `sip` thread, reloads, and starts and stops.

The parts

  Core (proxy/, upstream/)   decides; pure. It owns the server table and everything in flight.
  Relay, HealthChecker       move datagrams between sockets and core; ping the servers
  ServerLinks                opens, reopens and closes the servers' sockets
  AddressWatcher             calls serve_on() and release_address() when the shared address comes
                             and goes, so one forwarder is active and the other on standby
  RegistrationListener       calls use_registered() when servers come and go by themselves

Rules

  1. All of this belongs to the `sip` thread. Other threads (the admin pages, the signal handler's)
     call the methods of the first group, which post to it or ask it.
  2. A change of the server list goes through _use_servers() only. What can be refused is refused
     before that.
  3. A periodic task arms its timer before it works, and a step that must not keep others from
     theirs runs in Loop.call: a defect costs one turn of one task.
  4. A socket is closed whatever else fails: an open one keeps the address from the other forwarder.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from failover.admin import status
from failover.admin.event_log import EventLog, Subscriber, plain
from failover.admin.metrics import metrics
from failover.config.settings import PHONES, ServerLine, Settings, differences
from failover.config.shared_secret import Secret, ephemeral
from failover.net.active_standby import ACTIVE, AddressWatcher, HaState
from failover.net.keepalived_track_file import TrackFile
from failover.net.own_address import OwnAddress
from failover.net.registration_listener import RegistrationListener
from failover.net.relay import Relay
from failover.net.server_links import ServerLinks
from failover.net.sockets import ServerLink, check_family
from failover.proxy.core import Core
from failover.proxy.rate_limit import RateLimit
from failover.upstream.health import DOWN, FAILING, Health
from failover.upstream.passive_checks import LOOK_INTERVAL
from failover.upstream.server_table import AdminState, Server, ServerTable
from failover.upstream.upstream_reachability import GracePeriod, ServerVisibility, any_answers
from plumbing.address import Address
from plumbing.event_loop import Loop
from plumbing.udp_batch import Channel, fastest_io

DRAIN_SECONDS = 0.02  # for what has been received, at the end; a standby waits for the address
VISIBILITY_INTERVAL = 0.05  # seconds
REOPEN_INTERVAL = 0.25  # seconds
RELOAD_TIMEOUT = 5.0  # seconds
CACHE_CLEAR_INTERVAL = 1.0  # seconds between two times that phones make us clear a cache
MAX_LOG_TEXT = 300  # characters
# settings a reload cannot change
NEXT_START = {
    "forwarder.listen",
    "forwarder.standby",
    "forwarder.secret.file",
    "registration.listen",
    "admin.listen",
}


class Forwarder:
    """`settings` are those in force. Without a secret it makes one that ends with it."""

    def __init__(self, settings: Settings, secret: Secret | None = None) -> None:
        self.settings = settings
        self.secret = secret or ephemeral("none was given")
        self._started = time.monotonic()
        self._own = OwnAddress(settings.listen, settings.advertise, settings.names)
        self._loop = Loop("sip")
        # FAILING, so in use at once: a restarted forwarder must not refuse running servers' calls.
        health = Health(FAILING, self._started, "not asked yet")
        servers = [self._server(line, health) for line in settings.servers]
        self._core = Core(
            ServerTable(servers, settings.policy, settings.convergence, settings.path),
            self.secret.key,
            self._own.towards_phone,
            settings.fall,
            settings.rise,
            self._is_own,
            self._own.towards,
        )
        self._core.failover.become_standby()
        self._core.failover.passive.configure(settings.passive_requests, settings.passive_seconds)
        self._event_log = EventLog(self._core.counters)
        self._relay = Relay(self._loop, self._core, self._event_log, self._new_limit(settings))
        self._io = fastest_io()
        self._links = ServerLinks(
            self._loop, self._event_log, self._relay, settings.listen, self._io
        )
        self._registrations = RegistrationListener(
            settings, self.secret.key, self._core.counters, self._own.is_own, self
        )
        self._watcher = AddressWatcher(self._loop, settings.listen, self)
        self._visibility, self._track_file = ServerVisibility(), TrackFile("")
        self._next_clear = 0.0
        self._finished = False

    # -- any thread --------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns once it serves, or stands by for another forwarder that has the address. Raises
        OSError."""
        servers = self._core.table.servers
        self._links.replace({server.name: ServerLink(server) for server in servers})
        try:
            self._watcher.start(self.settings.standby)
            self._registrations.open(self._loop)
        except BaseException:
            self._finish()
            raise
        self._relay.checker.configure(self.settings.interval, self.settings.fall)
        self.every(LOOK_INTERVAL, self._check_passively)
        self.every(REOPEN_INTERVAL, self._open_all)
        self.every(VISIBILITY_INTERVAL, self._update_visibility)
        self._loop.start()

    def stop(self) -> None:
        """Forwards what has been received, closes the sockets, and ends the `sip` thread. May be
        called twice. Raises TimeoutError, with the sockets still open, if that thread is busy."""
        self._loop.post(self._finish)
        self._loop.stop()

    @property
    def ha_state(self) -> HaState:
        """Active or standby, since when and why."""
        return self._watcher.state

    @property
    def registration(self) -> Address | None:
        """The registration address, with the port in use."""
        return self._registrations.address

    def reload(self, settings: Settings) -> list[str]:
        """Uses other settings from now on; returns what has changed. Raises TimeoutError if the
        `sip` thread is busy; its text says whether the change is still under way."""
        return self._loop.ask(lambda: self._adopt(settings), RELOAD_TIMEOUT)

    def status(self) -> dict[str, object]:
        """The /status object."""
        return self._loop.ask(self._status)

    def failovers(self) -> list[dict[str, object]]:
        """The /failovers list."""
        offset = time.time() - time.monotonic()
        return self._loop.ask(lambda: status.recorded(self._core, self._watcher.takeovers, offset))

    def set_admin_state(self, name: str, state: AdminState) -> None:
        """Holds until the next start. KeyError: no such server."""
        failover = self._core.failover
        self._loop.ask(
            lambda: self._relay.carry_out(failover.set_admin_state(name, state, time.monotonic()))
        )

    def metrics(self) -> str:
        """The /metrics text."""
        return self._loop.ask(self._metrics)

    def summary(self) -> str:
        """One line for systemctl status."""
        return self._loop.ask(lambda: status.summary(self._core, self.ha_state))

    def every(self, seconds: float, function: Callable[[], object]) -> None:
        """Calls the function periodically on the `sip` thread, until the forwarder is stopped."""

        def again() -> None:
            if self._finished:
                return
            self._loop.at(time.monotonic() + seconds, again)
            function()

        self._loop.post(again)

    def subscribe(self, subscriber: Subscriber, with_text: bool = False) -> None:
        """Puts ("hello", status) and then every event into the queue, except while it is full."""

        def join() -> None:
            subscriber.put_nowait(("hello", self._status()))
            self._event_log.subscribe(subscriber, with_text)

        self._loop.ask(join)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._loop.post(lambda: self._event_log.unsubscribe(subscriber))

    # -- sip thread: the shared address, called by AddressWatcher ----------------------------------

    def serve_on(self, sock: socket.socket) -> None:
        """We have the address, on this socket."""
        phones = self._relay.phones = Channel(sock, self._io, self._local_address_used)
        self._loop.watch(sock, partial(self._relay.receive, phones, PHONES))
        self._links.rebind_pings()
        self._core.failover.become_active(time.monotonic())

    def release_address(self) -> None:
        """We have lost the address: closes every socket on it."""
        phones, self._relay.phones = self._relay.phones, None
        self._links.close_sides()
        if phones:
            self._links.drop(phones.sock)
        self._core.failover.become_standby()
        self._links.rebind_pings()

    def role_changed(self, state: HaState, is_takeover: bool) -> None:
        """The state is new; `is_takeover`: the role too, and this is not the start."""
        self._event_log.role_changed(state, is_takeover)
        if is_takeover and state.role is ACTIVE:
            self._open_all()  # the registration address may have come with ours

    def trouble(self, operation: str, text: str) -> None:
        """The operating system has refused an operation."""
        self._event_log.trouble(operation, text)

    # -- sip thread: periodic tasks ----------------------------------------------------------------

    def _check_passively(self) -> None:
        self._relay.carry_out(self._core.failover.on_timer(time.monotonic()))

    def _open_all(self) -> None:
        """Opens the sockets that could not be opened before."""
        self._links.open_all()
        try:
            self._registrations.open(self._loop)
        except OSError as error:
            self._event_log.trouble("open", f"registration.listen: {error}")

    def _update_visibility(self) -> None:
        """Tells keepalived whether this forwarder sees a server."""
        core, name = self._core, self.settings.track_file
        if self._track_file.name != name:
            self._track_file, core.grace = TrackFile(name), GracePeriod() if name else None
        answers = any_answers(core.table.servers, core.failover.fall)
        self._write_track_file(self._visibility.update(answers, time.monotonic()))

    def _write_track_file(self, sees: bool) -> None:
        try:
            if self._track_file.update(sees, time.monotonic()):
                seen = "a server" if sees else "NO SERVER"
                self._event_log.warn(f"sees {seen}: keepalived is told")
        except OSError as error:
            text = f"{self._track_file.name}: {error.strerror or error}"
            self._event_log.trouble("track", text)

    def _finish(self) -> None:
        # Timers that are due still run in this turn: they must write and open nothing any more.
        self._finished = True
        for step in (
            self._watcher.stop,
            self._registrations.close,
            partial(self._write_track_file, False),
            partial(self._relay.finish, DRAIN_SECONDS),
            self._links.close_all,
            self.release_address,
            self._event_log.close,
        ):
            self._loop.call(step)

    # -- sip thread: the list of servers -----------------------------------------------------------

    def _adopt(self, new: Settings) -> list[str]:
        """Uses the settings of a reload; the servers that have registered themselves stay. Raises
        OSError, and changes nothing, for a server whose address is of another family than the
        forwarder's."""
        old = self.settings
        changed = differences(old, new)
        new = replace(
            new,
            listen=old.listen,
            admin=old.admin,
            secret_file=old.secret_file,
            registration=old.registration,
        )
        for line in new.servers:
            check_family(old.listen, line.address)
        self._use_servers((*new.servers, *self._registrations.reconfigure(new)), new)
        self._relay.limit = self._new_limit(new)
        for line in new.servers:  # one of them may have registered itself before, and left
            self._links.by_name[line.name].server.shutting_down = False
        return [
            f"{change} (at the next start)" if change.split()[0] in NEXT_START else change
            for change in changed
        ]

    def _use_servers(self, lines: Sequence[ServerLine], settings: Settings) -> None:
        """Uses these servers, and settings, from now on. A server whose name and address stay the
        same keeps its health and its sockets, one that has another name now its health."""
        now, former = time.monotonic(), self._links.by_name
        by_address = {link.server.address: link.server for link in former.values()}
        links: dict[str, ServerLink] = {}
        for line in lines:
            link = former.get(line.name)
            if not link or link.server.address != line.address:
                server = self._server(line, Health(DOWN, now, "new in the list, not heard yet"))
                renamed = by_address.get(line.address)
                if renamed:
                    server.inherit_health(renamed)
                if link:  # it has moved; the operator's state belongs to the name
                    server.admin_state = link.server.admin_state
                link = ServerLink(server)
            links[line.name] = link
        gone = self._links.replace(links)
        self._own.advertise, self._own.names = settings.advertise, settings.names
        self.settings = settings
        self._relay.checker.configure(settings.interval, settings.fall)
        for link in gone:
            self._links.close(link)
        servers = [link.server for link in links.values()]
        table = ServerTable(servers, settings.policy, settings.convergence, settings.path)
        self._core.failover.passive.configure(settings.passive_requests, settings.passive_seconds)

        def replace_table() -> None:
            outcome = self._core.replace_table(table, settings.fall, settings.rise, now)
            self._links.open_all()  # a renamed server is sent something at once
            self._relay.carry_out(outcome)

        self._loop.call(replace_table)

    def _server(self, line: ServerLine, health: Health) -> Server:
        return Server(line, health, self.secret.key)

    def _new_limit(self, settings: Settings) -> RateLimit:
        return RateLimit(settings.rate, settings.burst, settings.exempt, self._core.counters)

    # -- sip thread: called by RegistrationListener ------------------------------------------------

    def use_registered(self, registered: Sequence[ServerLine]) -> None:
        """Uses the file's servers and then these."""
        self._use_servers((*self.settings.servers, *registered), self.settings)

    def set_shutting_down(self, name: str, leaving: bool) -> None:
        """A server has announced that it shuts down, or has taken that back."""
        self._relay.carry_out(
            self._core.failover.set_shutting_down(name, leaving, time.monotonic())
        )

    def health(self) -> Mapping[str, Health]:
        """The health of every server, by name."""
        return {name: link.server.health for name, link in self._links.by_name.items()}

    def log(self, kind: str, text: str) -> None:
        """Logs a line, at most one of a kind a second."""
        self._event_log.throttled(time.monotonic(), kind, plain(text, MAX_LOG_TEXT))

    # -- sip thread: own addresses -----------------------------------------------------------------

    def _local_address_used(self, phone: Address, local: str, again: bool) -> None:
        """A phone sends to another address of ours than the system would send from (see
        LocalAddresses). If it has used another one before, the fast path's caches are cleared, but
        at most once a second, since strangers can cause that."""
        self._own.uses(phone, local)
        now = time.monotonic()
        if again and now >= self._next_clear:
            self._next_clear = now + CACHE_CLEAR_INTERVAL
            self._core.lines.generation += 1

    def _is_own(self, address: Address) -> bool:
        """False also if the system cannot be asked."""
        try:
            return self._own.is_own(address)
        except OSError:
            return False

    # -- sip thread: status ------------------------------------------------------------------------

    def _status(self) -> dict[str, object]:
        now, wall, errors = time.monotonic(), time.time(), self._loop.errors
        listen, links = self.settings.listen, self.settings.links
        told = status.status(
            self._core, listen, self.ha_state, self._started, now, wall, errors, links
        )
        takeovers = [status.takeover(each, wall - now) for each in self._watcher.takeovers]
        registration = self._registrations.status(now, wall)
        told["sees_server"] = self._visibility.clear
        return {
            **told,
            "takeovers": takeovers,
            "secret": self.secret.fingerprint,
            "registration": registration,
        }

    def _metrics(self) -> str:
        now, wall = time.monotonic(), time.time()
        return metrics(self._core, self.ha_state, self._started, now, wall, self._loop.errors)
