"""A running server: threads, sockets, clock and life cycle around a node, which makes all decisions
(node.py).

The `sip` thread owns the socket, the node and its connection to the store. Pages are made on HTTP
threads, which read the store through connections of their own (management/queries.py).
"""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from plumbing.address import format_address
from plumbing.event_loop import Loop, LoopStopped
from plumbing.http_server import HttpServer
from plumbing.throttled_log import ThrottledLog
from plumbing.udp_batch import Channel, fastest_io
from plumbing.udp_socket import bind_udp
from sip.message import Request, Response
from slee_mock.cluster.cluster_clock import Clock
from slee_mock.cluster.cluster_key import KeyedStore, join_cluster
from slee_mock.container.deployment import Context
from slee_mock.container.events import Outcome
from slee_mock.management import routes
from slee_mock.management.queries import Queries
from slee_mock.management.snapshot import server_status
from slee_mock.mobicents_heartbeat import HeartbeatClient
from slee_mock.node import Node
from slee_mock.receive_queue import ReceiveQueue
from slee_mock.settings import Settings
from slee_mock.store.interface import BadRecord, Conflict, StoreDown
from slee_mock.store.open_store import open_store, store_name
from slee_mock.store.records import Member

log = logging.getLogger(__name__)

BATCH = 16  # datagrams per turn, so that timers and questions get theirs
OPEN_SECONDS = 15.0  # to open a store that others are opening too
SETTLE_SECONDS = 2.0  # for the store to come back to a server that stops with deferred events
LEAVE_SECONDS = 5.0  # at most; in these a server that leaves serves what it still has
LISTEN_REMEDIES = {
    errno.EADDRINUSE: "end the program that has this port, or name another one",
    errno.EACCES: "ports below 1024 are the system's own: name another one, or allow it",
    errno.EADDRNOTAVAIL: "this computer does not have this address: name another one",
}


class StartError(Exception):
    """Why a server cannot start, for another reason than its store: a sentence with the remedy."""


