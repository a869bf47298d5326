"""The thread, the socket and the clock around the services: a running server.

The `sip` thread owns the socket, the router and its connection to the store; the pages are made on
a thread that reads through another one.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from plumbing.address import format_address
from plumbing.event_loop import Loop, LoopStopped
from plumbing.http_server import HttpServer
from plumbing.udp_batch import Channel, fastest_io
from plumbing.udp_socket import bind_udp
from sip.errors import RemoteProtocolError
from sip.keep_alive import is_keep_alive
from slee_mock.cluster.cluster_clock import Clock
from slee_mock.cluster.cluster_key import KeyedStore, join_cluster
from slee_mock.container.deployment import Context, assemble
from slee_mock.container.event_router import FAILURES, Router
from slee_mock.container.events import (
    Arrival,
    CallEnded,
    Outcome,
    RequestEvent,
    ResponseEvent,
    TimerEvent,
)
from slee_mock.container.sbb import Telling, told
from slee_mock.failover_kept_header import Forwarders
from slee_mock.management import routes as management
from slee_mock.management import snapshot as report
from slee_mock.management.queries import Queries
from slee_mock.mobicents_heartbeat import Enrolment, Owed
from slee_mock.periodic_work import Upkeep
from slee_mock.receive_queue import STALE, Datagram, Inbox
from slee_mock.services.options_responder import Heartbeat, is_heartbeat
from slee_mock.settings import Settings
from slee_mock.start_errors import cannot_listen, cannot_register, name_is_taken, slow_store
from slee_mock.store.degraded_mode import CachingStore, DegradedMode
from slee_mock.store.interface import BadRecord, Conflict, Contended, StoreDown, Transaction
from slee_mock.store.open_store import open_store, store_name
from slee_mock.store.records import Bill, Member

log = logging.getLogger(__name__)

HEARTBEATS = "heartbeats"  # counted, not logged: twenty of them a second would bury everything else

BATCH = 16  # datagrams per turn, so that timers and questions get theirs
OPENING = 15.0  # seconds to open a store that others are opening too
SETTLING = 2.0  # seconds for the store to come back to a server that stops and has something for it
LEAVING = 5.0  # seconds at most in which a server that has taken leave serves what it still has
QUIET = 0.5  # seconds without a message of a call, after which nothing can be on its way to it
UNHEARD = 1.5  # seconds after which a forwarder that does not answer a leave is taken for gone
METHODS = {
    "REGISTER",
    "INVITE",
    "ACK",
    "CANCEL",
    "BYE",
    "OPTIONS",
    "MESSAGE",
    "UPDATE",
    "INFO",
    "PRACK",
    "REFER",
}


class Server:
    """`start()` returns when the server answers, or raises StoreDown, StartError or DeployError
    with a sentence."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = Loop("sip")
        self._http: HttpServer | None = None
        self._sock: socket.socket | None = None
        self._clock = Clock()  # any thread may read it
        self._reader = Queries(
            lambda: open_store(settings.store, reading=True),
            lambda: self._loop.ask(self._health),
            self._tell,
            self._clock.now,
        )
        # Below: the sip thread's.
        self._store: CachingStore | None = None
        self._degraded: DegradedMode | None = None
        self._trouble = "it was not opened yet"
        self._upkeep: Upkeep | None = None
        self._inbox, self._working = Inbox(self._clock.now), False
        self._started = time.monotonic()
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._next_log = self._next_traceback = 0.0
        self._enrolment: Enrolment | None = None
        self._owed = Owed()
        # when a message of a call came last; when this server took leave
        self._busy = self._left = 0.0

    # -- any thread --------------------------------------------------------------------------------

    def start(self) -> None:
        try:
            self._listen()
            self._loop.start()
            try:
                self._loop.ask(self._open, timeout=OPENING)
            except TimeoutError:
                name = store_name(self._settings.store)
                raise StoreDown(slow_store(name, OPENING)) from None
            self._reader.start()
        except BaseException:
            with contextlib.suppress(TimeoutError):  # why it does not start matters more
                self.stop()
            raise

    def _listen(self) -> None:
        try:
            self._sock = bind_udp(self._settings.listen)
            if self._settings.management:
                self._http = HttpServer(
                    self._settings.management, management.routes(self._reader), "management"
                )
                self._http.start()
        except OSError as error:
            raise cannot_listen(error) from error

    def leave(self, hurried: Callable[[float], bool]) -> None:
        """Before `stop`: a server that registered itself takes leave and serves on until it owes no
        answer any more, at most `LEAVING` seconds; one whose store is down gives it `SETTLING`
        seconds to come back and take what waits. `hurried(seconds)` waits that long at most, and is
        true if there is no time for it."""
        try:
            deadline = time.monotonic() + SETTLING
            while (
                self._loop.ask(self._waiting) and time.monotonic() < deadline and not hurried(0.05)
            ):
                continue
            if not self._settings.register:
                return
            self._loop.ask(self._take_leave)
            deadline = time.monotonic() + LEAVING
            while (
                not self._loop.ask(self._may_go)
                and time.monotonic() < deadline
                and not hurried(0.05)
            ):
                continue
        except (LoopStopped, TimeoutError):
            return

    def stop(self, timeout: float = 2.0) -> None:
        """Leaves the cluster with a last word, so that nobody has to wait for its silence. Twice is
        fine. Whatever does not end in time, the rest does; then this raises TimeoutError, which
        names it."""
        with contextlib.ExitStack() as stack:  # from below, each whatever became of those before
            if self._sock:
                stack.callback(self._sock.close)
            stack.callback(self._loop.stop, timeout)
            if self._loop.running:
                stack.callback(self._loop.post, self._close)
            stack.callback(self._reader.stop, timeout)
            if self._http:
                stack.callback(self._http.stop)

    def _tell(self, transaction: Transaction, wall: float) -> dict[str, Any]:
        """What the services tell of themselves: out of their records, so on whichever thread has
        the transaction."""
        return {
            each.name: told(each, transaction, wall)
            for each in self._services
            if isinstance(each, Telling)
        }

    # -- the sip thread ----------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self._open_cluster()
        except BadRecord as error:
            raise StoreDown(f"{error}; restore the store from a backup") from error
        self._channel = Channel(self._bound(), fastest_io())
        self._loop.watch(self._bound(), self._readable)
        settings = self._settings
        if settings.register:
            listen = self._bound().getsockname()[:2]
            try:
                self._enrolment = Enrolment(
                    self._loop, settings.name, listen, settings.register, settings.beat
                )
            except OSError as error:
                raise cannot_register(error) from error
            self._enrolment.start()

    def _bound(self) -> socket.socket:
        assert self._sock is not None
        return self._sock

    def _open_cluster(self) -> None:
        settings = self._settings
        keyed = KeyedStore(open_store(settings.store), store_name(settings.store))
        self._store = store = CachingStore(keyed)
        key = join_cluster(keyed, lambda: secrets.token_hex(32), time.sleep)
        self._clock.join(store)
        address = format_address(self._bound().getsockname()[:2])
        context = Context(
            settings.name,
            address,
            key,
            settings.tariff,
            settings.currency,
            settings.users,
            settings.realm,
            settings.digest,
            settings.session_expires,
            settings.deploy,
            settings.server_header,
        )
        # Of a pair whose address moves, each asks from its own computer's, where it hears
        # registrations.
        hosts = [host for host, _ in (settings.forwarder, *settings.register)]
        self._heartbeat = Heartbeat(context.answers, *hosts)
        self._services = assemble(context)
        self._router = Router(
            [self._heartbeat, *self._services],
            context.answers,
            self._handling_failed,
            forwarders=Forwarders(settings.forwarder, hosts),
        )
        self._degraded = DegradedMode(self._router, store, self._count_bills)
        page = f"http://{format_address(self._http.address)}/" if self._http else ""
        member = Member(settings.name, address, page, started=self._clock.now())
        self._upkeep = Upkeep(
            self,
            self._loop,
            self._clock,
            keyed,
            store,
            member,
            self._heartbeat,
            self._router,
            self._services,
            self._degraded,
        )
        try:
            self._upkeep.start()
        except Conflict:
            raise name_is_taken(settings.name) from None
        self._trouble = ""

    def _take_leave(self) -> None:
        self._left = time.monotonic()
        self._heartbeat.leaving = True
        if self._enrolment:
            self._enrolment.leave()

    def _waiting(self) -> int:
        return self._degraded.waiting if self._degraded else 0

    def _may_go(self) -> bool:
        """Nobody sends new calls here any more, and nobody waits for an answer from here."""
        now = time.monotonic()
        known = not self._enrolment or self._enrolment.heard or now - self._left > UNHEARD
        return known and not self._owed and now - max(self._busy, self._left) > QUIET

    def _close(self) -> None:
        if self._enrolment:
            self._enrolment.close()
        store, self._store = self._store, None
        if not store:
            return
        try:
            if self._upkeep:
                self._upkeep.say_goodbye()
        finally:
            store.close()

    def carry_out(self, outcome: Outcome) -> None:
        self._counts["handled", "timers"] += not outcome.dropped
        if outcome.dropped:
            self._counts["dropped", outcome.dropped] += 1
        self._count_bills(outcome)
        self._send([outcome])

    def _readable(self) -> None:
        self._counts["dropped", "repeated"] += self._inbox.fill(self._channel)
        if self._loop.held_up() > STALE:
            self._counts["dropped", "stale"] += self._inbox.drop_registrations()
        self._work_on()

    def _work_on(self) -> None:
        """A little of what waits, then timers, questions and what has come meanwhile have their
        turn."""
        try:
            events = [
                event for datagram in self._inbox.take(BATCH) if (event := self._read(datagram))
            ]
            outcomes = self._decide_all(events)
            self._send(outcomes)
            for event, outcome in zip(events, outcomes, strict=True):
                self._tell_of(event, outcome)
        finally:  # what still waits is handled even so
            if self._inbox and not self._working:
                self._working = True
                self._loop.post(self._work_again)

    def _work_again(self) -> None:
        self._working = False
        self._work_on()

    def _read(self, datagram: Datagram) -> Arrival | None:
        """What is still to be done: heartbeats are answered at once, for they wait for no store."""
        if is_keep_alive(datagram.data):
            self._counts["dropped", "keepalive"] += 1
            return None
        try:
            event = self._router.event(*datagram)
        except RemoteProtocolError:
            self._counts["dropped", "unreadable"] += 1
            return None
        except Exception as error:  # ours: it must not take what came with it
            self._counts["dropped", "unreadable"] += 1
            self._log_failure("a datagram", error)
            return None
        label = _label(event)
        self._counts["handled", label] += 1
        if label != HEARTBEATS:
            return event
        self._send([self._decide(event)])
        return None

    def _decide_all(self, events: Sequence[Arrival]) -> list[Outcome]:
        """Saved together if that can be, else one by one."""
        if len(events) > 1 and self._degraded and not self._trouble:
            try:
                return self._degraded.process_all(events)
            except Exception:
                pass  # another server changed one of their calls meanwhile; all else is told below
        return [self._decide(event) for event in events]

    def _tell_of(self, event: Arrival, outcome: Outcome) -> None:
        self._count_bills(outcome)
        if outcome.dropped:
            self._counts["dropped", outcome.dropped] += 1
        if log.isEnabledFor(logging.DEBUG):
            message = event.request if isinstance(event, RequestEvent) else event.response
            log.debug(
                "call=%s %r %s", message.get("Call-ID"), message, outcome.note or outcome.dropped
            )
        if self._enrolment:
            self._note_owed(event, outcome)

    def _count_bills(self, outcome: Outcome) -> None:
        """Ends that were written down; one that was known is not written again."""
        if any(isinstance(raised, CallEnded) for raised in outcome.raised):
            self._counts["bills", "closed"] += any(
                isinstance(saved, Bill) for saved in outcome.saves
            )

    def _note_owed(self, event: Arrival, outcome: Outcome) -> None:
        self._busy = time.monotonic()
        message = event.request if isinstance(event, RequestEvent) else event.response
        try:
            self._owed.note(message, [send.data for send in outcome.sends])
        except RemoteProtocolError:
            return  # without Call-ID or CSeq nobody can answer it

    def _decide(self, event: Arrival) -> Outcome:
        try:
            if not self._store or not self._degraded:
                raise StoreDown("the server is stopping")
            return self._degraded.process(event)
        except StoreDown as error:
            self.store_failed(error)
            return (
                self._degraded.pass_on(event)
                if self._store and self._degraded
                else self._router.unable(event)
            )
        except FAILURES as error:
            return self._router.give_up(event, error)

    def _handling_failed(self, event: Arrival | TimerEvent, error: BaseException) -> None:
        """A service's exception, with one traceback a second at most; a damaged row or name is a
        sentence."""
        if isinstance(error, BadRecord):
            self.complain(f"{error}; refused is only who needs it")
            return
        if isinstance(event, TimerEvent):
            self._log_failure(f"timer of {event.kind} {event.key!r}", error)
        else:
            self._log_failure(_label(event), error)

    def _log_failure(self, what: str, error: BaseException) -> None:
        now = time.monotonic()
        if now >= self._next_traceback:
            self._next_traceback = now + 1.0
            log.error("a service failed; nothing of this event is saved: %s", what, exc_info=error)

    def store_failed(self, error: StoreDown) -> None:
        if isinstance(error, Contended):
            self._counts["dropped", "contended"] += 1
            self.complain(str(error))
            return
        if not self._trouble:
            self._reader.let_go()
        self._trouble, self._heartbeat.healthy = str(error), False
        self._counts["dropped", "store_failures"] += 1
        self.complain(f"{error}; requests that need it are answered 503")

    def store_works(self) -> None:
        if self._trouble:
            log.warning("the store works again")
        self._trouble, self._heartbeat.healthy = "", True

    def _send(self, outcomes: Sequence[Outcome]) -> None:
        """What cannot be sent (no room, no route, port 0) is counted: UDP, and whoever misses it
        asks again."""
        sends = [
            (send.data, send.to or self._settings.forwarder)
            for outcome in outcomes
            for send in outcome.sends
        ]
        failed = len(self._channel.send(sends))
        self._counts["sent", "datagrams"] += len(sends) - failed
        if failed:
            self._counts["dropped", "unsendable"] += failed

    def complain(self, sentence: str) -> None:
        """At most one line a second, whoever causes it."""
        now = time.monotonic()
        if now >= self._next_log:
            self._next_log = now + 1.0
            log.warning("%s", sentence)

    def _health(self) -> report.ServerStatus:
        upkeep, settings = self._upkeep, self._settings
        member = upkeep.member if upkeep else Member(settings.name, format_address(settings.listen))
        return report.ServerStatus(
            member,
            time.monotonic() - self._started,
            self._trouble,
            format_address(settings.forwarder),
            dict(self._counts),
            clock_offset=self._clock.offset,
            waiting=self._waiting(),
            warning=upkeep.warning if upkeep else "",
        )


def _label(event: Arrival) -> str:
    """A counter's name, from a fixed set: strangers cannot make new ones."""
    if isinstance(event, ResponseEvent):
        return "responses"
    method = event.request.method
    try:
        if is_heartbeat(event.request):
            return HEARTBEATS
    except RemoteProtocolError:
        return "other"
    return method if method in METHODS else "other"
