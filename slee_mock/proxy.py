"""The proxy service: call control. Transaction-stateless, call-stateful.

Pure. Where an INVITE goes is chosen once and saved before it is forwarded, so whoever sees a retransmission, a CANCEL,
an ACK or an answer of it does the same as the first server would have: no phone rings twice. Everything is sent through
the forwarder; requests go only to contacts that a call or a registration recorded (never relay to strangers).
"""

from __future__ import annotations

from itertools import pairwise

from sip.branch import is_branch_of, make_branch, verify_branch
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Message, Request, Response
from sip.uri import Uri
from slee_mock.billing import UNANSWERED
from slee_mock.event import (
    NOTHING,
    Answers,
    CallAcknowledged,
    CallAnswered,
    CallContinued,
    CallEnded,
    CallEvent,
    CallGivenUp,
    CallOffered,
    CallRang,
    CallUnanswered,
    CallVanished,
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
from slee_mock.gate import strip_credentials
from slee_mock.heartbeat import is_heartbeat
from slee_mock.record import Binding, Bindings, Call, Record, replace
from slee_mock.registrar import address_of_record
from slee_mock.service import On, the_call, timer_of
from slee_mock.session import REFRESHING, SessionTimers, knows_timers
from slee_mock.store import View

NOTICEABLE = 1.0  # seconds; a later message of a call is worth a save
TIMER_B = 32.0  # seconds; RFC 3261 17.1.1.2: no INVITE is retransmitted for longer
MOST_HOPS = 255  # RFC 3261 20.22: as many as Max-Forwards can count
# A caller's request with one of these proves that it has the 2xx: an early dialog may have others.
PROOFS = ("ACK", "BYE", "INVITE")
MOST_CONTACTS = 4  # remembered per side: phones change theirs by re-INVITE
# RFC 3261 21.4.6: what may begin something here, or belong to it. SUBSCRIBE and REFER pass within calls alone.
ALLOW = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, UPDATE, INFO, PRACK, NOTIFY"


def _is_a_calls(event: RequestEvent) -> bool:
    return event.request.method != "REGISTER" and not is_heartbeat(event.request)


class Proxy:
    """`via` is the address other servers and the forwarder know this one by; `users`, if given, tells 404 from 480."""

    name = "proxy"
    takes = (
        On(ResponseEvent, name=the_call),
        On(RequestEvent, name=the_call, when=_is_a_calls),
        timer_of(Call),
    )

    def __init__(
        self, answers: Answers, key: bytes, via: str, users: frozenset[str] | None, realm: str, timers: SessionTimers
    ) -> None:
        self._answers, self._key, self._via, self._users, self._realm = answers, key, via, users, realm
        self._timers = timers

    def handle(self, event: Event, entity: str, view: View) -> Outcome:
        if isinstance(event, ResponseEvent):
            return self._response(event, view)
        if isinstance(event, TimerEvent):
            call = view.get(Call, entity)
            return _expired(call) if call and call.is_due(event.wall) else NOTHING
        assert isinstance(event, RequestEvent)
        request = event.request
        if request.method == "ACK" and self._answers.given_to(request):
            return drop("ack_absorbed")  # RFC 3261 17.1.1.3: it ends with the transaction that it acknowledges
        vias = request.vias
        if request.max_forwards == 0 or len(vias) > MOST_HOPS:
            return self._answers.refuse(event, 483)
        unsupported = request.values("Proxy-Require")
        if unsupported:
            return self._answers.refuse(event, 420, fields=[("Unsupported", ", ".join(unsupported))])
        # RFC 3261 16.3 step 4: is one of the Vias a member's of this cluster?
        if any(is_branch_of(self._key, via, beneath, request) for via, beneath in pairwise(vias)):
            return self._answers.refuse(event, 482)
        if request.method in REFRESHING and self._timers.is_too_short(request):
            return self._answers.refuse(event, 422, fields=[("Min-SE", str(self._timers.least))])
        return self._request(event, view)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _request(self, event: RequestEvent, view: View) -> Outcome:
        request = event.request
        call = view.get(Call, request.call_id)
        if request.method in ("ACK", "CANCEL") and call and _is_of_invite(request, call):
            return self._follow_invite(event, call)
        if request.to.tag:
            return self._in_dialog(event, call)
        if request.method == "INVITE":
            return self._invite(event, call, view)
        if request.method in ("OPTIONS", "MESSAGE"):
            binding = self._binding(event, view)
            if isinstance(binding, Outcome):
                return binding
            return Outcome(sends=(self._forward(request, binding.contact),), done=True, note=f"-> {binding.contact}")
        if request.method in ("ACK", "CANCEL", "BYE", "UPDATE", "INFO", "PRACK", "NOTIFY"):
            return self._answers.refuse(event, 481)
        return self._answers.refuse(event, 405, fields=[("Allow", ALLOW)])

    def _invite(self, event: RequestEvent, known: Call | None, view: View) -> Outcome:
        request = event.request
        identity = (request.from_.tag, request.cseq.number)
        if known and known.began_with(*identity):
            return self._invite_again(event, known)
        if known and not _may_try_again(known, identity):
            return self._answers.refuse(event, 482)
        binding = self._binding(event, view)
        if isinstance(binding, Outcome):
            return binding
        caller = Party(_name(request.from_), legible(request.from_.uri.aor()))
        callee_aor = address_of_record(Uri.parse(request.uri))
        callee = Party(_callee_name(request, view, callee_aor), callee_aor)
        call = Call(
            call_id=request.call_id, caller_tag=identity[0], cseq=identity[1], branch=request.vias[-1].branch,
            request_uri=request.uri, target=binding.contact, offered=event.wall, caller=caller.name,
            callee=callee.name, caller_contacts=(_contact(request),), callee_contacts=(binding.contact,),
            seen=event.wall, expires=event.wall + UNANSWERED, interval=self._timers.asked(request),
            caller_timed=knows_timers(request),
        )  # fmt: skip
        return Outcome(
            saves=(call,),
            sends=(self._forward(request, call.target),),
            raised=(CallOffered(call.call_id, event.wall, caller, callee),),
            done=True,
            note=f"-> {call.target}",
        )

    def _invite_again(self, event: RequestEvent, call: Call) -> Outcome:
        if event.request.vias[-1].branch != call.branch:
            return self._answers.refuse(event, 482)  # RFC 3261 8.2.2.2: it came here on two ways
        if call.over or event.wall + event.kept - call.offered > TIMER_B:
            return drop("invite_too_late")  # its phone has forgotten it and would ring again
        raised = (CallEvent(call.call_id, event.wall),)
        return Outcome(sends=(self._forward(event.request, call.target),), raised=raised, done=True, note="again")

    def _follow_invite(self, event: RequestEvent, call: Call) -> Outcome:
        """CANCEL, and the ACK to a failure: the way of their INVITE, with its branch (RFC 3261 16.11)."""
        sends = (self._forward(event.request, call.target),)
        if event.request.method == "ACK":
            return Outcome(sends=sends, done=True, note=f"-> {call.target}")
        why = f"{call.caller} gave up before an answer"
        raised = (CallGivenUp(call.call_id, event.wall, why),)
        return Outcome(sends=sends, raised=raised, done=True, note=f"-> {call.target}")

    def _in_dialog(self, event: RequestEvent, call: Call | None) -> Outcome:
        request = event.request
        by_caller = _by_caller(call, request.from_.tag, request.to.tag) if call else None
        if call is None or by_caller is None:
            return self._answers.refuse(event, 481)
        if not _is_one_of(request.uri, call.callee_contacts if by_caller else call.caller_contacts):
            return self._answers.refuse(event, 404)
        known = self._continued(call, event)
        if request.method == "BYE":
            updated = replace(known, over=True, expires=None)
        else:
            updated = self._refreshed(self._seen(known, event.wall), request, by_caller)
        raised = _told(call, known, event, by_caller)
        saves: tuple[Record, ...] = () if updated == call else (updated,)
        sends = (self._forward(request, request.uri, in_dialog=True),)
        return Outcome(saves=saves, sends=sends, raised=raised, done=True, note=f"-> {request.uri}")

    def _continued(self, call: Call, event: RequestEvent) -> Call:
        """The call, going on again if its end was presumed and this message proves that wrong. Of
        phones that refresh their session, only a message can that the forwarder had before the
        session expired."""
        if call.lapsed is None or not (call.untimed or event.wall < call.lapsed):
            return call
        expires = self._silent_from(event.wall)
        if not call.untimed:
            now = event.wall + event.kept
            expires = max(call.lapsed, now + TIMER_B)  # time for the answer to a refresh
        seen = max(call.seen, event.wall)
        return replace(call, over=False, lapsed=None, seen=seen, expires=expires)

    def _seen(self, call: Call, wall: float) -> Call:
        """The call after a message, which puts its end off where no phone refreshes the session."""
        bound = self._silent_from(wall)
        is_unbound = call.confirmed and not call.over and call.expires is None
        if is_unbound and bound:  # it began before there was a bound
            call = replace(call, untimed=True, expires=bound)
        if call.expires is None or wall - call.seen < NOTICEABLE:
            return call
        return replace(call, seen=wall, expires=bound if call.untimed else call.expires)

    def _silent_from(self, wall: float) -> float | None:
        """When a call that nobody refreshes is presumed over: no message passes after `wall`."""
        return wall + self._timers.bound if self._timers.bound else None

    def _refreshed(self, call: Call, request: Request, by_caller: bool) -> Call:
        if request.method not in REFRESHING:
            return call
        is_timed = knows_timers(request)
        timed = {"caller_timed" if by_caller else "callee_timed": is_timed}
        call = replace(call, interval=self._timers.asked(request), **timed)
        if request.contacts:  # RFC 3261 12.2: target refresh
            call = _with_contact(call, by_caller, _contact(request))
        return call

    def _binding(self, event: RequestEvent, view: View) -> Binding | Outcome:
        """The one binding that rings, or the refusal."""
        uri = Uri.parse(event.request.uri)
        if uri.scheme != "sip":
            return self._answers.refuse(event, 416)
        bindings = view.get(Bindings, address_of_record(uri))
        live = bindings.live(event.wall) if bindings else []
        if live:
            return live[0]
        is_known = bindings is not None if self._users is None else uri.username in self._users
        return self._answers.refuse(event, 480 if is_known else 404)

    def _forward(self, request: Request, target: str, in_dialog: bool = False) -> Send:
        """RFC 3261 16.6, with the branch of 16.11. Outside of dialogs no Route goes along: what is left of those that
        somebody wrote would have the forwarder send there, to whomever it is."""
        onward = request.copy()
        onward.uri = target
        if not in_dialog:
            onward.remove("Route")
        hops = request.max_forwards
        onward.set("Max-Forwards", str(70 if hops is None else hops - 1))
        if self._realm:
            strip_credentials(onward, self._realm)
        if request.method in REFRESHING:
            self._timers.ask(onward)
        onward.push("Via", f"SIP/2.0/UDP {self._via};branch={make_branch(self._key, request)}")
        return Send(onward.to_bytes())

    # -- responses --------------------------------------------------------------------------------------------------

    def _response(self, event: ResponseEvent, view: View) -> Outcome:
        """Any member pops any member's Via: the signed branch says that one of us forwarded the request."""
        if not verify_branch(self._key, event.response):
            return drop("response_not_ours")
        onward = event.response.copy()
        onward.pop("Via")
        call = view.get(Call, onward.call_id) if onward.cseq.method in REFRESHING else None
        if call is None or onward.status == 100:
            return Outcome(sends=(Send(onward.to_bytes()),), done=True)
        updated, raised = self._followed(call, onward, event.wall)
        saves: tuple[Record, ...] = () if updated == call else (updated,)
        return Outcome(saves=saves, sends=(Send(onward.to_bytes()),), raised=raised, done=True)

    def _followed(self, call: Call, onward: Response, wall: float) -> tuple[Call, tuple[CallEvent, ...]]:
        """The call after a response to an INVITE or UPDATE; the session timer that it starts may be written into it."""
        is_first = onward.cseq.method == "INVITE" and call.began_with(onward.from_tag, onward.cseq.number)
        updated, raised = _progressed(call, onward, wall) if is_first else _retargeted(call, onward)
        if not 200 <= onward.status < 300:
            return updated, raised
        by_caller = onward.from_tag == call.caller_tag
        interval = self._timers.grant(onward, call.interval, call.caller_timed if by_caller else call.callee_timed)
        is_again = is_first and call.confirmed
        if updated.confirmed and not updated.over and not is_again:
            expires = self._silent_from(wall) if interval is None else wall + interval
            updated = replace(updated, seen=wall, expires=expires, untimed=interval is None)
        return updated, raised


def _told(call: Call, known: Call, event: RequestEvent, by_caller: bool) -> tuple[CallEvent, ...]:
    """What a request within the dialog tells of the call: `call` before it, `known` after."""
    method, wall = event.request.method, event.wall
    if known.lapsed is not None:  # too late to prove anything: the bill stays as it is
        return (CallEvent(call.call_id, wall),)
    raised: list[CallEvent] = []
    if by_caller and call.confirmed and method in PROOFS:
        raised.append(CallAcknowledged(call.call_id, wall, method == "BYE"))
    if known is not call:
        raised.append(CallContinued(call.call_id, wall))
    if method == "BYE":
        who = call.caller if by_caller else call.callee
        raised.append(CallEnded(call.call_id, wall, f"{who} hung up"))
    return tuple(raised) or (CallEvent(call.call_id, wall),)


def _progressed(call: Call, response: Response, wall: float) -> tuple[Call, tuple[CallEvent, ...]]:
    """What a response to the first INVITE means for the call."""
    if response.status >= 300:
        ended = CallEnded(call.call_id, wall, _why(call, response))
        return (call, ()) if call.confirmed else (replace(call, over=True, expires=None), (ended,))
    if call.confirmed:
        return call, ()  # a retransmitted 2xx; or another phone's, and one dialog a call is all we carry
    is_answer = response.status >= 200 and not call.over
    updated = replace(call, callee_tag=response.to.tag or call.callee_tag, confirmed=is_answer)
    if response.contacts:
        updated = _with_contact(updated, False, _contact(response))
    if call.over:  # its caller was told so: what the phones now say to part finds its way, and costs nothing
        return updated, ()
    event = CallAnswered(call.call_id, wall) if is_answer else CallRang(call.call_id, wall)
    return updated, (event,)


def _expired(call: Call) -> Outcome:
    """Its timer has run out: RFC 3261 16.6's Timer C, or the session's."""
    event: CallEvent
    if call.confirmed:
        why = f"the phones of {call.caller} and {call.callee} fell silent; counted to their last message"
        call = replace(call, over=True, lapsed=call.expires)
        event = CallVanished(call.call_id, call.seen, why)
    else:
        event = CallUnanswered(call.call_id, call.offered + UNANSWERED, f"{call.callee} did not answer")
    return Outcome(saves=(replace(call, expires=None),), raised=(event,), done=True, note="timer")


def _retargeted(call: Call, response: Response) -> tuple[Call, tuple[CallEvent, ...]]:
    """A 2xx to a re-INVITE or UPDATE may bring a new contact of the one who was asked."""
    by_caller = _by_caller(call, response.from_.tag, response.to.tag)
    if by_caller is None or not 200 <= response.status < 300 or not response.contacts:
        return call, ()
    return _with_contact(call, not by_caller, _contact(response)), ()


_WHY = {
    403: "{callee}'s phone forbids the call",
    404: "{callee}'s phone does not know {callee}",
    408: "{callee}'s phone did not answer",
    480: "{callee} cannot be reached",
    486: "{callee} is busy",
    487: "{caller} gave up before an answer",
    488: "the phones have no common codec",
    503: "{callee}'s phone cannot take calls now",
    600: "{callee} is busy",
    603: "{callee} declined",
    606: "the phones have no common codec",
}  # fmt: skip


def _why(call: Call, response: Response) -> str:
    text = _WHY.get(response.status, "{callee}'s phone refused the call ({status})")
    return text.format(caller=call.caller, callee=call.callee, status=response.status)


def _may_try_again(known: Call, identity: tuple[str, int]) -> bool:
    """RFC 3261 8.1.3.5: after a failure a phone may come back with the same Call-ID and a higher CSeq."""
    is_stale = known.caller_tag == identity[0] and identity[1] < known.cseq
    return known.over and not known.confirmed and not is_stale


def _is_of_invite(request: Request, call: Call) -> bool:
    """Is this CANCEL, or ACK to a failure, about the call's first INVITE? The ACK to a 2xx has a contact as its
    Request-URI (RFC 3261 12.2.1.1), these two repeat the INVITE's (9.1, 17.1.1.3)."""
    is_same = call.began_with(request.from_.tag, request.cseq.number)
    return is_same and request.uri == call.request_uri and request.vias[-1].branch == call.branch


def _by_caller(call: Call, from_tag: str, to_tag: str) -> bool | None:
    """Who speaks in the call's dialog; None if these are not its tags."""
    return {(call.caller_tag, call.callee_tag): True, (call.callee_tag, call.caller_tag): False}.get((from_tag, to_tag))


def _with_contact(call: Call, of_caller: bool, contact: str) -> Call:
    known = call.caller_contacts if of_caller else call.callee_contacts
    contacts = (contact, *(each for each in known if each != contact))[:MOST_CONTACTS]
    return replace(call, caller_contacts=contacts) if of_caller else replace(call, callee_contacts=contacts)


def _is_one_of(uri: str, contacts: tuple[str, ...]) -> bool:
    if uri in contacts:  # as phones write it
        return True
    parsed = Uri.parse(uri)
    return any(parsed.same_as(Uri.parse(contact)) for contact in contacts)


def _contact(message: Message) -> str:
    contacts = message.contacts
    if not contacts:
        raise RemoteProtocolError("Contact is missing")  # RFC 3261 8.1.1.8
    return str(contacts[0].uri)


def _name(who: NameAddr) -> str:
    return legible(who.display or who.uri.user or who.uri.host)


def _callee_name(request: Request, view: View, aor: str) -> str:
    bindings = view.get(Bindings, aor)
    return legible(request.to.display or (bindings.display if bindings else "") or Uri.parse(request.uri).user)