class Server:
    """A server of the cluster. `start()` returns when it answers, or raises StoreDown, StartError
    or DeployError with a sentence."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = Loop("sip")
        self._http: HttpServer | None = None
        self._sock: socket.socket | None = None
        self._clock = Clock()  # any thread may read it
        self._queries = Queries(
            lambda: open_store(settings.store, reading=True),
            lambda: self._loop.ask(self._status),
            lambda: self._node.services if self._node else (),
            self._clock.now,
        )
        # Below: the sip thread's.
        self._node: Node | None = None
        self._queue, self._is_posted = ReceiveQueue(self._clock.now), False
        self._client: HeartbeatClient | None = None
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._started = time.monotonic()

    # -- any thread --------------------------------------------------------------------------------

    def start(self) -> None:
        try:
            self._listen()
            self._loop.start()
            try:
                self._loop.ask(self._open, timeout=OPEN_SECONDS)
            except TimeoutError:
                raise StoreDown(
                    f"the store {store_name(self._settings.store)} does not open within "
                    f"{OPEN_SECONDS:g} s; see what keeps its disk or computer busy, or name "
                    "another one"
                ) from None
        except BaseException:
            with contextlib.suppress(TimeoutError):  # why it does not start matters more
                self.stop()
            raise

    def _listen(self) -> None:
        try:
            self._sock = bind_udp(self._settings.listen)
            if self._settings.management:
                self._http = HttpServer(
                    self._settings.management, routes.routes(self._queries), "management"
                )
                self._http.start()
        except OSError as error:
            remedy = LISTEN_REMEDIES.get(
                error.errno or 0, "see why, or name another address and port"
            )
            raise StartError(f"cannot listen: {error.strerror or error}; {remedy}") from error

    def leave(self, hurried: Callable[[float], bool]) -> None:
        """Call it before `stop`. A server whose store is down gives it SETTLE_SECONDS to come back
        and take what was deferred. One that registered itself tells the forwarders that it leaves,
        and serves on until no response is due any more, at most LEAVE_SECONDS. `hurried(seconds)`
        waits that long at most, and is true if there is no time for it."""
        try:
            self._wait_until(lambda: not self._deferred(), SETTLE_SECONDS, hurried)
            if self._settings.register:
                self._loop.ask(self._take_leave)
                self._wait_until(self._may_stop, LEAVE_SECONDS, hurried)
        except (LoopStopped, TimeoutError):
            return

    def _wait_until(
        self, condition: Callable[[], bool], seconds: float, hurried: Callable[[float], bool]
    ) -> None:
        deadline = time.monotonic() + seconds
        while not self._loop.ask(condition) and time.monotonic() < deadline and not hurried(0.05):
            continue

    def stop(self, timeout: float = 2.0) -> None:
        """Tells the cluster that this server stops, so that nobody has to wait for its silence. May
        be called twice. Stops all that can be stopped; then raises TimeoutError with the names of
        what still runs."""
        with contextlib.ExitStack() as stack:  # runs from the last to the first, each in any case
            if self._sock:
                stack.callback(self._sock.close)
            stack.callback(self._loop.stop, timeout)
            if self._loop.running:
                stack.callback(self._loop.post, self._close)
            stack.callback(self._queries.wait, timeout)
            if self._http:
                stack.callback(self._http.stop)

    # -- the sip thread ----------------------------------------------------------------------------

    def _open(self) -> None:
        assert self._sock is not None
        settings, listen = self._settings, self._sock.getsockname()[:2]
        self._channel = Channel(self._sock, fastest_io())
        try:
            self._join_cluster(format_address(listen))
        except BadRecord as error:
            raise StoreDown(f"{error}; restore the store from a backup") from error
        self._loop.watch(self._sock, self._readable)
        self._on_deadline()
        if settings.register:
            try:
                self._client = HeartbeatClient(
                    self._loop, settings.name, listen, settings.register, settings.beat
                )
            except OSError as error:
                raise StartError(
                    f"cannot register: {error.strerror or error}; correct --register, or the "
                    "network that leads there"
                ) from error
            self._client.start()

    def _join_cluster(self, address: str) -> None:
        settings = self._settings
        store = KeyedStore(open_store(settings.store), store_name(settings.store))
        try:
            key = join_cluster(store, lambda: secrets.token_hex(32), time.sleep)
            self._clock.join(store)
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
            page = f"http://{format_address(self._http.address)}/" if self._http else ""
            member = Member(settings.name, address, page, started=self._clock.now())
            # Of a pair whose address moves, each asks from its own computer's, where it hears
            # registrations.
            hosts = [host for host, _ in settings.register]
            node = Node(context, member, store, settings.forwarder, hosts, LogObserver())
            node.start(self._clock.now())
        except Conflict:
            store.close()
            raise StartError(
                f"another server that is named {settings.name} starts at this moment; give each "
                "its own --name"
            ) from None
        except BaseException:
            store.close()
            raise
        self._node = node

    def _readable(self) -> None:
        self._queue.fill(self._channel, self._loop.held_up())
        if not self._is_posted:
            self._work_on()

    def _work_on(self) -> None:
        """Handles a few of the queued datagrams; then timers, questions and what has come meanwhile
        have their turn."""
        try:
            if self._node:
                turn = self._node.receive(self._queue.take(BATCH), self._clock.now())
                for outcomes in turn:
                    self._send(outcomes)
        finally:  # what is still queued is handled even so
            self._is_posted = bool(self._queue and self._node)
            if self._is_posted:
                self._loop.post(self._work_on)

    def _on_deadline(self) -> None:
        node = self._node
        if not node:
            return
        try:
            for outcome in node.on_deadline(self._clock.now()):
                self._send([outcome])
            if jumped := self._clock.jumped():
                log.warning("%s", jumped)
        finally:
            seconds = max(0.0, node.deadline - self._clock.now())
            self._loop.at(time.monotonic() + seconds, self._on_deadline)

    def _send(self, outcomes: Sequence[Outcome]) -> None:
        """Counts what cannot be sent (no room, no route, port 0): this is UDP, and its receiver
        repeats the request. One that is too large would only fail again."""
        sends = [
            (send.data, send.to or self._settings.forwarder)
            for outcome in outcomes
            for send in outcome.sends
        ]
        failures = self._channel.send(sends)
        self._counts["sent", "datagrams"] += len(sends) - len(failures)
        if failures:
            self._counts["dropped", "unsendable"] += len(failures)
        too_large = [sends[at][0] for at, error in failures if error.errno == errno.EMSGSIZE]
        if too_large and self._node:
            for answered in self._node.too_large(too_large, self._clock.now()):
                self._send(answered)

    def _deferred(self) -> int:
        return self._node.degraded.deferred if self._node else 0

    def _take_leave(self) -> None:
        if self._node:
            self._node.leave(self._clock.now())
        if self._client:
            self._client.leave()

    def _may_stop(self) -> bool:
        """Have the forwarders answered, or gone, and does nobody wait for a response from here?"""
        is_told = not self._client or self._client.has_left()
        return is_told and (not self._node or self._node.is_idle(self._clock.now()))

    def _close(self) -> None:
        if self._client:
            self._client.close()
        node, self._node = self._node, None
        if node:
            try:
                self._send(node.stop(self._clock.now()))
            finally:
                node.store.close()

    def _status(self) -> dict[str, Any]:
        node, settings = self._node, self._settings
        dropped = {("dropped", name): count for name, count in self._queue.dropped.items()}
        return server_status(
            node.membership.member
            if node
            else Member(settings.name, format_address(settings.listen)),
            uptime=time.monotonic() - self._started,
            trouble=node.trouble if node else "it was not opened yet",
            forwarder=format_address(settings.forwarder),
            counts={**self._counts, **dropped, **(node.counts if node else {})},
            clock_offset=self._clock.offset,
            deferred=self._deferred(),
            warning=node.membership.warning if node else "",
            forwarder_page=settings.forwarder_page,
        )


class LogObserver:
    """Logs what a node says, with limits for lines that strangers can cause."""

    def __init__(self) -> None:
        self._throttled = ThrottledLog(log)

    def warn(self, sentence: str) -> None:
        self._throttled.say("warning", logging.WARNING, sentence)

    def failed(self, what: str, error: BaseException) -> None:
        text = f"a service failed; nothing of this event is saved: {what}"
        self._throttled.say("failure", logging.ERROR, text, error)

    def lost(self, sentence: str) -> None:
        log.error("%s", sentence)

    def handled(self, message: Request | Response, note: str) -> None:
        if log.isEnabledFor(logging.DEBUG):
            log.debug("call=%s %r %s", message.get("Call-ID"), message, note)

    def store_found(self) -> None:
        log.warning("the store works again")
