"""A call: what happens within its dialog whichever side began it, and the walk through its states.

`outgoing_call` and `incoming_call` add how the two kinds begin. Who repeats what is the business of
the transactions, except for the 2xx to an INVITE and its ACK, which RFC 3261 13.2.2.4 and 13.3.1.4
leave to this level.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import unquote

from sip import sdp
from sip.dialog import TARGET_REFRESHING, Dialog, next_hop
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Request, Response
from sip.timing import PATIENCE, T1, T2
from softphone.ua import user_messages
from softphone.ua.account import ALLOW, Address
from softphone.ua.call_states import (
    ACCEPT,
    CALL_TRANSITIONS,
    ENDED,
    ENDING,
    GONE,
    LEAVE,
    TALKING,
    CallInput,
)
from softphone.ua.client_request import ClientRequest, ResponseHandler
from softphone.ua.events import CallChanged, CallState, CallView, Direction, ProbeAnswered
from softphone.ua.info_dtmf import InfoDigits
from softphone.ua.offer_answer import CONTENT_TYPE, OfferAnswer, offers
from softphone.ua.optional_fields import retry_after
from softphone.ua.reliable_provisional import RELIABLE
from softphone.ua.session_timer import RETRY, SUPPORTED, SessionTimer
from softphone.ua.timers import Action, NamedTimers
from softphone.ua.transaction_layer import ServerRequest, TransactionLayer
from softphone.ua.user_messages import begin, legible

REMEMBERED_ACKS = 8  # a call that is refreshed by re-INVITE may go on for days
BYE_AGAIN = 2.0  # seconds after a BYE that a server could not handle, if it does not say how many


class Call:
    """The common part of outgoing and incoming calls."""

    direction = Direction.OUTGOING
    _reason_to_leave = user_messages.HUNG_UP_HERE

    def __init__(
        self, layer: TransactionLayer, state: CallState, call_id: str, peer: NameAddr, now: float
    ) -> None:
        self.layer = layer
        self.reached_at = layer.local  # where the peer was reached, for a Contact that is a name
        self.seen_at: tuple[str, ...] = ()  # hosts where a proxy saw the peer
        self.state = state
        self.call_id = call_id
        self.name = legible(peer.display or unquote(peer.uri.user).lstrip("/") or peer.uri.host)
        self.peer_uri = legible(str(peer.uri))
        self.sentence = ""
        self.since = now
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.status: int | None = None
        self.silent_for = 0  # seconds without any sound from there, as the shell has told
        self.timers = NamedTimers()
        self.dialog: Dialog | None = None
        self.negotiation: OfferAnswer | None = None
        self.session_timer = SessionTimer(
            layer.session_expires, self.timers, self.refresh, self._on_silence
        )
        # our re-INVITE, or the UPDATE that refreshes, while under way
        self._modification: ClientRequest | None = None
        self._acks: dict[tuple[str, int], tuple[Request, Address]] = {}
        self._unacked: int | None = None  # CSeq of their INVITE whose 2xx waits for an ACK
        self._bye_waits = False
        self.digits = InfoDigits(self)

    # -- the person's view -------------------------------------------------------------------------

    @property
    def view(self) -> CallView:
        talk = self.negotiation
        media = talk.plan if talk and self.state is not CallState.INCOMING else None
        return CallView(
            self.call_id,
            self.direction,
            self.name,
            self.peer_uri,
            self.state,
            self.sentence,
            self.since,
            self.answered_at,
            self.ended_at,
            talk is not None and talk.held_here,
            talk is not None and talk.held_there,
            self.status,
            media,
        )

    def change(
        self, event: CallInput, now: float, sentence: str, status: int | None = None
    ) -> None:
        """Walk the table and tell. What is over stays as it ended."""
        if self.state is ENDED:
            return
        state = CALL_TRANSITIONS[self.state][event]
        if state is not self.state:
            self.state, self.since = state, now
            if state is TALKING:
                self.answered_at = now
            elif state in (ENDING, ENDED) and self.ended_at is None:
                self.ended_at = now
                self.session_timer.stop()
        self.status = status or self.status
        if state is ENDED:
            self.timers.cancel("glare", "ring", "no answer", "cancel")
        self.tell(sentence, now)

    def tell(self, sentence: str, now: float) -> None:
        """Show another sentence for the state that the call is in."""
        self.sentence = begin(sentence)
        self.emit_changed(now)

    def emit_changed(self, now: float) -> None:
        self.layer.emit(CallChanged(now, self.view))

    def emit_talking(self, now: float, remark: str = "") -> None:
        """The sentence of a call in progress."""
        view = self.view
        if view.held_here:
            text = user_messages.IS_ON_HOLD
        elif view.held_there:
            text = user_messages.HAS_PUT_ON_HOLD
        else:
            text = user_messages.TALKING_WITH
            if self.silent_for and not remark:
                remark = user_messages.NOTHING_HEARD.format(seconds=self.silent_for)
        text = text.format(name=self.name)
        self.change(ACCEPT, now, f"{text}; {remark}" if remark else text)

    def nothing_heard(self, seconds: int, now: float) -> None:
        """Show that no sound has come for `seconds`; 0: sound comes."""
        if self.state is TALKING and seconds != self.silent_for:
            self.silent_for = seconds
            self.emit_talking(now)

    def negotiate(self) -> OfferAnswer:
        """Offer and answer of this call, begun with the first one. OSError if there is no port for
        our media."""
        if self.negotiation is None:
            port = self.layer.open_media(self.call_id)
            host, number = self.layer.local[0], self.layer.random.getrandbits(31)
            self.negotiation = OfferAnswer(host, port, number, (self.reached_at[0], *self.seen_at))
        return self.negotiation

    # -- commands of the person --------------------------------------------------------------------

    def hang_up(self, now: float) -> None:
        if self.state is TALKING:
            self.change(LEAVE, now, user_messages.HANGING_UP)
            self.send_bye(now)

    def fail(self, sentence: str, now: float) -> None:
        """It cannot be had here: end it as if the person did, with this sentence."""
        self._reason_to_leave = sentence
        self.hang_up(now)

    def move(self, host: str, now: float) -> None:
        """Our media is wanted at this host: a call that is up says so once with a re-INVITE, if
        there is no offer that waits for its turn and will say it."""
        if self.negotiation is not None:
            self.negotiation.move(host)
            self._tell_move(now)

    def _tell_move(self, now: float) -> None:
        """Offer the new host after the request that is under way, unless another offer or answer
        has named it by then."""
        talk = self.negotiation
        if talk is None or not talk.has_moved or self.timers.due("glare") is not None:
            return
        if self._modification or self._awaits_late_answer:
            self.timers.set("glare", now + T1, self._tell_move)
        else:
            self.hold(None, now)

    def hold(self, on: bool | None, now: float) -> None:
        """Put the other side on hold, or take it back; after the request of that kind which is
        under way. None: offer anew what stands by then, for we have moved."""
        talk = self.negotiation
        if self.state is not TALKING or talk is None:
            return
        if talk.held_here is on and not talk.has_moved:
            return
        self.timers.cancel("glare")
        hold = talk.held_here if on is None else on

        def again(later: float) -> None:
            self.hold(on, later)

        def answered(exchange: ClientRequest, response: Response, later: float) -> None:
            if self._modified(exchange, response, later, again, "glare"):
                refused = user_messages.NO_HOLD if hold else user_messages.NO_RESUME
                self.emit_talking(later, refused.format(name=self.name))

        if self._modification or self._awaits_late_answer:
            self.timers.set("glare", now + T1, again)
            return
        self._modification = self.ask("INVITE", answered, now, body=talk.offer(hold))

    def probe(self, now: float) -> None:
        """OPTIONS within the dialog: is the path alive? Its answer comes as ProbeAnswered."""
        if self.state is not TALKING or self.dialog is None:
            return

        def answered(exchange: ClientRequest, response: Response, later: float) -> None:
            self.layer.emit(ProbeAnswered(later, self.call_id, now, response.status))
            # silence ends no call here, for its sound may well go on
            if response.status == 481:
                self.lost(later, 481)

        self.ask("OPTIONS", answered, now)

    # -- requests of ours within the dialog --------------------------------------------------------

    def ask(
        self,
        method: str,
        handler: ResponseHandler,
        now: float,
        fields: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        dialog: Dialog | None = None,
    ) -> ClientRequest:
        """Send a request within the call's dialog, or within another `dialog` of its INVITE."""
        dialog = dialog or self.dialog
        assert dialog is not None
        if method in TARGET_REFRESHING:
            fields = (("Contact", self.layer.contact), ALLOW, *self.session_timer.request_fields())
            fields += (CONTENT_TYPE,) if body else ()
        request = dialog.request(method, fields, body)
        destination = self.layer.address_of(next_hop(request), self.reached_at)
        return self.layer.ask(ClientRequest(request, destination, handler, dialog.next_seq), now)

    def send_bye(self, now: float) -> None:
        """BYE; the called side waits with it until its 2xx is acknowledged (RFC 3261 15)."""
        self._bye_waits = self._unacked is not None
        if not self._bye_waits and self.dialog is not None:
            until = now + PATIENCE
            self.end_dialog(
                self.dialog, now, until, lambda at: self.change(GONE, at, self._reason_to_leave)
            )

    def end_dialog(
        self, dialog: Dialog, now: float, until: float, done: Callable[[float], None]
    ) -> None:
        """BYE; again after Retry-After while a server on the way cannot handle it, until the time
        `until`. Whatever else is answered, 481 and silence too: it is over (RFC 3261 15.1.1)."""

        def answered(exchange: ClientRequest, response: Response, later: float) -> None:
            pause = pause_before_again(response)
            if pause is None or until - later < 1.0:
                done(later)
            else:
                again = min(later + pause, until)
                self.timers.set(
                    f"bye {dialog.remote.tag}",
                    again,
                    lambda at: self.end_dialog(dialog, at, until, done),
                )

        self.ask("BYE", answered, now, dialog=dialog)

    def refresh(self, now: float) -> None:
        """Tell everybody on the way that this call lives on: an UPDATE that offers nothing, or to a
        phone without UPDATE a re-INVITE that changes nothing (RFC 4028 7.4)."""
        talk = self.negotiation
        if self.state is not TALKING or talk is None:
            return
        if self._modification or self._unacked is not None:
            self.timers.set("refresh", now + RETRY, self.refresh)
        elif self.session_timer.takes_update:
            self._modification = self.ask("UPDATE", self._on_refreshed, now)
        else:
            self._modification = self.ask("INVITE", self._on_refreshed, now, body=talk.repeat())

    def _on_refreshed(self, exchange: ClientRequest, response: Response, now: float) -> None:
        status = self._modified(exchange, response, now, self.refresh, "refresh")
        if status in (405, 501) and self.session_timer.takes_update:
            self.session_timer.takes_update = False
            self.refresh(now)
        elif status:
            self.session_timer.again(response, now)

    def _modified(
        self,
        exchange: ClientRequest,
        response: Response,
        now: float,
        again: Action,
        timer: str,
    ) -> int:
        """Handles an answer to our re-INVITE or UPDATE as far as both are alike: `again` makes the
        request once more, by the named timer after a glare. The status of a refusal, else 0."""
        status, invited = response.status, exchange.request.method == "INVITE"
        succeeded = status < 300
        if invited and succeeded and not self.acknowledge(exchange.request, response, now):
            return 0  # a repeated 2xx
        self._modification = None
        if self.state is not TALKING or self.negotiation is None:
            return 0
        if succeeded:
            self.session_timer.agreed(response, now)
            self._agree_anew(response, invited, now)
        elif invited:
            self.negotiation.withdraw()
        if status == 491:
            self.timers.set(timer, now + self._glare_pause(), again)
        elif status == 422 and self.session_timer.lengthen(response):
            again(now)
        elif status in (408, 481):
            self.lost(now, status)
        elif status >= 300:
            return status
        return 0

    def _glare_pause(self) -> float:
        """RFC 3261 14.1: who made the Call-ID waits longer, so that the two do not collide
        again."""
        longer = self.direction is Direction.OUTGOING
        return (
            self.layer.random.uniform(2.1, 4.0) if longer else self.layer.random.uniform(0.0, 2.0)
        )

    def _on_silence(self, now: float) -> None:
        """RFC 4028 10: nobody refreshed the session, so it is over, on both sides."""
        sentence = user_messages.heard_nothing(self.name, self.session_timer.silence(now))
        self.send_bye(now)
        self.change(GONE, now, sentence, 408)

    def _agree_anew(self, response: Response, invited: bool, now: float) -> None:
        assert self.negotiation is not None and self.dialog is not None
        try:
            if invited:
                self.negotiation.take_answer(response)
            # a Contact that cannot be read leaves the one we know
            self.dialog.refresh_target(response)
        except RemoteProtocolError:
            if invited:
                self.negotiation.withdraw()
        if invited:
            self.emit_talking(now)

    def lost(self, now: float, status: int) -> None:
        """RFC 3261 12.2.1.2: a dialog that answers 481, or not at all, is over. The BYE is for a
        peer gone deaf, and for the servers on the way, whose bill would run on."""
        if self.state is not TALKING:
            return
        self.send_bye(now)
        self.change(GONE, now, user_messages.CALL_LOST.format(name=self.name), status)

    def acknowledge(self, request: Request, response: Response, now: float) -> bool:
        """ACK a 2xx to an INVITE of ours; False if this one only repeats a 2xx that was
        acknowledged before."""
        assert self.dialog is not None
        if self.acknowledge_again(response, now):
            return False
        key = response.to.tag, response.cseq.number
        self._acks[key] = self.send_ack(self.dialog, request, response, now)
        for old in list(self._acks)[:-REMEMBERED_ACKS]:
            del self._acks[old]
        return True

    def acknowledge_again(self, response: Response, now: float) -> bool:
        """ACK a repeated 2xx within the call's dialog; False if it is none."""
        known = self._acks.get((response.to.tag, response.cseq.number))
        if known is not None:
            self.layer.send(*known, now, repeated=True)
        return known is not None

    def send_ack(
        self, dialog: Dialog, request: Request, response: Response, now: float
    ) -> tuple[Request, Address]:
        """RFC 3261 13.2.2.4 has the ACK carry the INVITE's credentials, which nobody gets but our
        server."""
        ack = dialog.request("ACK", seq=response.cseq.number)
        destination = self.layer.address_of(next_hop(ack), self.reached_at)
        if self.layer.is_server(destination):
            for name in ("Authorization", "Proxy-Authorization"):
                for value in request.all(name):
                    ack.add(name, value)
        self.layer.send(ack, destination, now)
        return ack, destination

    # -- requests of theirs within the dialog ------------------------------------------------------

    def owns(self, request: Request) -> bool:
        return self.dialog is not None and self.dialog.id == (
            request.call_id,
            request.to.tag,
            request.from_.tag,
        )

    def take(self, incoming: ServerRequest, now: float) -> None:
        """A request within our dialog, neither ACK nor CANCEL."""
        assert self.dialog is not None
        request = incoming.request
        self.dialog.take(request)
        if request.method == "BYE":
            incoming.answer(200, now)
            self.ended_by_peer(now, user_messages.HUNG_UP_THERE.format(name=self.name))
        elif request.method in TARGET_REFRESHING:
            self._take_offer(incoming, now)
        else:
            self.take_other(incoming, now)

    def take_other(self, incoming: ServerRequest, now: float) -> None:
        """Handles a request that changes neither the call nor its media."""
        if incoming.request.method == "OPTIONS":
            incoming.answer(200, now, ALLOW, SUPPORTED, RELIABLE, ("Accept", sdp.CONTENT_TYPE))
        elif incoming.request.method == "PRACK":
            self.take_prack(incoming, now)
        else:
            incoming.answer(405, now, ALLOW)

    def take_prack(self, incoming: ServerRequest, now: float) -> None:
        """RFC 3262 3: it acknowledges nothing of ours."""
        incoming.answer(481, now)

    def ended_by_peer(self, now: float, sentence: str) -> None:
        """They ended it."""
        self.timers.clear()
        self._bye_waits, self._unacked = False, None
        self.change(GONE, now, self._reason_to_leave if self.state is ENDING else sentence)

    def _take_offer(self, incoming: ServerRequest, now: float) -> None:
        """A re-INVITE, or an UPDATE, which may come without offer and then changes nothing (RFC
        3311 5.2)."""
        talk, request = self.negotiation, incoming.request
        updates, has_offer = request.method == "UPDATE", offers(request)
        if self.state in (ENDING, ENDED):
            incoming.answer(481, now)
        elif updates and not has_offer:
            self.accept_update(incoming, b"", now)
        elif self.state is not TALKING or talk is None:
            self.take_early_offer(incoming, now)
        elif self._invites:
            incoming.answer(491, now)  # RFC 3261 14.2: ours is under way
        elif self._awaits_late_answer:
            self.not_now(incoming, now)
        else:
            try:
                body = talk.answer(request) if has_offer else talk.offer_all()
            except RemoteProtocolError as error:
                incoming.answer(error.status, now)
                return
            (self.accept_update if updates else self.accept)(incoming, body, now)
            self.emit_talking(now)

    def take_early_offer(self, incoming: ServerRequest, now: float) -> None:
        """RFC 3261 14.2, RFC 3311 5.2: their first offer is not answered yet."""
        self.not_now(incoming, now)

    def not_now(self, incoming: ServerRequest, now: float) -> None:
        """500 with Retry-After: one thing after the other (RFC 3261 14.2)."""
        incoming.answer(500, now, ("Retry-After", str(round(self.layer.random.uniform(0, 10)))))

    def accept_update(self, incoming: ServerRequest, body: bytes, now: float) -> None:
        # Before the call is answered there is no session yet that could expire.
        timer = (
            self.session_timer.answer_fields(incoming.request, now)
            if self.state is TALKING
            else [SUPPORTED]
        )
        incoming.answer(200, now, ("Contact", self.layer.contact), ALLOW, *timer, body=body)

    def accept(self, incoming: ServerRequest, body: bytes, now: float) -> None:
        """200 to their INVITE, repeated until the ACK comes (RFC 3261 13.3.1.4)."""
        assert self.dialog is not None
        timer = self.session_timer.answer_fields(incoming.request, now)
        fields = [("Contact", self.layer.contact), ALLOW, *self.layer.who_answers, *timer]
        response = incoming.answer(200, now, *fields, to_tag=self.dialog.local.tag, body=body)
        self._unacked = incoming.request.cseq.number

        def repeat(later: float) -> None:
            self.layer.repeat(response, incoming.destination, later)

        self.timers.repeat("repeat 2xx", T1, T2, repeat, now)
        self.timers.set("no ACK", now + PATIENCE, self._on_no_ack)

    def _on_no_ack(self, now: float) -> None:
        self.timers.cancel("repeat 2xx")
        self._unacked = None
        self.send_bye(now)
        self.change(GONE, now, user_messages.NEVER_CONFIRMED.format(name=self.name), 408)

    @property
    def _invites(self) -> bool:
        """Is a re-INVITE of ours under way?"""
        return self._modification is not None and self._modification.request.method == "INVITE"

    @property
    def _awaits_late_answer(self) -> bool:
        """Our 2xx made the offer, so the ACK brings the answer. What an INVITE of ours offers is
        another matter."""
        talk = self.negotiation
        is_ours = self._unacked is not None and not self._invites
        return is_ours and talk is not None and talk.awaits_answer

    def take_ack(self, request: Request, now: float) -> None:
        """The ACK to a 2xx of ours; with a late offer it brings their answer."""
        if request.cseq.number != self._unacked:
            return
        brings_answer = self._awaits_late_answer
        self._unacked = None
        self.timers.cancel("repeat 2xx", "no ACK")
        if self.negotiation is not None and brings_answer:
            try:
                self.negotiation.take_answer(request)
            except RemoteProtocolError:
                self.negotiation.withdraw()
                if self.negotiation.plan is None and self.state is TALKING:
                    self.send_bye(now)
                    self.change(
                        GONE,
                        now,
                        user_messages.NOTHING_IN_COMMON.format(name=self.name),
                        488,
                    )
                    return
            if self.state is TALKING:
                self.emit_talking(now)
        if self._bye_waits:
            self.send_bye(now)


def pause_before_again(response: Response) -> float | None:
    """Seconds until a BYE or CANCEL is worth sending again: a server on the way was overloaded or
    had nobody to send it to (RFC 3261 21.5). None: it need not be."""
    if response.status not in (500, 502, 503, 504):
        return None
    return retry_after(response) or BYE_AGAIN
