"""What to do with one datagram: the forwarder as a function.

`Core.receive(data, side, source, now)` gives the datagrams to send. It is a stateless proxy (RFC
3261 16.11) which remembers only what servers live and what they still owe; whatever else it must
know later it writes into the message: a signed branch in its Via, a signed hint in its
Record-Route. A message leaves as it came but for those lines, Max-Forwards, the sender's Via
(received, rport), a Route that named the forwarder, and the address of a dead server.
"""

from __future__ import annotations

from collections.abc import Callable

from failover.config.settings import PHONES
from failover.proxy.destination import literal, way_back
from failover.proxy.events import NOTHING, Dropped, Outcome, Passed, Queued, Send, joined
from failover.proxy.fast_path import FastPath
from failover.proxy.header_rewrite import Lines
from failover.proxy.outage_queue import HANG_UPS
from failover.proxy.pending_messages import EchoKey, Key, Row, echo_key, key_of
from failover.proxy.request_validation import Fields, Refused, been_here, is_probe, validate
from failover.upstream.failover import Members
from failover.upstream.server_table import Server, ServerTable
from failover.upstream.visibility import GracePeriod
from plumbing.address import Address
from sip.errors import RemoteProtocolError
from sip.keep_alive import is_keep_alive
from sip.message import BrokenRequest, Request, Response, parse, reply
from sip.uri import Uri

MAX_FORWARDS = 70
# seconds: a phone that heard 503 finds the forwarder recovered, or hears it again
RETRY_AFTER = "2"


