"""Call control: the SBB that is the cluster's proxy, stateless per transaction, stateful per call.

Rules
- Where an INVITE goes is saved before it is forwarded. So any server that sees its retransmission,
  CANCEL, ACK or response does what the first would have done, and no phone rings twice.
- All requests go through the forwarder, outside of dialogs to a registered contact, within them to
  a contact that the call recorded, by Record-Routes that it recorded. Never to a stranger.
- Branches are made from the request and the cluster's key (RFC 3261 16.11), so any server can
  verify the Via of another and pop it.
- A BYE ends the bill even if it must be refused: its phone has hung up (`handle`).
- What cannot be read in a response is no reason not to pass it on (16.7).

Theory of operation
- A request finds its call (call_record.py), then its leg or dialog (call_dialogs.py). What it means
  for the call: call_progress.py. Several bindings: serial_forking.py. Loops: loop_detection.py.
- The call's timer is Timer C until it is answered, afterwards its session timer
  (session_timer.py). An expired call may turn out to go on: `Progress.continued`.

Traps
- A spiral (a phone sends the INVITE on to another user of ours) is a further leg of the same call;
  a B2BUA that keeps the Call-ID has a call of its own, under Call-ID and tag. So has another phone
  that makes the same Call-ID; one that makes Call-ID and tag anew once the call is over replaces
  its record (Call.is_forgotten).
- Messages are shared between SBBs: copy before editing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sip.branch import make_branch
from sip.digest import Credentials
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Request, Response
from sip.timing import PATIENCE
from sip.uri import Uri
from sip.via import Via
from slee_mock.container.events import (
    NOTHING,
    CallCancelled,
    CallEvent,
    CallOffered,
    Event,
    Outcome,
    Party,
    RequestEvent,
    ResponseEvent,
    Send,
    TimerEvent,
    drop,
    legible,
)
from slee_mock.container.sbb import Entity, InitialEvent, the_call, timer_of
from slee_mock.services.bindings_record import Binding, Bindings, address_of_record
from slee_mock.services.call_dialogs import (
    MOST_LEGS,
    added_contact,
    contact_of,
    find_dialog,
    followed_leg,
    known_routes,
    recorded,
    target_of,
    with_leg,
)
from slee_mock.services.call_progress import Progress, events_of_request, expired, may_try_again
from slee_mock.services.call_record import (
    TIMER_C_SECONDS,
    Call,
    Dialog,
    Leg,
    Search,
    find_call,
    key_of,
)
from slee_mock.services.loop_detection import ASKED, asked, asked_user, is_loop, own_vias
from slee_mock.services.serial_forking import Searches, attempt_of, is_old, numbered
from slee_mock.services.session_timer import REFRESHING, SessionTimers, knows_timers
from slee_mock.sip_adaptor import LocalResponses, is_heartbeat
from slee_mock.store.interface import Transaction
from slee_mock.store.purge import RetentionRule
from slee_mock.store.records import Record, replace

MOST_HOPS = 255  # RFC 3261 20.22: as many as Max-Forwards can count
MOST_SEARCHES = 100  # the newest, which are kept in any case
# RFC 3261 21.4.6: what may begin something here, or belong to it. SUBSCRIBE and REFER pass within
# calls alone.
ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, UPDATE, INFO, PRACK, NOTIFY"


def _is_a_calls(event: RequestEvent) -> bool:
    return event.request.method != "REGISTER" and not is_heartbeat(event.request)


class CallControl:
    """The proxy. `via`: this server's address, for its Via. `users`: the names of all users, which
    tell 404 from 480; None: they are not known. `realm`: of the credentials to remove; "": none."""

    name = "call-control"
    records = (Call, Search)
    events = (
        InitialEvent(ResponseEvent, name=the_call),
        InitialEvent(RequestEvent, name=the_call, when=_is_a_calls),
        timer_of(Call),
        timer_of(Search),
    )
    keeps = (RetentionRule(Search, MOST_SEARCHES, is_old),)

    def __init__(
        self,
        answers: LocalResponses,
        key: bytes,
        via: str,
        users: frozenset[str] | None,
        realm: str,
        timers: SessionTimers,
    ) -> None:
        self._answers, self._key, self._via = answers, key, via
        self._users, self._realm = users, realm
        self._timers, self._progress = timers, Progress(timers)
        self._searches = Searches(self._forward, via)

    def handle(self, event: Event, entity: Entity) -> Outcome:
        transaction = entity.transaction
        if isinstance(event, ResponseEvent):
            return self._response(event, transaction)
        if isinstance(event, TimerEvent):
            return self._timer(event, entity)
        assert isinstance(event, RequestEvent)
        request = event.request
        if request.method == "ACK" and self._answers.answered_by_us(request):
            return drop("ack_absorbed")  # RFC 3261 17.1.1.3: it ends with its transaction
        refusal = self._refused(event)
        if refusal is None:
            return self._request(event, transaction)
        if request.method == "BYE" and not own_vias(self._key, request, request.vias):
            # Its phone has hung up, whatever it hears: so the bill ends, and the other phone is
            # told.
            outcome = self._request(replace(event, request=_deliverable(request)), transaction)
            if outcome.fires:
                return outcome._replace(
                    sends=(*outcome.sends, *refusal.sends), log_text=refusal.log_text
                )
        return refusal

    def _timer(self, event: TimerEvent, entity: Entity) -> Outcome:
        if event.kind == Search.KIND:
            search = entity.get(Search)
            if search is None or not search.is_due(event.time):
                return NOTHING
            return self._searches.timer(search, entity.transaction, event.time)
        call = entity.get(Call)
        return expired(call) if call and call.is_due(event.time) else NOTHING

    def _refused(self, event: RequestEvent) -> Outcome | None:
        """Returns the refusal of a request that no proxy passes on (RFC 3261 16.3), or None."""
        request = event.request
        vias = request.vias
        if request.max_forwards == 0 or len(vias) > MOST_HOPS:
            return self._answers.refuse(event, 483)
        required = request.values("Proxy-Require")
        if required and request.method != "CANCEL":  # 20.29: its INVITE was refused already
            return self._answers.refuse(event, 420, fields=[("Unsupported", ", ".join(required))])
        if is_loop(self._key, request, vias):
            return self._answers.refuse(event, 482)
        if request.method in REFRESHING and self._timers.is_too_short(request):
            return self._answers.refuse(event, 422, fields=[("Min-SE", str(self._timers.least))])
        return None

    # -- requests ----------------------------------------------------------------------------------

    def _request(self, event: RequestEvent, transaction: Transaction) -> Outcome:
        request = event.request
        call = find_call(transaction, request)
        spoken = find_dialog(call, request)
        # an ACK's 2xx, however it is sent
        is_of_answer = spoken is not None and spoken[0].confirmed
        if call and (request.method == "CANCEL" or (request.method == "ACK" and not is_of_answer)):
            leg = followed_leg(call, request, make_branch(self._key, request))
            if leg:
                return self._follow_invite(event, call, leg, transaction)
        if request.to_tag or (spoken and request.method != "CANCEL"):  # RFC 2543 had no tags
            if call is None or spoken is None:
                return self._answers.refuse(event, 481)
            return self._in_dialog(event, call, *spoken)
        if request.method == "INVITE":
            return self._invite(event, call, transaction)
        if request.method in ("OPTIONS", "MESSAGE"):
            bindings = self._bindings(event, transaction)
            if isinstance(bindings, Outcome):
                return bindings
            contact = bindings[0].contact
            return _passed_on(contact, self._forward(request, contact))
        if request.method in ("ACK", "CANCEL", "BYE", "UPDATE", "INFO", "PRACK", "NOTIFY"):
            return self._answers.refuse(event, 481)
        return self._answers.refuse(event, 405, fields=[("Allow", ALLOW)])

    def _invite(self, event: RequestEvent, known: Call | None, transaction: Transaction) -> Outcome:
        request = event.request
        identity = (request.from_.tag, request.cseq.number)
        key = known.call_id if known else request.call_id
        is_reuse = known is not None and known.is_forgotten(event.time)
        if known and known.caller_tag != identity[0]:
            # a B2BUA that kept the Call-ID, or a phone that made it a second time
            if self._is_to_another(request, known) or not may_try_again(known, identity):
                key, known = key_of(request.call_id, identity[0]), None
        elif is_reuse:
            known = None
        if known and known.began_with(*identity):
            return self._invite_again(event, known, transaction)
        if known and not may_try_again(known, identity):
            return self._answers.refuse(event, 482)
        bindings = self._bindings(event, transaction)
        if isinstance(bindings, Outcome):
            return bindings
        leg = self._leg(request, bindings)
        caller = Party(_name(request.from_), legible(request.from_.uri.aor()))
        callee_aor = address_of_record(Uri.parse(request.uri))
        callee = Party(_callee_name(request, transaction, callee_aor), callee_aor)
        call = Call(
            call_id=key,
            caller_tag=identity[0],
            cseq=identity[1],
            offered=event.time,
            legs=(leg,),
            caller=caller.name,
            callee=callee.name,
            seen=event.time,
            caller_contacts=(_contact(request),),
            expires=event.time + TIMER_C_SECONDS,
            interval=self._timers.request_interval(request),
            caller_timed=knows_timers(request),
        )
        offered = CallOffered(key, event.time, caller, callee, is_reuse)
        return self._sent_on(event, call, leg, (offered,))

    def _leg(self, request: Request, bindings: list[Binding]) -> Leg:
        way, branch = make_branch(self._key, request), request.vias[-1].branch
        target, routes = bindings[0].contact, recorded(request)
        return Leg(request.uri, target, branch, way, routes, searched=len(bindings) > 1)

    def _sent_on(
        self, event: RequestEvent, call: Call, leg: Leg, fires: tuple[CallEvent, ...]
    ) -> Outcome:
        """Forwards the INVITE to the leg's target; begins a search if there are more bindings."""
        writes: tuple[Record, ...] = (call,)
        if leg.searched:
            writes = (call, self._searches.begun(event, call.call_id, leg))
        return _passed_on(leg.target, self._forward(event.request, leg.target), writes, fires)

    def _is_to_another(self, request: Request, call: Call) -> bool:
        return all(asked_user(leg.request_uri) != asked_user(request.uri) for leg in call.legs)

    def _invite_again(self, event: RequestEvent, call: Call, transaction: Transaction) -> Outcome:
        request = event.request
        way, written = make_branch(self._key, request), (request.uri, request.vias[-1].branch)
        known = (
            leg for leg in call.legs if leg.way == way or (leg.request_uri, leg.branch) == written
        )
        leg = next(known, None)
        if leg is None:
            return self._spiral(event, call, transaction)
        if call.over or event.time + event.kept - call.offered > PATIENCE:
            return drop("invite_too_late")  # its phone has forgotten it and would ring again
        fires = (CallEvent(call.call_id, event.time),)
        send = self._forward(request, leg.target, attempt=leg.attempt)
        return _passed_on(leg.target, send, fires=fires)._replace(log_text="again")

    def _spiral(self, event: RequestEvent, call: Call, transaction: Transaction) -> Outcome:
        """Adds a leg: a phone or PBX has sent the call's INVITE on to another user of ours. It is
        the same call, and has one bill."""
        request = event.request
        is_ours = bool(own_vias(self._key, request, request.vias))
        if not is_ours or not self._is_to_another(request, call) or len(call.legs) >= MOST_LEGS:
            return self._answers.refuse(event, 482)  # RFC 3261 8.2.2.2: it came here on two ways
        if call.over or call.given_up:
            return self._answers.refuse(event, 487)
        bindings = self._bindings(event, transaction)
        if isinstance(bindings, Outcome):
            return bindings
        leg = self._leg(request, bindings)
        contacts = added_contact(call.caller_contacts, contact_of(request))
        updated = with_leg(replace(call, caller_contacts=contacts), leg)
        return self._sent_on(event, updated, leg, (CallEvent(call.call_id, event.time),))

    def _follow_invite(
        self, event: RequestEvent, call: Call, leg: Leg, transaction: Transaction
    ) -> Outcome:
        """Forwards CANCEL, or the ACK to a failure, as its INVITE, with its branch (16.11)."""
        send = self._forward(event.request, leg.target, attempt=leg.attempt)
        if event.request.method == "ACK":
            return _passed_on(leg.target, send)
        writes = self._searches.stopped(transaction.read(Search, leg.way)) if leg.searched else ()
        if not call.is_own(leg):
            return _passed_on(leg.target, send, writes)
        if not (call.given_up or call.over):
            writes = (*writes, replace(call, given_up=True))
        why = f"{call.caller} gave up before an answer"
        return _passed_on(leg.target, send, writes, (CallCancelled(call.call_id, event.time, why),))

    def _in_dialog(
        self, event: RequestEvent, call: Call, dialog: Dialog, by_caller: bool
    ) -> Outcome:
        """Forwards a request of this dialog, which says where it may go, and tracks the call."""
        request = event.request
        if dialog.aside and by_caller and request.method != "BYE":
            # Its answer went to a phone that sent the INVITE on, and has not passed it on to the
            # caller.
            is_ack = request.method == "ACK"
            return drop("ack_too_early") if is_ack else self._answers.refuse(event, 481)
        target = target_of(call, dialog, request, by_caller)
        if target is None:
            return self._answers.refuse(event, 404)
        known = self._progress.continued(call, event)
        updated = self._progress.requested(known, dialog, by_caller, request, event.time)
        fires = events_of_request(call, known, updated, event, (dialog, by_caller))
        writes: tuple[Record, ...] = () if updated is call or updated == call else (updated,)
        routes = known_routes(call, dialog, request, by_caller)
        return _passed_on(target, self._forward(request, target, routes), writes, fires)

    def _bindings(self, event: RequestEvent, transaction: Transaction) -> list[Binding] | Outcome:
        """Finds the bindings that may ring, the best first, or returns the refusal."""
        uri = Uri.parse(event.request.uri)
        if uri.scheme != "sip":
            return self._answers.refuse(event, 416)
        bindings = transaction.read(Bindings, address_of_record(uri))
        live = bindings.live(event.time) if bindings else []
        if live:
            return live
        is_known = bindings is not None if self._users is None else uri.username in self._users
        return self._answers.refuse(event, 480 if is_known else 404)

    def _forward(
        self, request: Request, target: str, routes: Sequence[str] = (), attempt: int = 0
    ) -> Send:
        """Makes the datagram that forwards the request (RFC 3261 16.6, with the branch of 16.11).
        `routes`: the request's Routes to keep; by any other it could reach a stranger."""
        onward = request.copy()
        onward.uri = target
        has_routes = onward.get("Route") is not None
        if has_routes and (not routes or len(routes) != len(onward.values("Route"))):
            onward.remove("Route")
            for route in routes:
                onward.add("Route", route)
        hops = request.max_forwards
        onward.set("Max-Forwards", str(70 if hops is None else hops - 1))
        if self._realm:
            _strip_credentials(onward, self._realm)
        if request.method in REFRESHING:
            self._timers.write_request(onward)
        branch = numbered(make_branch(self._key, request), attempt)
        onward.push("Via", f"SIP/2.0/UDP {self._via};branch={branch};{ASKED}={asked(request)}")
        return Send(onward.to_bytes())

    # -- responses ---------------------------------------------------------------------------------

    def _response(self, event: ResponseEvent, transaction: Transaction) -> Outcome:
        """Forwards a response by its next Via. The signed branch proves that a server of this
        cluster forwarded the request, whichever it was."""
        vias = event.response.values("Via")[:2]
        if len(vias) < 2:
            return drop("response_not_ours")
        way, attempt = attempt_of(Via.parse(vias[0]).branch)
        if way != make_branch(self._key, event.response, Via.parse(vias[1])):
            return drop("response_not_ours")
        onward = event.response.copy()
        onward.pop("Via")
        try:
            return self._tracked(event, onward, way, attempt, transaction)
        except RemoteProtocolError:
            return Outcome(sends=(Send(onward.to_bytes()),), consumed=True, log_text="unread")

    def _tracked(
        self,
        event: ResponseEvent,
        onward: Response,
        way: str,
        attempt: int,
        transaction: Transaction,
    ) -> Outcome:
        """Tracks the response in its call, if it has one, and forwards it. `onward`: the response
        without our Via; a session timer may be written into it."""
        call = find_call(transaction, onward) if onward.cseq.method in REFRESHING else None
        if call is None:
            return Outcome(sends=(Send(onward.to_bytes()),), consumed=True)
        leg = call.leg(way)
        writes: tuple[Record, ...] = ()
        sends: tuple[Send, ...] = ()
        is_initial = onward.cseq.method == "INVITE" and call.began_with(
            onward.from_tag, onward.cseq.number
        )
        known = call
        search = (
            transaction.read(Search, way)
            if is_initial and leg.searched and leg.way == way
            else None
        )
        if search:
            passes, changed, writes, sends = self._searches.response(
                call, search, attempt, onward, transaction, event.time
            )
            if not passes:
                return Outcome(
                    writes=writes, sends=sends, consumed=True, log_text="answered for its caller"
                )
            known = changed or call
        fires: tuple[CallEvent, ...] = ()
        updated = known
        if onward.status > 100:
            updated, fires = self._progress.followed(known, known.leg(way), onward, event.time)
        if updated is not call and updated != call:
            writes = (*writes, updated)
        return Outcome(
            writes=writes, sends=(Send(onward.to_bytes()), *sends), fires=fires, consumed=True
        )


