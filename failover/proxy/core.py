"""The core handles one datagram: the forwarder as a function of octets, sender and time.

`Core.receive(data, side, source, now)` returns the datagrams to send and the events to tell. It is
a stateless proxy (RFC 3261 16.11): what it must know later it writes into the message, a signed
branch in its Via and a signed hint in its Record-Route. What it does remember is about servers, and
is in `failover`: which are up, and what each was sent and has not handled.

A request is read, validated and forwarded in this order:

 1. The sender's Via gets `received` and `rport` (RFC 3581), so that answers go back to the sender.
 2. Sanity, Max-Forwards, Proxy-Require (RFC 3261 16.3). A fault is answered.
 3. A Route that names the forwarder is taken off; its hint names the server of the dialog.
 4. Loop detection (RFC 5393), which looks at the Request-URI and Route as they are now.
 5. A phone's request goes to a server, whatever else it names: the forwarder is no open relay. A
    server's request goes to its next Route, else to its Request-URI, if that is an address.
 6. Record-Route, Path, our Via; and it is pending at its server.

A response goes where the Via beneath ours says, if ours is one that this forwarder, or another with
the same secret, has signed.

Everything else of the message stays as it was received. An ordinary message takes the fast path
(fast_path.py), which does the same to its octets; change both, or tests/failover/test_fast_path.py
fails. All of this runs on one thread and does not look at a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from failover.config.settings import CALL_ID, PHONES
from failover.proxy.events import NOTHING, Dropped, Outcome, Passed, Queued, Send, joined
from failover.proxy.fast_path import FastPath
from failover.proxy.header_rewrite import HeaderRewriter, WayBack, response_address
from failover.proxy.outage_queue import HANG_UPS, KeptMessage, pause_seconds
from failover.proxy.pending_messages import (
    OneWayKey,
    PendingDatagram,
    RequestKey,
    octets,
    one_way_key,
    request_key,
)
from failover.proxy.request_validation import Fields, Refused, is_looped, is_probe, validate
from failover.upstream.failover import Failover
from failover.upstream.server_table import Server, ServerTable
from failover.upstream.upstream_reachability import GracePeriod
from plumbing.address import Address, literal
from sip.errors import RemoteProtocolError
from sip.keep_alive import is_keep_alive
from sip.message import BrokenRequest, Request, Response, parse, reply
from sip.uri import Uri

MAX_FORWARDS = 70
# Seconds: a phone that got 503 finds the forwarder recovered, or gets it again.
RETRY_AFTER = "2"


class Forwarding(NamedTuple):
    """A request on its way. `datagram`: as it came; `branch`: ours; `key`: of its pending datagram;
    `back`: where its answers go; `hint`: of its Route, or ""; `own`: the forwarder's address as the
    sender knows it."""

    request: Request
    datagram: PendingDatagram
    now: float
    branch: str
    key: RequestKey
    back: Address
    hint: str
    own: Address


class Core:
    """Owned by one thread. `advertised(phone)` is the forwarder's own address as that phone knows
    it, `advertised_to_server(host)` as a server there does (None: one for all); `is_own(address)`
    knows its other addresses and names."""

    def __init__(
        self,
        table: ServerTable,
        key: bytes,
        advertised: Callable[[Address], Address],
        fall: int = 3,
        rise: int = 2,
        is_own: Callable[[Address], bool] = lambda address: False,
        advertised_to_server: Callable[[str], Address] | None = None,
    ) -> None:
        to_server = advertised_to_server or (lambda host: advertised((host, 0)))
        self.lines = HeaderRewriter(table, key, advertised, to_server, is_own)
        self.failover = Failover(table, fall, rise, self._handle)
        # how often each thing happened, by its name (docs/operations.txt lists them)
        self.counters = self.failover.counters
        self.pending = self.failover.pending
        self.outage_queue = self.failover.outage_queue
        self.orphans = self.failover.orphans
        self._fast_path = FastPath(self)
        # The datagram to send for an ordinary message, without events; None: `receive` must handle
        # it.
        self.quick = self._fast_path.forward
        # of a forwarder whose address may move to another one that sees servers
        self.grace: GracePeriod | None = None

    @property
    def table(self) -> ServerTable:
        return self.failover.table

    def replace_table(self, table: ServerTable, fall: int, rise: int, now: float) -> Outcome:
        """Serves by another table."""
        self.lines.table = table
        self.lines.generation += 1
        return self.failover.replace_table(table, fall, rise, now)

    # -- datagrams ---------------------------------------------------------------------------------

    def receive(self, data: bytes, side: str, source: Address, now: float) -> Outcome:
        """Handles one datagram that came in on a side (PHONES or a server's name)."""
        return self._handle(PendingDatagram("", data, side, source, now), now)

    def _handle(self, datagram: PendingDatagram, now: float) -> Outcome:
        """Handles a datagram that came now, or once more one whose server went down."""
        if datagram.side != PHONES:
            sender = self.table.by_name.get(datagram.side)
            # Messages of a server that is down are stale, until its heartbeats are back.
            if not sender or not sender.up:
                note = f"{datagram.side} is {'down' if sender else 'not in the list'}"
                return self._drop(datagram, now, "fenced", note)
        if is_keep_alive(datagram.data):
            self.counters["keepalives"] += 1
            return NOTHING
        try:
            message = parse(datagram.data, in_passing=True)
            if isinstance(message, Response):
                return self._response(message, datagram, now)
            return self._request(message, datagram, now)
        except BrokenRequest as error:
            return self._broken(error, datagram, now)
        except RemoteProtocolError as error:
            return self._drop(datagram, now, "malformed", str(error))

    # -- requests ----------------------------------------------------------------------------------

    def _request(self, request: Request, datagram: PendingDatagram, now: float) -> Outcome:
        request.complete_via(*datagram.source)
        try:
            if datagram.side == PHONES and is_probe(request):
                return Outcome(self._answer(request, datagram, 200 if self.table.hot else 503))
            validate(request)
            return self._forward(request, datagram, now)
        except Refused as refused:
            return self._refuse(request, datagram, now, refused)
        except RemoteProtocolError as error:
            # Our own lines may be in the request by now, so the answer is to what was received.
            received = parse(datagram.data, in_passing=True)
            assert isinstance(received, Request)
            return self._broken(BrokenRequest(error, received), datagram, now)

    def _broken(self, error: BrokenRequest, datagram: PendingDatagram, now: float) -> Outcome:
        """Answers a malformed request, if its Via can be read."""
        try:
            error.request.complete_via(*datagram.source)
        except RemoteProtocolError:
            return self._drop(datagram, now, "malformed", str(error))
        refused = Refused(str(error), error.status, "malformed")
        return self._refuse(error.request, datagram, now, refused)

    def _forward(self, request: Request, datagram: PendingDatagram, now: float) -> Outcome:
        back = response_address(request.via)
        branch = self.lines.branch(request, back)
        if request.method == "ACK" and request.to_tag == self.lines.own_tag(branch):
            note = "it acknowledges the forwarder's own answer"
            return self._drop(datagram, now, "own-ack", note)
        hops = request.max_forwards
        request.set("Max-Forwards", str(MAX_FORWARDS if hops is None else hops - 1))
        # Before the Routes are looked at, which may name it.
        if datagram.side == PHONES:
            own = self.lines.towards(datagram.source)
        else:
            own = self.lines.towards_server(datagram.source[0])
        self.lines.drop_uri_headers(request)
        hint = self.lines.restore_target(request)
        hint = self.lines.pop_routes(request) or hint
        if is_looped(request, datagram.side, self.lines.is_ours):
            raise Refused("it has been here before, asked for the same", 482, "loop")
        key = request_key(branch, request.method)
        forwarding = Forwarding(request, datagram, now, branch, key, back, hint, own)
        if datagram.side == PHONES:
            return self._to_server(forwarding)
        return self._from_server(forwarding)

    def _to_server(self, forwarding: Forwarding) -> Outcome:
        """A phone's request goes to a server, whatever else it names."""
        request, datagram, now, branch, key, _, hint, own = forwarding
        old = datagram.replayed or datagram.received_at < now
        if (old or not self.table.usable) and self.pending.is_answered(key, datagram.data):
            return NOTHING  # its 2xx has come
        new = not request.to_tag and request.method not in ("ACK", "CANCEL")
        server, why = self.failover.choose(
            hint,
            octets(branch),
            key,
            new,
            self.table.affinity_key(request) if self.table.policy == CALL_ID else "",
            now,
        )
        if not server and datagram.rings:
            server, why = self.table.draining, "no other is left"
        # in the queue although a server is up: a copy of what has a pause, or an INVITE that waits
        # for another server, and with it its CANCEL
        waits = key in self.outage_queue or (
            request.method == "CANCEL" and request_key(branch, "INVITE") in self.outage_queue
        )
        if not server or waits or self._pause(datagram):
            return self._no_server(forwarding, proven=hint in self.table.by_hint)
        self.lines.replace_dead(request, server)
        self.lines.record_route(request, own, server)
        self.lines.add_path(request, own)
        return self._pass_to_server(forwarding, server, why)

    def _pause(self, datagram: PendingDatagram) -> float:
        """How long a message has to wait that was just taken from a server, if it may be what the
        servers go down of, because it failed at more of them than there are."""
        excess = datagram.failures - len(self.table.servers)
        return pause_seconds(excess) if datagram.server and excess > 0 else 0.0

    def _from_server(self, forwarding: Forwarding) -> Outcome:
        """A server's request goes to its next Route, else to its Request-URI."""
        request, datagram, now, branch, _, back, _, _ = forwarding
        asker = self.table.by_name[datagram.side]
        beneath = octets(request.vias[:2][-1].branch)
        method, to_tag = request.method.encode(), octets(request.to_tag)
        self.failover.request_passed_on(asker, beneath, method, to_tag)
        key = beneath + method
        if (
            method == b"INVITE"
            and self.pending.may_be_answered_lately(key, now)
            and self.pending.is_answered(key, datagram.data)
        ):
            return self._drop(datagram, now, "answered", "its phone has answered", request)
        try:
            routes = request.routes
            target = (routes[0].uri if routes else Uri.parse(request.uri)).address()
        except RemoteProtocolError as error:
            raise Refused(str(error), error.status, "no-target") from None
        server = self.table.by_address.get(target)
        if server:
            why = "the next hop"
            if not server.accepts_dialogs:
                lost, server = server, self.table.choose_for(request, new=False)
                why = f"{lost.name} is down"
            if not server:
                return self._no_server(forwarding, proven=True)
            self.lines.replace_dead(request, server)
            return self._pass_to_server(forwarding, server, why)
        if not literal(target) or (":" in target[0]) != (":" in datagram.source[0]):
            note = "no address that can be reached from here, and names are not looked up"
            raise Refused(f"{target[0]} is {note}", 502, "no-target")
        if self.lines.is_own(target):
            raise Refused("it would come back to the forwarder", 482, "loop")
        own = self.lines.towards(target)
        self.lines.hide_age(request)
        self.lines.suit_strict_router(request)
        self.lines.record_route(request, own, asker)
        begins = request.method == "INVITE" and not request.to_tag and len(request.vias) == 1
        self.lines.push_via(request, own, branch, datagram.side, back)
        send = Send(PHONES, request.to_bytes(), target)
        outcome = self._passed(request, datagram, now, send, "its Request-URI")
        if not begins:
            return outcome
        self.orphans.invite_sent(branch.encode(), asker, send, now)
        return joined((self.orphans.called_anew(request, target, now), outcome))

    def _pass_to_server(self, forwarding: Forwarding, server: Server, why: str) -> Outcome:
        request, datagram, now, branch, key, back, _, _ = forwarding
        own = self.lines.towards_server(server.address[0])
        self.lines.push_via(request, own, branch, datagram.side, back)
        first_received = datagram.received_at
        pending = datagram.sent_to(server.name, now)
        if self.outage_queue.released:
            first_received = self.outage_queue.first_received(key, first_received)
            if request.method in HANG_UPS and key in self.outage_queue.released:
                # it may be old already, and is owed as long as any other
                pending = pending._replace(received_at=now)
        self.lines.tell_age(request, now - first_received)
        if request.method == "ACK":
            ends = self._ends_at_server(request, branch)
            to_tag = octets(request.to_tag)
            self.failover.ack_sent(server, octets(branch), to_tag, pending, ends)
        else:
            self.failover.request_sent(server, key, pending)
        return self._passed(request, datagram, now, Send(server.name, request.to_bytes()), why)

    def _ends_at_server(self, ack: Request, branch: str) -> bool:
        """Is a server the party that is meant? The ACK names it, or confirms its own refusal."""
        if self.pending.refused_by_server(branch.encode()):
            return True
        named = ack.uri[:4].lower() in ("sip:", "sips") and not ack.routes
        return named and Uri.parse(ack.uri).address() in self.table.by_address

    def _no_server(self, forwarding: Forwarding, proven: bool) -> Outcome:
        """Refuses what begins something new, and keeps the rest until a server is up, or longer if
        it has a pause (outage_queue.py). An INVITE that a server had begun is not new: a phone may
        ring."""
        request, datagram, now, branch, key, _, _, _ = forwarding
        begun = bool(request.to_tag) or request.method in ("ACK", "CANCEL") or datagram.rings
        if not begun and key not in self.outage_queue and not self.pending.is_moved(datagram.data):
            if self.grace and datagram.side == PHONES and self.grace.covers(now):
                note = "no server is seen; another forwarder may have the address soon"
                return self._drop(datagram, now, "grace", note, request)
            tried = self._pause(datagram)
            note = "each server that had it failed" if tried else "no server lives"
            raise Refused(note, 503, "no-server")
        invite = self.outage_queue.get(request_key(branch, "INVITE"))
        proven = proven or datagram.begun or invite is not None
        ends_call = request.method in HANG_UPS
        due = now + self._pause(datagram)
        begins = datagram.side == PHONES and request.method == "INVITE" and not request.to_tag
        if invite and request.method == "CANCEL":
            due, begins = max(due, invite.due), invite.begins
        kept = KeptMessage(datagram, ends_call, due, begins)
        return self._keep(key, request, kept, proven, now)

    def _keep(
        self,
        key: RequestKey | OneWayKey,
        message: Request | Response,
        kept: KeptMessage,
        proven: bool,
        now: float,
    ) -> Outcome:
        """Its sender gets no answer, so it repeats the message; only the first copy is told of."""
        datagram = kept.datagram
        if datagram.replayed:
            self.failover.count_kept()
        first_received = self.outage_queue.first_received(key, datagram.received_at)
        kept = kept._replace(datagram=datagram._replace(received_at=first_received))
        if not self.outage_queue.add(key, kept, proven):
            return NOTHING
        status = message.status if isinstance(message, Response) else None
        method, call_id = message.cseq.method, message.call_id
        pause = self._pause(kept.datagram)
        queued = Queued(now, datagram.side, datagram.source, method, status, call_id, pause)
        return Outcome((), (queued,))

    def _refuse(
        self, request: Request, datagram: PendingDatagram, now: float, refused: Refused
    ) -> Outcome:
        """Answers instead of forwarding. An ACK gets no answer, ever (RFC 3261 17.1.1.3)."""
        dropped = self._drop(datagram, now, refused.reason, str(refused), request)
        if request.method == "ACK":
            return dropped
        sends = self._answer(request, datagram, refused.status, refused.fields)
        return dropped._replace(sends=sends)

    def _answer(
        self, request: Request, datagram: PendingDatagram, status: int, fields: Fields = ()
    ) -> tuple[Send, ...]:
        """The forwarder's own answer."""
        if status == 503:
            fields = (*fields, ("Retry-After", RETRY_AFTER))
        data = reply(request, status, "", self.lines.answer_tag(request), fields).to_bytes()
        self.counters[f"answered.{status}"] += 1
        if datagram.side != PHONES:
            return (Send(datagram.side, data),)
        back = response_address(request.via)
        return (Send(PHONES, data, back),) if literal(back) else ()

    # -- responses ---------------------------------------------------------------------------------

    def _response(self, response: Response, datagram: PendingDatagram, now: float) -> Outcome:
        """The way back is in the message, and signed: nobody can have a response sent where no
        request came from."""
        if datagram.side == PHONES and self.orphans.watchful:
            ended = self.orphans.answered(response, now)
            if ended is not None:
                return ended
        back = self.lines.way_back(response)
        if not back:
            note = "its topmost Via is not one the forwarder made"
            return self._drop(datagram, now, "not-ours", note)
        branch = response.pop_via().branch
        ahead = NOTHING
        if datagram.side != PHONES:
            ahead = self._from_server_answered(response, branch, datagram.side, now)
        elif response.cseq.method == "INVITE":
            self.orphans.invite_answered(branch.encode(), response.status >= 200)
        return joined((ahead, self._return(response, datagram, back, now)))

    def _from_server_answered(
        self, response: Response, branch: str, server: str, now: float
    ) -> Outcome:
        """Accounts for a server's response, apart from passing it on."""
        key = one_way_key(branch, response.cseq.method, response.status, response.to_tag)
        request = self.failover.response_received(self.table.by_name[server], *key, now)
        resumed = self.failover.first_answer(request, server, now)
        outcome = Outcome((), resumed) if resumed else NOTHING
        refused = response.cseq.method == "INVITE" and response.status >= 300
        if request and refused and request.replayed and request.begun:
            return joined((self.orphans.caller_refused(request.data, now), outcome))
        return outcome

    def _return(
        self, response: Response, datagram: PendingDatagram, back: WayBack, now: float
    ) -> Outcome:
        """Sends a response, our Via gone from it, to where its request came from."""
        target, why = back.address, "the way it came"
        if not back.to_server:
            if not literal(target):
                return self._drop(datagram, now, "no-target", f"{target[0]} is not an address")
            self.lines.hide_age(response)
            send = Send(PHONES, response.to_bytes(), target)
            return self._passed(response, datagram, now, send, why)
        server = self.table.by_address.get(target)
        if not server or not server.accepts_dialogs:
            why = f"{server.name} is down" if server else f"{target[0]} is no server any more"
            server = self.table.choose_for(response, new=False)
        vias = response.vias[:2]  # the second is ours in the request, if that did not begin there
        method = response.cseq.method
        key = one_way_key(vias[-1].branch, method, response.status, response.to_tag)
        ends, pause = len(vias) == 1, self._pause(datagram)
        if not server or pause:
            if not ends:
                self.pending.add_answer(key, datagram.data, now)
            refuses = method == "INVITE" and response.status >= 300
            return self._keep(key, response, KeptMessage(datagram, refuses, now + pause), True, now)
        # it may have waited, and is owed as long as any other
        pending = datagram.sent_to(server.name, now)._replace(received_at=now)
        self.failover.response_sent(server, key, pending, ends)
        return self._passed(response, datagram, now, Send(server.name, response.to_bytes()), why)

    def undelivered(self, data: bytes, side: str, status: int, now: float) -> Outcome:
        """The system would not send this message of ours, or its receiver's computer refused it.
        The sender gets what it would get if the receiver had answered with `status` (RFC 3261
        16.9). Not for an ACK or a response, nor for a request of a dialog but a re-INVITE: its
        sender ends that by itself, and a hang-up is not to be refused. Who cancels an INVITE waits
        for the final answer to that (9.1), which its phone will not send any more."""
        try:
            request = parse(b"".join(data.partition(b"\r\n\r\n")[:2]), in_passing=True)
        except BrokenRequest as error:
            request = error.request  # its body is missing
        except RemoteProtocolError:
            return NOTHING  # a response, which was passed on as it came
        if not isinstance(request, Request) or request.method == "ACK":
            return NOTHING
        branch = request.via.branch
        # the forwarder's own, which ends what a lost server had ringing
        if len(request.values("Via")) < 2:
            self.orphans.undelivered(branch)
            return NOTHING
        if status != 513 and request.to_tag and request.method != "INVITE":
            return NOTHING
        self.orphans.invite_answered(octets(branch), final=True)
        cancel = request.method == "CANCEL"
        answers = [("CANCEL", 200), ("INVITE", status)] if cancel else [(request.method, status)]
        outcome = NOTHING
        for method, answered in answers:
            self.pending.remove_request(request_key(branch, method))
            response = reply(request, answered, "", self.lines.own_tag(branch))
            response.set("CSeq", f"{request.cseq.number} {method}")
            back = self.lines.way_back(response)
            if not back:
                return NOTHING
            self.counters[f"answered.{answered}"] += 1
            response.pop_via()
            datagram = PendingDatagram("", response.to_bytes(), side, back.address, now)
            outcome = joined((outcome, self._return(response, datagram, back, now)))
        return outcome

    # -- events ------------------------------------------------------------------------------------

    def _passed(
        self,
        message: Request | Response,
        datagram: PendingDatagram,
        now: float,
        send: Send,
        why: str,
    ) -> Outcome:
        status = message.status if isinstance(message, Response) else None
        method = message.method if isinstance(message, Request) else message.cseq.method
        self.counters["passed.requests" if status is None else "passed.responses"] += 1
        if datagram.replayed:
            why = f"replayed, {why}"
        elif now > datagram.received_at:
            why = f"kept for {now - datagram.received_at:.1f} s, {why}"
        call_id = message.call_id
        affinity_key = self.table.affinity_key(message)
        passed = Passed(
            now,
            datagram.side,
            send.to,
            datagram.source,
            send.target or self.table.by_name[send.to].address,
            method,
            status,
            call_id,
            datagram.replayed,
            why,
            affinity_key if affinity_key != call_id else "",
            send.data,
        )
        return Outcome((send,), (passed,))

    def _drop(
        self,
        datagram: PendingDatagram,
        now: float,
        reason: str,
        note: str,
        request: Request | None = None,
    ) -> Outcome:
        self.counters[f"dropped.{reason}"] += 1
        call = f"{request.method} call={request.get('Call-ID') or '?'}" if request else ""
        dropped = Dropped(now, reason, datagram.side, datagram.source, note, call)
        return Outcome((), (dropped,))
