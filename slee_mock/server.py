"""The thread, the socket and the clock around the services: a running server.

The `sip` thread owns the socket, the router and its connection to the store; the pages are made on a thread that reads
through another one.
"""

from __future__ import annotations

import collections
import logging
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from plumbing.address import format_address
from plumbing.batch import Channel, best
from plumbing.http import HttpServer
from plumbing.loop import Loop, LoopStopped
from plumbing.udp import bind_udp
from sip.errors import RemoteProtocolError
from slee_mock import management, report
from slee_mock.clock import Clock
from slee_mock.enrolment import Enrolment, Owed
from slee_mock.event import Arrival, CallEnded, Outcome, RequestEvent, ResponseEvent
from slee_mock.heartbeat import Heartbeat, is_heartbeat
from slee_mock.inbox import Datagram, Inbox
from slee_mock.kept import Forwarders
from slee_mock.outage import Outage, RememberingStore
from slee_mock.reader import Reader
from slee_mock.record import SIGN_OF_LIFE, Bill, Member, Secret
from slee_mock.retention import Retention
from slee_mock.router import Router
from slee_mock.service import Telling
from slee_mock.services import Context, assemble
from slee_mock.settings import Settings
from slee_mock.store import Conflict, Store, StoreDown, View
from slee_mock.stores import open_store
from slee_mock.timers import BATCH as TIMERS
from slee_mock.timers import Timers

log = logging.getLogger(__name__)

HEARTBEATS = "heartbeats"  # counted, not logged: twenty of them a second would bury everything else

