"""The effect of a message or a timer on a call's record, and the events that it fires. Nothing is
sent from here."""

from __future__ import annotations

from sip.message import Request, Response
from sip.timing import PATIENCE
from slee_mock.container.events import (
    CallAcknowledged,
    CallAnswered,
    CallContinued,
    CallEnded,
    CallEvent,
    CallExpired,
    CallRang,
    CallUnanswered,
    Outcome,
    RequestEvent,
)
from slee_mock.services.call_dialogs import (
    acknowledged,
    contact_of,
    dialog_after,
    ended,
    find_dialog,
    hung_up,
    with_contact,
    with_dialog,
)
from slee_mock.services.call_record import TIMER_C_SECONDS, Call, Dialog, Leg
from slee_mock.services.session_timer import REFRESHING, SessionTimers, knows_timers
from slee_mock.store.records import replace

# A caller's request with one of these proves that it has the 2xx: an early dialog may have others.
PROOFS = ("ACK", "BYE", "INVITE")
SEEN_RESOLUTION_SECONDS = 1.0  # of Call.seen, which is saved no more often


class Progress:
    """The effect of messages on a call whose session may expire."""

    def __init__(self, timers: SessionTimers) -> None:
        self._timers = timers

    def requested(
        self, call: Call, dialog: Dialog, by_caller: bool, request: Request, now: float
    ) -> Call:
        """Applies a request of this dialog to the call."""
        method = request.method
        if by_caller and method in PROOFS:
            call = acknowledged(call, dialog)
            dialog = next(each for each in call.dialogs if each.tag == dialog.tag)
        if method == "BYE":
            return hung_up(call, dialog, now)
        if method == "ACK" and by_caller and call.given_up and request.cseq.number == call.cseq:
            return self.crossed(call, now)
        return self.refreshed(self.seen(call, now), request, dialog, by_caller)

    def followed(
        self, call: Call, leg: Leg, onward: Response, now: float
    ) -> tuple[Call, tuple[CallEvent, ...]]:
        """Applies a response to an INVITE or UPDATE to the call; the session timer that it starts
        may be written into the response."""
        is_initial = onward.cseq.method == "INVITE" and call.began_with(
            onward.from_tag, onward.cseq.number
        )
        updated, fires = (
            after_response(call, leg, onward, now) if is_initial else after_refresh(call, onward)
        )
        if not 200 <= onward.status < 300:
            return updated, fires
        by_caller = onward.from_tag == call.caller_tag
        is_timed = onward.get("Session-Expires") is not None or knows_timers(onward)
        timed = {"callee_timed" if by_caller else "caller_timed": is_timed}
        interval = self._timers.accept(
            onward, call.interval, call.caller_timed if by_caller else call.callee_timed
        )
        is_again = is_initial and call.confirmed
        if updated.confirmed and not updated.over and not is_again:
            expires = self._silent_from(now) if interval is None else now + interval
            untimed = interval is None
            updated = replace(updated, seen=now, expires=expires, untimed=untimed, **timed)
        return updated, fires

    def continued(self, call: Call, event: RequestEvent) -> Call:
        """Revives a call whose end was presumed, if this message proves that wrong. Of
        two phones that both know session timers, only a message can that the forwarder had before
        the session expired: each of them has given it up. Where one of them does not, it talks
        on."""
        is_agreed = not call.untimed and call.caller_timed and call.callee_timed
        if call.lapsed is None or (is_agreed and event.time >= call.lapsed):
            return call
        expires = self._silent_from(event.time)
        if is_agreed:
            passed = event.time + event.kept
            expires = max(call.lapsed, passed + PATIENCE)  # time for the answer to a refresh
        seen = max(call.seen, event.time)
        return replace(call, over=False, lapsed=None, seen=seen, expires=expires)

    def seen(self, call: Call, now: float) -> Call:
        """Notes that a message passed, which puts the end off where no phone refreshes the
        session."""
        bound = self._silent_from(now)
        if call.confirmed and not call.over and call.expires is None and bound:
            # it was answered while servers had --session-expires=0
            call = replace(call, untimed=True, expires=bound)
        if call.expires is None or now - call.seen < SEEN_RESOLUTION_SECONDS:
            return call
        return replace(call, seen=now, expires=bound if call.untimed else call.expires)

    def _silent_from(self, now: float) -> float | None:
        """When a call that nobody refreshes is presumed over: no message passes after `now`."""
        return now + self._timers.bound if self._timers.bound else None

    def refreshed(self, call: Call, request: Request, dialog: Dialog, by_caller: bool) -> Call:
        if request.method not in REFRESHING:
            return call
        is_timed = knows_timers(request)
        timed = {"caller_timed" if by_caller else "callee_timed": is_timed}
        call = replace(call, interval=self._timers.request_interval(request), **timed)
        contact = contact_of(request)
        return with_contact(call, dialog, by_caller, contact) if contact else call

    def crossed(self, call: Call, now: float) -> Call:
        """Applies the ACK to a 2xx that crossed a CANCEL: a BYE follows at once (RFC 3261 9.1), if
        its phone still lives. Any other message proves that it talks."""
        if call.over or not call.confirmed:
            return call
        return replace(call, seen=max(call.seen, now), expires=now + PATIENCE, untimed=True)


