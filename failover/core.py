"""What to do with one datagram: the forwarder as a function.

`Core.receive(data, leg, source, now)` gives the datagrams to send. It is a stateless proxy (RFC 3261 16.11) which
remembers only what servers live and what they still owe; whatever else it must know later it writes into the message: a
signed branch in its Via, a signed hint in its Record-Route. A message leaves as it came but for those lines,
Max-Forwards, the sender's Via (received, rport), a Route that named the forwarder, and the address of a dead server.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

from failover.health import ANSWER, MISS, Signal
from failover.inflight import InFlight, Row
from failover.outcome import NOTHING, Dropped, Event, Failover, Outcome, Passed, Resumed, Send, StateChanged
from failover.route import literal, names, way_back
from failover.settings import CALL_ID, PHONES
from failover.table import Server, ServerTable, Wish
from plumbing.address import Address, format_address
from sip.branch import keyed_hash, make_branch, verify_branch
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import DIALOG_CREATING, Request, Response, parse, reply
from sip.uri import Uri
from sip.via import Via

MAX_FORWARDS = 70
RETRY_AFTER = "2"  # seconds: a phone that heard 503 finds the forwarder recovered, or hears it again
REMEMBERED_FAILOVERS = 100
KEEP_ALIVE = b"\r\n\0 "  # what phones send to keep a hole in their firewall open is made of these


class Core:
    """Owned by one thread. `advertised(host)` is the forwarder's own address as a peer at that IP address knows it."""

    def __init__(
        self, table: ServerTable, key: bytes, advertised: Callable[[str], Address], fall: int = 3, rise: int = 2
    ) -> None:
        self.table = table
        self.fall, self.rise = fall, rise
        self.counters: Counter[str] = Counter()
        self.inflight = InFlight(self.counters)
        self.failovers: deque[Failover] = deque(maxlen=REMEMBERED_FAILOVERS)
        self._key = key
        self._advertised = advertised
        self._own: set[Address] = set()  # as many as this computer has addresses

    # -- messages ---------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, leg: str, source: Address, now: float) -> Outcome:
        """One datagram that came in on a leg (PHONES or a server's name)."""
        return self._handle(Row("", data, leg, source, now), now)

    def _handle(self, row: Row, now: float) -> Outcome:
        if row.leg != PHONES:
            sender = self.table.by_name.get(row.leg)
            # What a server that is down says is stale, until its heartbeats are back.
            if not sender or not sender.health.alive:
                return self._drop(row, now, "fenced", f"{row.leg} is {'down' if sender else 'not in the list'}")
        if not row.data.strip(KEEP_ALIVE):
            self.counters["keepalives"] += 1
            return NOTHING
        try:
            message = parse(row.data)
            if isinstance(message, Response):
                return self._response(message, row, now)
            return self._request(message, row, now)
        except RemoteProtocolError as error:
            return self._drop(row, now, "malformed", str(error))

    # -- requests ---------------------------------------------------------------------------------------------------

    def _request(self, request: Request, row: Row, now: float) -> Outcome:
        via = request.via
        complete = via.with_source(*row.source)
        if complete != via:
            request.replace_top("Via", str(complete))
        try:
            request.check()
            return self._forward(request, row, now)
        except RemoteProtocolError as error:
            return self._refuse(request, row, now, error.status, "malformed", str(error))

    def _forward(self, request: Request, row: Row, now: float) -> Outcome:
        hops = request.max_forwards
        if hops == 0:
            return self._refuse(request, row, now, 483, "too-many-hops", "Max-Forwards is 0")
        branch = self._branch(request)
        if request.method == "ACK" and request.to.tag == self._own_tag(branch):
            return self._drop(row, now, "own-ack", "it acknowledges the forwarder's own answer")
        request.set("Max-Forwards", str(MAX_FORWARDS if hops is None else hops - 1))
        self._own.add(self._advertised(row.source[0]))
        hint = self._pop_routes(request)
        if row.leg == PHONES:
            return self._to_server(request, row, now, branch, hint)
        return self._from_server(request, row, now, branch)

    def _to_server(self, request: Request, row: Row, now: float, branch: str, hint: str) -> Outcome:
        """A phone's request: to a server, whatever else it names."""
        server, why = self._choose(request, branch, hint)
        if not server:
            return self._no_server(request, row, now)
        self._replace_dead(request, server)
        self._record_route(request, self._advertised(row.source[0]), server)
        return self._pass_to_server(request, row, now, branch, server, why)

    def _from_server(self, request: Request, row: Row, now: float, branch: str) -> Outcome:
        """A server's request: to its next Route, else to its Request-URI, as far as they are addresses."""
        if request.method == "ACK":
            self.inflight.came_through((request.vias[:2][-1].branch, "ACK", 0, request.to.tag))
        try:
            target = self._next_hop(request).address()
        except RemoteProtocolError as error:
            return self._refuse(request, row, now, error.status, "no-target", str(error))
        server = self.table.by_address.get(target)
        if server:
            why = "the next hop"
            if not server.usable:
                lost, server = server, self.table.choose_for(request, new=False)
                why = f"{lost.name} is down"
            if not server:
                return self._no_server(request, row, now)
            self._replace_dead(request, server)
            return self._pass_to_server(request, row, now, branch, server, why)
        if not literal(target):
            note = f"{target[0]} is not an address, and names are not looked up"
            return self._refuse(request, row, now, 502, "no-target", note)
        if target in self._own:
            return self._refuse(request, row, now, 482, "loop", "it would come back to the forwarder")
        own = self._advertised(target[0])
        self._own.add(own)
        self._record_route(request, own, self.table.by_name[row.leg])
        self._push_via(request, own, branch)
        return self._passed(request, row, now, Send(PHONES, request.to_bytes(), target), "its Request-URI")

    def _pass_to_server(self, request: Request, row: Row, now: float, branch: str, server: Server, why: str) -> Outcome:
        self._push_via(request, self._advertised(server.address[0]), branch)
        server.requests += 1
        waiting = Row(server.name, row.data, row.leg, row.source, row.since, row.replayed)
        if request.method == "ACK":
            self.inflight.echo((branch, "ACK", 0, request.to.tag), waiting)
        else:
            self.inflight.wait((branch, request.method), waiting)
        return self._passed(request, row, now, Send(server.name, request.to_bytes()), why)

    def _choose(self, request: Request, branch: str, hint: str) -> tuple[Server | None, str]:
        """Which server gets a phone's request, and why."""
        hinted = self.table.by_hint.get(hint)
        if hinted and hinted.usable:
            return hinted, "its call began there"
        # A retransmission goes where the request went, and so does the CANCEL of an INVITE.
        holder = self.table.by_name.get(self.inflight.server_of(branch, request.method) or "")
        if holder and holder.usable:
            return holder, "it has the transaction"
        new = not request.to.tag and request.method not in ("ACK", "CANCEL")
        return self.table.choose_for(request, new), f"{hinted.name} is down" if hinted else self.table.policy

    def _no_server(self, request: Request, row: Row, now: float) -> Outcome:
        return self._refuse(request, row, now, 503, "no-server", "no server lives")

    def _refuse(self, request: Request, row: Row, now: float, status: int, reason: str, note: str) -> Outcome:
        """Answers instead of forwarding. An ACK gets no answer, ever (RFC 3261 17.1.1.3)."""
        if request.method == "ACK":
            return self._drop(row, now, reason, note, request)
        fields = [("Retry-After", RETRY_AFTER)] if status == 503 else []
        data = reply(request, status, "", self._own_tag(self._branch(request)), fields).to_bytes()
        self.counters[f"answered.{status}"] += 1
        back = way_back(request.via)
        send = Send(row.leg, data) if row.leg != PHONES else Send(PHONES, data, back)
        sends = (send,) if row.leg != PHONES or literal(back) else ()
        return Outcome(sends, self._drop(row, now, reason, note, request).events)

    # -- responses --------------------------------------------------------------------------------------------------

    def _response(self, response: Response, row: Row, now: float) -> Outcome:
        """The way back is in the message, and signed: nobody can have a response sent where no request came from."""
        if not verify_branch(self._key, response, self._signed):
            return self._drop(row, now, "not-ours", "its topmost Via is not one the forwarder made")
        method = response.cseq.method
        branch = response.via.branch
        response.pop("Via")
        resumed: tuple[Event, ...] = ()
        if row.leg != PHONES:
            sender = self.table.by_name[row.leg]
            sender.responses += 1
            self.inflight.came_through((branch, method, response.status, response.to.tag))
            sender.answered = now
            if response.status >= 200:
                resumed = self._settle(self.inflight.answered((branch, method)), row.leg, now)
        outcome = self._return(response, row, now)
        return Outcome(outcome.sends, resumed + outcome.events) if resumed else outcome

    def _return(self, response: Response, row: Row, now: float) -> Outcome:
        """Sends a response, our Via gone from it, to where its request came from."""
        target = way_back(response.via)
        server, why = self.table.by_address.get(target), "the way it came"
        if not server:
            if not literal(target):
                return self._drop(row, now, "no-target", f"{target[0]} is not an address")
            return self._passed(response, row, now, Send(PHONES, response.to_bytes(), target), why)
        if not server.usable:
            why = f"{server.name} is down"
            server = self.table.choose_for(response, new=False)
        if not server:
            return self._drop(row, now, "no-server", "no server lives to take the response")
        beneath = response.vias[:2][-1].branch  # ours in the request that the server sent on, if it did not begin here
        key = (beneath, response.cseq.method, response.status, response.to.tag)
        self.inflight.echo(key, Row(server.name, row.data, row.leg, row.source, row.since, row.replayed))
        return self._passed(response, row, now, Send(server.name, response.to_bytes()), why)

    def _settle(self, answered: Row | None, server: str, now: float) -> tuple[Event, ...]:
        """The first answer after a failover tells how long it was felt."""
        last = self.failovers[-1] if self.failovers else None
        if not answered or not last or last.gap is not None or not last.taken_by:
            return ()
        # Where many share a dead server's work, only what was its own tells anything.
        if answered.replayed if self.table.policy == CALL_ID else last.taken_by == server:
            self.failovers[-1] = last._replace(gap=now - answered.since, first_answer=now)
            return (Resumed(now, self.failovers[-1]),)
        return ()

    # -- the forwarder's lines in a message -------------------------------------------------------------------------

    def _branch(self, request: Request) -> str:
        return make_branch(self._key, request, self._signed(request.via))

    def _signed(self, via: Via) -> Via:
        """What our branch says of the Via beneath it. Servers stand in for one another, so that one which repeats what
        a dead one had sent already makes a retransmission of it, which no phone takes for a second call."""
        if way_back(via) in self.table.by_address:
            return Via(via.transport, "server", params={"branch": via.branch})
        return via

    def _push_via(self, request: Request, own: Address, branch: str) -> None:
        request.push("Via", f"SIP/2.0/UDP {format_address(own)};branch={branch}")

    def _pop_routes(self, request: Request) -> str:
        """Takes the forwarder's own Route away, or two if its Record-Routes had two addresses; returns the hint."""
        hint = ""
        for uri in [route.uri for route in request.routes[:2]]:
            word = uri.params.get("hint") or ""
            if uri.address() not in self._own and word not in self.table.by_hint:
                break
            request.pop("Route")
            hint = hint or word
        return hint

    def _record_route(self, request: Request, own: Address, server: Server) -> None:
        """So that the dialog's later requests come this way, and say which server they belong to.

        Not where the topmost is this very one already. Where it is the forwarder's under its address towards another
        network, both are needed (RFC 5658).
        """
        if request.method not in DIALOG_CREATING or request.to.tag:
            return
        top = request.record_routes[:1]
        if top and top[0].uri.address() == own:
            return
        request.push("Record-Route", f"<sip:{format_address(own)};lr;hint={server.hint}>")

    def _replace_dead(self, request: Request, successor: Server) -> None:
        """Writes the successor's address over that of a server which is down, in the next Route and the Request-URI."""
        route = request.routes[:1]
        if route and self._is_dead(route[0].uri.address()):
            moved = names(route[0].uri, successor.address)
            request.replace_top("Route", str(NameAddr(moved, route[0].display, route[0].params)))
        if request.uri[:4].lower() in ("sip:", "sips"):
            uri = Uri.parse(request.uri)
            if self._is_dead(uri.address()):
                request.uri = str(names(uri, successor.address))

    def _is_dead(self, address: Address) -> bool:
        server = self.table.by_address.get(address)
        return server is not None and not server.usable

    def _next_hop(self, request: Request) -> Uri:
        routes = request.routes
        return routes[0].uri if routes else Uri.parse(request.uri)

    def _own_tag(self, branch: str) -> str:
        """The To tag of the forwarder's own answers: the same for a retransmission (RFC 3261 8.2.7)."""
        return keyed_hash(self._key, "tag", branch)

    # -- servers ----------------------------------------------------------------------------------------------------

    def signal(self, name: str, signal: Signal, now: float, why: str, leaving: bool | None = None) -> Outcome:
        """A heartbeat's result, or a refusal. `leaving`: the answer was 503, or not; None: there was none."""
        server = self.table.by_name.get(name)
        if not server:
            return NOTHING
        hot, was, left = self.table.hot, server.health, server.leaving
        server.turn(was.after(signal, now, why, self.fall, self.rise))
        if signal is ANSWER:
            server.seen, server.answered = True, now
        elif signal is MISS:
            server.misses += 1
        server.leaving = left if leaving is None else leaving
        if server.health.state is was.state and server.leaving == left:
            return NOTHING
        outcome = self._state(server, now)
        if was.alive and not server.health.alive:
            return self._move(server, now, server is hot, outcome)
        return outcome

    def farewell(self, name: str, leaving: bool, now: float) -> Outcome:
        """A server that registered itself wants no new calls from now on, or wants them again."""
        server = self.table.by_name.get(name)
        if not server or server.farewell == leaving:
            return NOTHING
        server.farewell = leaving
        return self._state(server, now)

    def wish(self, name: str, wish: Wish, now: float) -> Outcome:
        """What the operator wants of a server from now on. Raises KeyError for one that is not in the list.

        What it has been sent it may still answer, whatever the wish."""
        server = self.table.by_name[name]
        if server.wish is wish:
            return NOTHING
        server.wish = wish
        return self._state(server, now)

    def adopt(self, table: ServerTable, fall: int, rise: int, now: float) -> Outcome:
        """Serves from another table from now on. What those owe who are not in it goes to the others."""
        gone = [server for server in self.table.servers if table.by_name.get(server.name) is not server]
        hot, self.table, self.fall, self.rise = self.table.hot, table, fall, rise
        outcome = NOTHING
        for server in gone:
            server.health = replace(server.health, why="taken out of the list")
            outcome = self._move(server, now, server is hot, outcome)
        if table.hot and table.hot is not hot:
            outcome = Outcome(outcome.sends, (*outcome.events, *self._state(table.hot, now).events))
        return outcome

    def _move(self, lost: Server, now: float, was_hot: bool, outcome: Outcome) -> Outcome:
        """Sends what a server that is gone still owed to those who live, each datagram once."""
        owed = self.inflight.take(lost.name, now)
        rows = [row for row in owed if not row.replayed]
        heir = self.table.hot
        sends, events = list(outcome.sends), list(outcome.events)
        if rows or (was_hot and lost.seen):  # one that was never there has left nothing behind
            moved = len(rows) if heir else 0
            failover = Failover(now, lost.name, heir.name if heir else None, lost.health.why, moved,
                                in_flight=len(owed), last_answer=lost.answered)  # fmt: skip
            self.failovers.append(failover)
            self.counters["failovers"] += 1
            events.append(failover)
        for row in rows:
            self.counters["replayed"] += 1
            row.replayed = True
            again = self._handle(row, now)
            sends += again.sends
            events += again.events
        return Outcome(tuple(sends), tuple(events))

    def _state(self, server: Server, now: float) -> Outcome:
        hot = self.table.hot
        changed = StateChanged(now, server.name, server.health.state, server.why, hot.name if hot else None)
        return Outcome((), (changed,))

    # -- accounts ---------------------------------------------------------------------------------------------------

    def _passed(self, message: Request | Response, row: Row, now: float, send: Send, why: str) -> Outcome:
        status = message.status if isinstance(message, Response) else None
        method = message.method if isinstance(message, Request) else message.cseq.method
        self.counters["passed.requests" if status is None else "passed.responses"] += 1
        target = send.target or self.table.by_name[send.to].address
        if row.replayed:
            why = f"replayed, {why}"
        call_id = message.call_id
        session = self.table.session(message)
        passed = Passed(now, row.leg, send.to, row.source, target, method, status, call_id, row.replayed, why,
                        session if session != call_id else "")  # fmt: skip
        return Outcome((send,), (passed,))

    def _drop(self, row: Row, now: float, reason: str, note: str, request: Request | None = None) -> Outcome:
        self.counters[f"dropped.{reason}"] += 1
        call = f"{request.method} call={request.get('Call-ID') or '?'}" if request else ""
        return Outcome((), (Dropped(now, reason, row.leg, row.source, note, call),))