BATCH = 16  # datagrams per turn, so that timers and questions get theirs
OPENING = 15.0  # seconds to open a store that others are opening too
SETTLING = 2.0  # seconds for the store to come back to a server that stops and has something for it
LEAVING = 5.0  # seconds at most in which a server that has taken leave serves what it still has
QUIET = 0.5  # seconds without a message of a call, after which nothing can be on its way to it
UNHEARD = 1.5  # seconds after which a forwarder that does not answer a leave is taken for gone
SWEEPING, SWEPT = 0.25, 60.0  # seconds between two looks at what is old, while there is more and otherwise
METHODS = {"REGISTER", "INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "MESSAGE", "UPDATE", "INFO", "PRACK", "REFER"}


class Server:
    """`start()` returns when the server answers, or raises OSError or StoreDown with a sentence."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = Loop("sip")
        self._http: HttpServer | None = None
        self._sock: socket.socket | None = None
        self._clock = Clock()  # any thread may read it
        self._reader = Reader(self._open_store, lambda: self._loop.ask(self._health), self._tell, self._clock.now)
        # Below: the sip thread's.
        self._store: RememberingStore | None = None
        self._outage: Outage | None = None
        self._trouble = "it was not opened yet"
        self._member = Member(settings.name, format_address(settings.listen))
        self._inbox, self._working = Inbox(self._clock.now), False
        self._started = time.monotonic()
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._next_log = 0.0
        self._retention = Retention()
        self._enrolment: Enrolment | None = None
        self._owed = Owed()
        self._busy = self._left = 0.0  # when a message of a call came last; when this server took leave

    # -- any thread -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        try:
            self._sock = bind_udp(self._settings.listen)
            if self._settings.management:
                self._http = HttpServer(self._settings.management, management.routes(self._reader), "management")
                self._http.start()
            self._loop.start()
            self._loop.ask(self._open, timeout=OPENING)
            self._reader.start()
        except BaseException:
            self.stop()
            raise

    def leave(self, hurried: Callable[[float], bool]) -> None:
        """Before `stop`: a server that registered itself takes leave and serves on until it owes no answer any more, at
        most `LEAVING` seconds; one whose store is down gives it `SETTLING` seconds to come back and take what waits.
        `hurried(seconds)` waits that long at most, and is true if there is no time for it."""
        try:
            deadline = time.monotonic() + SETTLING
            while self._loop.ask(self._waiting) and time.monotonic() < deadline and not hurried(0.05):
                continue
            if not self._settings.register:
                return
            self._loop.ask(self._take_leave)
            deadline = time.monotonic() + LEAVING
            while not self._loop.ask(self._may_go) and time.monotonic() < deadline and not hurried(0.05):
                continue
        except (LoopStopped, TimeoutError):
            return

    def stop(self, timeout: float = 2.0) -> None:
        """Leaves the cluster with a last word, so that nobody has to wait for its silence. Twice is fine."""
        if self._http:
            self._http.stop()
        self._reader.stop(timeout)
        if self._loop.running:
            self._loop.post(self._close)
        self._loop.stop(timeout)
        if self._sock:
            self._sock.close()

    def _tell(self, view: View, wall: float) -> dict[str, Any]:
        """What the services tell of themselves: out of their records, so on whichever thread has the view."""
        return {each.name: each.tells(view, wall) for each in self._services if isinstance(each, Telling)}

    def _open_store(self) -> Store:
        return open_store(self._settings.store)

    # -- the sip thread ---------------------------------------------------------------------------------------------

    def _open(self) -> None:
        settings, sock = self._settings, self._sock
        assert sock is not None
        self._store = store = RememberingStore(self._open_store())
        self._clock.join(self._store)
        address = format_address(sock.getsockname()[:2])
        context = Context(settings.name, address, _cluster_key(self._store), settings.tariff, settings.currency,
                          settings.users, settings.realm, settings.digest, settings.session_expires,
                          settings.deploy)  # fmt: skip
        # Of a pair whose address moves, each asks from its own computer's, where it hears registrations.
        hosts = [host for host, _ in (settings.forwarder, *settings.register)]
        self._heartbeat = Heartbeat(context.answers, *hosts)
        self._services = assemble(context)
        self._router = Router([self._heartbeat, *self._services], context.answers,
                              forwarders=Forwarders(settings.forwarder, hosts))  # fmt: skip
        self._outage = Outage(self._router, store, self._count_bills)
        self._timers = Timers(self._router)
        page = f"http://{format_address(self._http.address)}/" if self._http else ""
        self._member = Member(settings.name, address, page, started=self._clock.now())
        self._sign(self._store)
        self._trouble = ""
        self._channel = Channel(sock, best())
        self._loop.watch(sock, self._readable)
        self._loop.at(time.monotonic() + SIGN_OF_LIFE, self._sign_again)
        self._loop.at(time.monotonic() + SWEEPING, self._sweep)
        if settings.register:
            listen = sock.getsockname()[:2]
            self._enrolment = Enrolment(self._loop, settings.name, listen, settings.register, settings.beat)
            self._enrolment.start()

    def _take_leave(self) -> None:
        self._left = time.monotonic()
        self._heartbeat.leaving = True
        if self._enrolment:
            self._enrolment.leave()

    def _waiting(self) -> int:
        return self._outage.waiting if self._outage else 0

    def _may_go(self) -> bool:
        """Nobody sends new calls here any more, and nobody waits for an answer from here."""
        now = time.monotonic()
        known = not self._enrolment or self._enrolment.heard or now - self._left > UNHEARD
        return known and not self._owed and now - max(self._busy, self._left) > QUIET

    def _close(self) -> None:
        if self._enrolment:
            self._enrolment.close()
        if self._store and self._outage:
            try:
                self._outage.settle(10 * BATCH)
                self._sign(self._store, stopped=True)
            except (StoreDown, Conflict) as error:
                log.warning("the others were not told that this server stops: %s", error)
            if self._outage.waiting:
                log.error("the store did not come back in time: bills will lack %s", self._outage.told())
            self._store.close()
            self._store = None

    def _sign(self, store: Store, stopped: bool = False) -> None:
        """Raises Conflict if another server has taken the name."""
        view = View(store)
        known = view.get(Member, self._member.name)
        if self._member.last_seen and known and known.started != self._member.started:
            raise Conflict(f"{self._member.name} signs from {known.address} too")
        told = self._heartbeat
        self._member = replace(self._member, last_seen=self._clock.now(), stopped=stopped, role=told.role,
                               role_since=told.role_since)  # fmt: skip
        view.commit([self._member])

    def _sign_again(self) -> None:
        self._loop.at(time.monotonic() + SIGN_OF_LIFE, self._sign_again)
        if not self._store:
            return
        try:
            self._sign(self._store)
        except Conflict:
            self._complain(f"another server signs as {self._member.name} too; give each its own --name")
        except StoreDown as error:
            self._store_failed(error)
        else:
            if self._trouble:
                log.warning("the store works again")
            self._trouble, self._heartbeat.healthy = "", True
            self._settle()
            if not self._waiting():
                self._fire()
        jumped = self._clock.jumped()
        if jumped:
            log.warning("%s", jumped)

    def _settle(self) -> None:
        """All of it, before timers run out: a call that somebody hung up ends at that time, not at its timer's."""
        assert self._outage is not None
        try:
            if self._outage.settle(BATCH):
                self._loop.at(time.monotonic(), self._settle)
        except StoreDown as error:
            self._store_failed(error)

    def _fire(self) -> None:
        """Timers of records that have run out, whoever set them: a few, then what has come meanwhile has its turn."""
        if not self._store:
            return
        try:
            outcomes = self._timers.fire(self._store, self._clock.now())
        except StoreDown as error:
            self._store_failed(error)
            return
        for outcome in outcomes:
            self._counts["handled", "timers"] += not outcome.dropped
            self._count_bills(outcome)
        self._send(outcomes)
        if sum(bool(outcome.saves) for outcome in outcomes) >= TIMERS:
            self._loop.at(time.monotonic(), self._fire)

    def _sweep(self) -> None:
        more = False
        if self._store:
            try:
                more = self._retention.sweep(View(self._store), self._clock.now())
            except Conflict:
                more = True  # another member swept at the same time
            except StoreDown as error:
                self._complain(f"{error}; nothing old was removed from it")
        self._loop.at(time.monotonic() + (SWEEPING if more else SWEPT), self._sweep)

    def _readable(self) -> None:
        self._counts["dropped", "repeated"] += self._inbox.fill(self._channel)
        self._work_on()

    def _work_on(self) -> None:
        """A little of what waits, then timers, questions and what has come meanwhile have their turn."""
        events = [event for datagram in self._inbox.take(BATCH) if (event := self._read(datagram))]
        outcomes = self._decide_all(events)
        self._send(outcomes)
        for event, outcome in zip(events, outcomes, strict=True):
            self._tell_of(event, outcome)
        if self._inbox and not self._working:
            self._working = True
            self._loop.post(self._work_again)

    def _work_again(self) -> None:
        self._working = False
        self._work_on()

    def _read(self, datagram: Datagram) -> Arrival | None:
        """What is still to be done: heartbeats are answered at once, for they wait for no store."""
        if not datagram.data.strip(b"\r\n\0"):
            self._counts["dropped", "keepalive"] += 1
            return None
        try:
            event = self._router.event(*datagram)
        except RemoteProtocolError:
            self._counts["dropped", "unreadable"] += 1
            return None
        label = _label(event)
        self._counts["handled", label] += 1
        if label != HEARTBEATS:
            return event
        self._send([self._decide(event)])
        return None

    def _decide_all(self, events: Sequence[Arrival]) -> list[Outcome]:
        """Saved together if that can be, else one by one."""
        if len(events) > 1 and self._outage and not self._trouble:
            try:
                return self._outage.process_all(events)
            except (Conflict, StoreDown):
                pass  # another server has changed one of their calls meanwhile, or who the store fails is told below
        return [self._decide(event) for event in events]

    def _tell_of(self, event: Arrival, outcome: Outcome) -> None:
        self._count_bills(outcome)
        if outcome.dropped:
            self._counts["dropped", outcome.dropped] += 1
        if log.isEnabledFor(logging.DEBUG):
            message = event.request if isinstance(event, RequestEvent) else event.response
            log.debug("call=%s %r %s", message.get("Call-ID"), message, outcome.note or outcome.dropped)
        if self._enrolment:
            self._note_owed(event, outcome)

    def _count_bills(self, outcome: Outcome) -> None:
        """Ends that were written down; one that was known is not written again."""
        if any(isinstance(raised, CallEnded) for raised in outcome.raised):
            self._counts["bills", "closed"] += any(isinstance(saved, Bill) for saved in outcome.saves)

    def _note_owed(self, event: Arrival, outcome: Outcome) -> None:
        self._busy = time.monotonic()
        message = event.request if isinstance(event, RequestEvent) else event.response
        try:
            self._owed.note(message, [send.data for send in outcome.sends])
        except RemoteProtocolError:
            return  # without Call-ID or CSeq nobody can answer it

    def _decide(self, event: Arrival) -> Outcome:
        try:
            if not self._store or not self._outage:
                raise StoreDown("the server is stopping")
            return self._outage.process(event)
        except StoreDown as error:
            self._store_failed(error)
            return self._outage.pass_on(event) if self._store and self._outage else self._router.unable(event)

    def _store_failed(self, error: StoreDown) -> None:
        self._trouble, self._heartbeat.healthy = str(error), False
        self._counts["dropped", "store_failures"] += 1
        self._complain(f"{error}; requests that need it are answered 503")

    def _send(self, outcomes: Sequence[Outcome]) -> None:
        """What cannot be sent (no room, no route, port 0) is counted: UDP, and whoever misses it asks again."""
        sends = [(send.data, send.to or self._settings.forwarder) for outcome in outcomes for send in outcome.sends]
        failed = len(self._channel.send(sends))
        self._counts["sent", "datagrams"] += len(sends) - failed
        if failed:
            self._counts["dropped", "unsendable"] += failed

    def _complain(self, sentence: str) -> None:
        """At most one line a second, whoever causes it."""
        now = time.monotonic()
        if now >= self._next_log:
            self._next_log = now + 1.0
            log.warning("%s", sentence)

    def _health(self) -> report.Health:
        return report.Health(self._member, time.monotonic() - self._started, self._trouble,
                             format_address(self._settings.forwarder), dict(self._counts),
                             clock_offset=self._clock.offset, waiting=self._waiting())  # fmt: skip


def _cluster_key(store: Store) -> bytes:
    """Made by whoever comes first, read by all others."""
    while True:
        view = View(store)
        secret = view.get(Secret, "cluster")
        if secret:
            return bytes.fromhex(secret.value)
        try:
            view.commit([Secret("cluster", secrets.token_hex(32))])
        except Conflict:
            continue


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