def events_of_request(
    call: Call, known: Call, updated: Call, event: RequestEvent, spoken: tuple[Dialog, bool]
) -> tuple[CallEvent, ...]:
    """Makes the events of a request within a dialog: `call` before it, `known` once its presumed
    end is proven wrong, `updated` after it."""
    method, now = event.request.method, event.time
    dialog, by_caller = spoken
    if known.lapsed is not None:  # too late to prove anything: the bill stays as it is
        return (CallEvent(call.call_id, now),)
    fires: list[CallEvent] = []
    if by_caller and call.confirmed and method in PROOFS and not dialog.aside:
        fires.append(CallAcknowledged(call.call_id, now, method == "BYE"))
    if known is not call:
        fires.append(CallContinued(call.call_id, now))
    if method == "BYE" and updated.over and not dialog.aside:
        who = call.caller if by_caller else call.callee
        fires.append(CallEnded(call.call_id, now, f"{who} hung up"))
    return tuple(fires) or (CallEvent(call.call_id, now),)


def after_response(
    call: Call, leg: Leg, response: Response, now: float
) -> tuple[Call, tuple[CallEvent, ...]]:
    """Applies a response to the first INVITE to the call. On a further leg it changes the dialog
    alone: the call has rung or is answered when its caller hears so."""
    is_callers = call.is_own(leg)
    if response.status >= 300:
        if call.confirmed or not is_callers:
            return call, ()
        return ended(call, now), (CallEnded(call.call_id, now, _why(call, response)),)
    is_answer = response.status >= 200
    if not is_answer and not response.to_tag:
        is_news = is_callers and not (call.over or call.confirmed)
        return call, (CallRang(call.call_id, now),) if is_news else ()
    dialog = dialog_after(call, leg, response)
    if is_callers and is_answer and not call.over and not dialog.confirmed:
        dialog = replace(dialog, confirmed=True, heard=not call.confirmed)
    updated = with_dialog(call, dialog)
    if call.over or call.confirmed or not is_callers:
        # Its caller was told that it is over, or another phone of a fork has answered: what the
        # phones now say to part finds its way, and costs nothing more.
        return updated, ()
    if is_answer:
        return replace(updated, confirmed=True), (CallAnswered(call.call_id, now),)
    return updated, (CallRang(call.call_id, now),)


def expired(call: Call) -> Outcome:
    """Ends a call whose timer has run out: Timer C (RFC 3261 16.6), or the session's."""
    event: CallEvent
    if call.confirmed:
        phones = f"the phones of {call.caller} and {call.callee}"
        why = f"{phones} fell silent; counted to their last message"
        call = replace(call, over=True, lapsed=call.expires)
        event = CallExpired(call.call_id, call.seen, why)
    else:
        event = CallUnanswered(
            call.call_id, call.offered + TIMER_C_SECONDS, f"{call.callee} did not answer"
        )
    return Outcome(
        writes=(replace(call, expires=None),), fires=(event,), consumed=True, log_text="timer"
    )


def after_refresh(call: Call, response: Response) -> tuple[Call, tuple[CallEvent, ...]]:
    """Applies a 2xx to a re-INVITE or UPDATE: it may bring a new contact of its sender."""
    spoken = find_dialog(call, response)
    contact = contact_of(response)
    if spoken is None or not 200 <= response.status < 300 or not contact:
        return call, ()
    dialog, by_caller = spoken
    return with_contact(call, dialog, not by_caller, contact), ()


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
}


def _why(call: Call, response: Response) -> str:
    text = _WHY.get(response.status, "{callee}'s phone refused the call ({status})")
    return text.format(caller=call.caller, callee=call.callee, status=response.status)


def may_try_again(known: Call, identity: tuple[str, int]) -> bool:
    """May this INVITE follow one that has failed, with its Call-ID and a higher CSeq (RFC 3261
    8.1.3.5)?"""
    is_stale = known.caller_tag == identity[0] and identity[1] < known.cseq
    return known.over and not known.confirmed and not is_stale