def _passed_on(
    target: str,
    send: Send,
    writes: tuple[Record, ...] = (),
    fires: tuple[CallEvent, ...] = (),
) -> Outcome:
    return Outcome(writes, (send,), fires, consumed=True, log_text=f"-> {target}")


def _deliverable(request: Request) -> Request:
    """Copies the request without the fields that a proxy refuses it for."""
    copy = request.copy()
    copy.set("Max-Forwards", "2")
    copy.remove("Proxy-Require")
    return copy


def _contact(request: Request) -> str:
    """Reads the URI of its first Contact. One that cannot be read, or names no host, does not
    cost the call: then it is the address that the request came from."""
    if request.get("Contact") is None:
        raise RemoteProtocolError("Contact is missing")  # RFC 3261 8.1.1.8
    host, port = request.vias[-1].reply_address()
    return contact_of(request) or str(Uri("sip", request.from_.uri.user, host, port))


def _name(who: NameAddr) -> str:
    return legible(who.display or who.uri.user or who.uri.host)


def _callee_name(request: Request, transaction: Transaction, aor: str) -> str:
    bindings = transaction.read(Bindings, aor)
    return legible(
        request.to.display or (bindings.display if bindings else "") or Uri.parse(request.uri).user
    )


def _strip_credentials(request: Request, realm: str) -> None:
    """Removes the credentials that were meant for this server (RFC 3261 22.3)."""
    values = request.all("Proxy-Authorization")
    request.remove("Proxy-Authorization")
    for value in values:
        if not _are_for(realm, value):
            request.add("Proxy-Authorization", value)


def _are_for(realm: str, credentials: str) -> bool:
    try:
        return Credentials.parse(credentials).realm == realm
    except RemoteProtocolError:
        return False