class Core(Members):
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
        lines = Lines(table, key, advertised, to_server, is_own)
        super().__init__(table, fall, rise)
        self.lines = lines
        self._fast_path = FastPath(self)
        # of a forwarder whose address may move to another one that sees servers
        self.grace: GracePeriod | None = None

    # -- messages ----------------------------------------------------------------------------------

    def quick(self, data: bytes, side: str, source: Address, now: float) -> Send | None:
        """The datagram to send for an ordinary message, of which no event tells. None: `receive`
        has to handle it."""
        return self._fast_path.forward(data, side, source, now)

    def receive(self, data: bytes, side: str, source: Address, now: float) -> Outcome:
        """One datagram that came in on a side (PHONES or a server's name). For an ordinary one
        `quick` does the same where nobody wants to hear of it (fast_path.py)."""
        return self._handle(Row("", data, side, source, now), now)

    def _handle(self, row: Row, now: float) -> Outcome:
        if row.side != PHONES:
            sender = self.table.by_name.get(row.side)
            # What a server that is down says is stale, until its heartbeats are back.
            if not sender or not sender.up:
                return self._drop(
                    row, now, "fenced", f"{row.side} is {'down' if sender else 'not in the list'}"
                )
        if is_keep_alive(row.data):
            self.counters["keepalives"] += 1
            return NOTHING
        try:
            message = parse(row.data, in_passing=True)
            if isinstance(message, Response):
                return self._response(message, row, now)
            return self._request(message, row, now)
        except BrokenRequest as error:
            return self._broken(error, row, now)
        except RemoteProtocolError as error:
            return self._drop(row, now, "malformed", str(error))

    # -- requests ----------------------------------------------------------------------------------

    def _request(self, request: Request, row: Row, now: float) -> Outcome:
        self.lines.complete_via(request, row.source)
        try:
            if row.side == PHONES and is_probe(request):
                return Outcome(self._answer(request, row, 200 if self.table.hot else 503))
            validate(request)
            return self._forward(request, row, now)
        except Refused as error:
            return self._refuse(
                request, row, now, error.status, error.reason, str(error), error.fields
            )
        except RemoteProtocolError as error:
            # Our own lines may be in it by now: the answer is to the request as it came.
            received = parse(row.data, in_passing=True)
            assert isinstance(received, Request)
            return self._broken(BrokenRequest(error, received), row, now)

    def _broken(self, error: BrokenRequest, row: Row, now: float) -> Outcome:
        """What a request whose lines cannot be relied on gets, as far as its Via can be read."""
        try:
            self.lines.complete_via(error.request, row.source)
        except RemoteProtocolError:
            return self._drop(row, now, "malformed", str(error))
        return self._refuse(error.request, row, now, error.status, "malformed", str(error))

    def _forward(self, request: Request, row: Row, now: float) -> Outcome:
        branch = self.lines.branch(request)
        if request.method == "ACK" and request.to_tag == self.lines.own_tag(branch):
            return self._drop(row, now, "own-ack", "it acknowledges the forwarder's own answer")
        hops = request.max_forwards
        request.set("Max-Forwards", str(MAX_FORWARDS if hops is None else hops - 1))
        own = self._own_address(row)
        self.lines.drop_uri_headers(request)
        hint = self.lines.restore_target(request)
        hint = self.lines.pop_routes(request) or hint
        if been_here(self.lines.key, request, row.side, self.lines.signed):
            return self._refuse(
                request, row, now, 482, "loop", "it has been here before, asked for the same"
            )
        if row.side == PHONES:
            return self._to_server(request, row, now, branch, hint, own)
        return self._from_server(request, row, now, branch)

    def _own_address(self, row: Row) -> Address:
        """As the sender knows it."""
        if row.side == PHONES:
            return self.lines.towards(row.source)
        return self.lines.towards_server(row.source[0])

    def _to_server(
        self, request: Request, row: Row, now: float, branch: str, hint: str, own: Address
    ) -> Outcome:
        """A phone's request: to a server, whatever else it names."""
        server, why = self._choose(request, branch, hint, now)
        if not server:
            return self._no_server(request, row, now, branch, hint in self.table.by_hint)
        if row.moves > len(self.table.servers):
            return self._end_of_moves(request, row, now)
        self.lines.replace_dead(request, server)
        self.lines.record_route(request, own, server)
        self.lines.add_path(request, own)
        return self._pass_to_server(request, row, now, branch, server, why)

    def _from_server(self, request: Request, row: Row, now: float, branch: str) -> Outcome:
        """A server's request: to its next Route, else to its Request-URI, as far as they are
        addresses."""
        if request.method == "ACK":
            through = self.inflight.came_through(
                echo_key(request.vias[:2][-1].branch, "ACK", 0, request.to_tag)
            )
            self.table.by_name[row.side].has_handled(through)
        else:
            self._has_begun(row.side, request.vias[:2][-1].branch, request.method)
        try:
            routes = request.routes
            target = (routes[0].uri if routes else Uri.parse(request.uri)).address()
        except RemoteProtocolError as error:
            return self._refuse(request, row, now, error.status, "no-target", str(error))
        server = self.table.by_address.get(target)
        if server:
            why = "the next hop"
            if not server.accepts_dialogs:
                lost, server = server, self.table.choose_for(request, new=False)
                why = f"{lost.name} is down"
            if not server:
                return self._no_server(request, row, now, branch, proven=True)
            self.lines.replace_dead(request, server)
            return self._pass_to_server(request, row, now, branch, server, why)
        if not literal(target) or (":" in target[0]) != (":" in row.source[0]):
            note = (
                f"{target[0]} is no address that can be reached from here, "
                "and names are not looked up"
            )
            return self._refuse(request, row, now, 502, "no-target", note)
        if self.lines.is_own(target):
            return self._refuse(
                request, row, now, 482, "loop", "it would come back to the forwarder"
            )
        own = self.lines.towards(target)
        self.lines.hide_age(request)
        self.lines.suit_strict_router(request)
        self.lines.record_route(request, own, self.table.by_name[row.side])
        begins = request.method == "INVITE" and not request.to_tag and len(request.vias) == 1
        self.lines.push_via(request, own, branch, row.side)
        send = Send(PHONES, request.to_bytes(), target)
        outcome = self._passed(request, row, now, send, "its Request-URI")
        if not begins:
            return outcome
        self.orphans.sent(branch.encode(), row.side, send, now)
        return self._ending(self.orphans.replaced(request, target, now), now, outcome)

    def _pass_to_server(
        self, request: Request, row: Row, now: float, branch: str, server: Server, why: str
    ) -> Outcome:
        self.lines.push_via(request, self.lines.towards_server(server.address[0]), branch, row.side)
        since, waiting = row.since, row._replace(server=server.name)
        if self.kept.released:
            key = key_of(branch, request.method)
            since = min(since, self.kept.since(key, now))
            if request.method in HANG_UPS and key in self.kept.released:
                # it may be old already, and is owed as long as any other
                waiting = waiting._replace(since=now)
        self.lines.tell_age(request, now - since)
        server.requests += 1
        if request.method == "ACK":
            ends = self._ends_at_server(request, branch)
            self.inflight.echo(echo_key(branch, "ACK", 0, request.to_tag), waiting, ends)
        else:
            key = key_of(branch, request.method)
            self.inflight.wait(key, waiting)
            if server.unhandled is not None:
                server.unhandled.add(key)
        return self._passed(request, row, now, Send(server.name, request.to_bytes()), why)

    def _has_begun(self, server: str, branch: str, method: str) -> None:
        """The server has passed a request on, or answered it provisionally, that came to it with
        this branch."""
        if not branch.isascii():
            return
        if method == "INVITE":
            self.inflight.begun(branch.encode())
        key, sender = key_of(branch, method), self.table.by_name[server]
        sender.has_begun(key, self.inflight.waiting(key))
        if self.inflight.hedged:
            sender.is_late(key, self.inflight.hedged)

    def _choose(
        self, request: Request, branch: str, hint: str, now: float
    ) -> tuple[Server | None, str]:
        """Which server gets a phone's request, and why."""
        hinted = self.table.by_hint.get(hint)
        if hinted and hinted.accepts_dialogs:
            return hinted, "its call began there"
        # A retransmission goes where the request went, and so does the CANCEL of an INVITE.
        holder = self.table.by_name.get(
            self.inflight.server_of(branch.encode(), request.method.encode()) or ""
        )
        if holder and holder.accepts_dialogs:
            return holder, "it has the transaction"
        new = not request.to_tag and request.method not in ("ACK", "CANCEL")
        trial = self.passive.due_trial() if new else None
        if trial:
            self.passive.is_trial(trial, now)
            return trial, "to see whether it handles requests again"
        return self.table.choose_for(
            request, new
        ), f"{hinted.name} is down" if hinted else self.table.policy

    def _no_server(
        self, request: Request, row: Row, now: float, branch: str, proven: bool
    ) -> Outcome:
        """Refuses what begins something new, and keeps the rest until one lives (outage_queue.py).
        An INVITE that one had begun is not new: a phone may ring."""
        method, key = request.method, key_of(branch, request.method)
        begun = bool(request.to_tag) or method in ("ACK", "CANCEL") or row.begun
        if not begun and key not in self.kept and not self.inflight.is_moving(row.data):
            if self.grace and row.side == PHONES and self.grace.covers(now):
                note = "no server is seen; another forwarder may have the address soon"
                return self._drop(row, now, "grace", note, request)
            return self._refuse(request, row, now, 503, "no-server", "no server lives")
        proven = proven or row.begun or key_of(branch, "INVITE") in self.kept
        return self._keep(key, request, row, now, method in HANG_UPS, proven)

    def _keep(
        self,
        key: Key | EchoKey,
        message: Request | Response,
        row: Row,
        now: float,
        hang_up: bool,
        proven: bool,
    ) -> Outcome:
        """Its sender repeats the message, for it hears nothing; only the first copy is told of."""
        if row.replayed:
            self.kept_of_failover()
        row = row._replace(since=min(row.since, self.kept.since(key, now)))
        if not self.kept.keep(key, row, hang_up, proven, now):
            return NOTHING
        status = message.status if isinstance(message, Response) else None
        told = Queued(now, row.side, row.source, message.cseq.method, status, message.call_id)
        return Outcome((), (told,))

    def _end_of_moves(self, request: Request, row: Row, now: float) -> Outcome:
        """One server after the other went down with this request, so it may be what ends them. A
        hang-up is not refused even then: it is dropped, and its phone repeats it."""
        note = "each server that had it went down"
        if request.to_tag or request.method in HANG_UPS:
            return self._drop(row, now, "no-server", note, request)
        return self._refuse(request, row, now, 503, "no-server", note)

    def _refuse(
        self,
        request: Request,
        row: Row,
        now: float,
        status: int,
        reason: str,
        note: str,
        fields: Fields = (),
    ) -> Outcome:
        """Answers instead of forwarding. An ACK gets no answer, ever (RFC 3261 17.1.1.3)."""
        if request.method == "ACK":
            return self._drop(row, now, reason, note, request)
        sends = self._answer(request, row, status, fields)
        return Outcome(sends, self._drop(row, now, reason, note, request).events)

    def _answer(
        self, request: Request, row: Row, status: int, fields: Fields = ()
    ) -> tuple[Send, ...]:
        """The forwarder's own."""
        if status == 503:
            fields = (*fields, ("Retry-After", RETRY_AFTER))
        data = reply(request, status, "", self.lines.answer_tag(request), fields).to_bytes()
        self.counters[f"answered.{status}"] += 1
        back = way_back(request.via)
        send = Send(row.side, data) if row.side != PHONES else Send(PHONES, data, back)
        return (send,) if row.side != PHONES or literal(back) else ()

    # -- responses ---------------------------------------------------------------------------------

    def _response(self, response: Response, row: Row, now: float) -> Outcome:
        """The way back is in the message, and signed: nobody can have a response sent where no
        request came from."""
        if row.side == PHONES and self.orphans.watchful:
            ended = self.orphans.answered(response, now)
            if ended:
                return self._ending([(ended[0], send) for send in ended[1]], now)
        if not self.lines.is_ours(response):
            return self._drop(row, now, "not-ours", "its topmost Via is not one the forwarder made")
        method = response.cseq.method
        branch = response.via.branch
        response.pop("Via")
        ahead = NOTHING
        if row.side != PHONES:
            ahead = self._heard(response, method, branch, row.side, now)
        elif method == "INVITE":
            self.orphans.heard(branch.encode(), response.status >= 200)
        return joined((ahead, self._return(response, row, now)))

    def _heard(
        self, response: Response, method: str, branch: str, server: str, now: float
    ) -> Outcome:
        """What follows from a server's answer, beside that it is passed on."""
        sender, refused = self.table.by_name[server], method == "INVITE" and response.status >= 300
        sender.responses += 1
        key = echo_key(branch, method, response.status, response.to_tag)
        through = self.inflight.came_through(key)
        sender.has_handled(through)
        sender.last_heard_at = now
        if response.status < 200:
            self._has_begun(server, branch, method)
            return NOTHING
        answered = self.inflight.answered(key_of(branch, method))
        sender.has_handled(answered)
        if self.inflight.hedged:
            sender.is_late(key_of(branch, method), self.inflight.hedged)
        resumed = self._settle(answered, server, now)
        outcome = Outcome((), resumed) if resumed else NOTHING
        if refused:
            self.inflight.refused(branch.encode(), server, own=not through)
        if refused and answered and answered[5] and answered[6]:  # replayed, and had begun
            return self._ending(self.orphans.refused(answered[1], now), now, outcome)
        return outcome

    def _return(self, response: Response, row: Row, now: float) -> Outcome:
        """Sends a response, our Via gone from it, to where its request came from."""
        target = way_back(response.via)
        server, why = self.table.by_address.get(target), "the way it came"
        if not server:
            if not literal(target):
                return self._drop(row, now, "no-target", f"{target[0]} is not an address")
            self.lines.hide_age(response)
            return self._passed(response, row, now, Send(PHONES, response.to_bytes(), target), why)
        if not server.accepts_dialogs:
            why = f"{server.name} is down"
            server = self.table.choose_for(response, new=False)
        vias = response.vias[:2]  # the second is ours in the request, if that did not begin there
        key = echo_key(vias[-1].branch, response.cseq.method, response.status, response.to_tag)
        if not server:
            return self._keep(key, response, row, now, hang_up=False, proven=True)
        ends = len(vias) == 1
        server.relayed += not ends
        self.inflight.echo(key, row._replace(server=server.name), ends)
        return self._passed(response, row, now, Send(server.name, response.to_bytes()), why)

    def undelivered(self, data: bytes, side: str, status: int, now: float) -> Outcome:
        """The system would not send this message of ours, or its receiver's computer refused it:
        the sender hears what it would hear if the receiver had answered with `status` (RFC 3261
        16.9). Not for an ACK or an answer, nor for a request of a dialog but a re-INVITE: its
        sender ends that by itself, and a hang-up is not to be refused."""
        try:
            request = parse(b"".join(data.partition(b"\r\n\r\n")[:2]), in_passing=True)
        except BrokenRequest as error:
            request = error.request  # its body is missing
        except RemoteProtocolError:
            return NOTHING  # an answer, which was passed on as it came
        if not isinstance(request, Request) or request.method == "ACK":
            return NOTHING
        branch = request.via.branch
        # the forwarder's own, which ends what a dead server had ringing
        if len(request.values("Via")) < 2:
            self.orphans.undelivered(branch)
            return NOTHING
        if status != 513 and request.to_tag and request.method != "INVITE":
            return NOTHING
        self.inflight.answered(key_of(branch, request.method))
        self.orphans.heard(branch.encode("utf-8", "surrogateescape"), final=True)
        self.counters[f"answered.{status}"] += 1
        response = reply(request, status, "", self.lines.own_tag(branch))
        response.pop("Via")
        return self._return(
            response, Row("", response.to_bytes(), side, way_back(response.via), now), now
        )

    def adopt(self, table: ServerTable, fall: int, rise: int, now: float) -> Outcome:
        self.lines.table = table
        self.lines.changed()
        return super().adopt(table, fall, rise, now)

    # -- accounts ----------------------------------------------------------------------------------

    def _passed(
        self, message: Request | Response, row: Row, now: float, send: Send, why: str
    ) -> Outcome:
        status = message.status if isinstance(message, Response) else None
        method = message.method if isinstance(message, Request) else message.cseq.method
        self.counters["passed.requests" if status is None else "passed.responses"] += 1
        target = send.target or self.table.by_name[send.to].address
        if row.replayed:
            why = f"replayed, {why}"
        elif now > row.since:
            why = f"kept for {now - row.since:.1f} s, {why}"
        call_id = message.call_id
        session = self.table.affinity_key(message)
        passed = Passed(
            now,
            row.side,
            send.to,
            row.source,
            target,
            method,
            status,
            call_id,
            row.replayed,
            why,
            session if session != call_id else "",
        )
        return Outcome((send,), (passed,))

    def _drop(
        self, row: Row, now: float, reason: str, note: str, request: Request | None = None
    ) -> Outcome:
        self.counters[f"dropped.{reason}"] += 1
        call = f"{request.method} call={request.get('Call-ID') or '?'}" if request else ""
        return Outcome((), (Dropped(now, reason, row.side, row.source, note, call),))
