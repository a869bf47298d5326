"""A call that we place: INVITE, its answers, CANCEL and the 200 that crosses it, forks (RFC 3261
13.2, 9.1)."""

from __future__ import annotations

from itertools import count

from sip.dialog import MAX_FORWARDS, Dialog
from sip.errors import LocalProtocolError, RemoteProtocolError
from sip.header import NameAddr
from sip.message import Request, Response
from sip.timing import PATIENCE
from sip.uri import Uri
from softphone.ua import user_messages
from softphone.ua.account import ALLOW
from softphone.ua.call import Call, pause_before_again
from softphone.ua.call_states import CALLING, ENDED, ENDING, GONE, LEAVE, REFUSE, RING, RINGING
from softphone.ua.client_request import ClientRequest
from softphone.ua.events import Direction
from softphone.ua.offer_answer import CONTENT_TYPE, OfferAnswer, offers
from softphone.ua.redirect import Redirection
from softphone.ua.reliable_provisional import RELIABLE, EarlyDialog, rseq_of
from softphone.ua.transaction_layer import ServerRequest, TransactionLayer
from softphone.ua.user_messages import (
    name_of_callee,
    why_no_credentials,
    why_not_called,
)

LONGEST_RINGING = 180.0  # seconds until an unanswered call is given up
MOST_FORKS = 16  # phones that ring or answer for one call; real proxies stop sooner
TELL_AFTER = 2  # repeats of the INVITE without any answer, 1.5 s


class OutgoingCall(Call):
    direction = Direction.OUTGOING

    def __init__(self, layer: TransactionLayer, target: Uri, now: float) -> None:
        super().__init__(layer, CALLING, layer.new_token(), NameAddr(target), now)
        self._to = self._target = target
        self._tag = layer.new_token()
        self._next_seq = count(1).__next__  # of CSeq
        self._offer: OfferAnswer | None = None  # as it was sent, before anybody answered
        self._early: dict[str, EarlyDialog] = {}
        self._others: dict[str, Dialog] = {}  # forks that answered too late, by tag
        self._pending: ClientRequest | None = None
        self._cancelled = False
        self._redirection = Redirection(layer.account, target)

    def place(self, now: float) -> None:
        """Send the INVITE."""
        self.tell(user_messages.CALLING.format(name=self.name), now)
        if not self._finds(self._target):
            self.change(GONE, now, user_messages.NOT_FOUND.format(host=self._target.host))
            return
        try:
            self._offer = self.negotiate()  # which remembers where they were reached
        except OSError as error:
            self.change(GONE, now, user_messages.NO_SOUND.format(reason=error))
            return
        self._invite(self._offer.offer(), now)

    def _finds(self, target: Uri) -> bool:
        """Is it known where to send a call to this target? `reached_at` tells from then on."""
        try:
            self.reached_at = self.layer.proxy or self.layer.address_of(target)
        except LocalProtocolError:
            return False
        return True

    def _next_target(self) -> Uri | None:
        """The next whom we were sent on to; who cannot be found is passed over (RFC 3261
        8.1.3.4)."""
        while (target := self._redirection.next()) is not None and not self._finds(target):
            self._redirection.refusal = user_messages.NOT_FOUND.format(host=target.host)
        return target

    def _invite(self, body: bytes, now: float) -> None:
        layer, account = self.layer, self.layer.account
        fields = [
            MAX_FORWARDS,
            ("From", str(account.name_addr.with_tag(self._tag))),
            ("To", f"<{self._to}>"),
        ]
        fields += [("Call-ID", self.call_id), ("CSeq", f"{self._next_seq()} INVITE")]
        fields += [
            ("Contact", layer.contact),
            ALLOW,
            *self.session_timer.request_fields(),
            RELIABLE,
            CONTENT_TYPE,
        ]
        request = Request("INVITE", str(self._target), fields, body)
        self._pending = ClientRequest(
            request,
            self.reached_at,
            self._on_final,
            self._next_seq,
            self._on_repeat,
            self._on_provisional,
        )
        layer.ask(self._pending, now)

    # -- leaving before the answer -----------------------------------------------------------------

    def hang_up(self, now: float) -> None:
        if self.state in (CALLING, RINGING):
            self.change(LEAVE, now, user_messages.HANGING_UP)
            if self._pending is not None:
                # a challenge now ends it: nobody wants that INVITE any more
                self._pending.given_up = True
            self._cancel(now)
        else:
            super().hang_up(now)

    def _cancel(self, now: float) -> None:
        """RFC 3261 9.1: not before a provisional response came; until then the wish waits."""
        exchange = self._pending
        if exchange and exchange.transaction.may_cancel and not self._cancelled:
            self._cancelled = True
            self.layer.cancel(exchange, self._on_cancel_answered, now)
            if self.timers.due("no answer") is None:
                self.timers.set("no answer", now + PATIENCE, self._on_no_final)

    def _on_cancel_answered(self, cancel: ClientRequest, response: Response, now: float) -> None:
        """A server that could not handle it has left the other phone ringing."""
        pause = pause_before_again(response)

        def again(later: float) -> None:
            self._cancelled = False
            self._cancel(later)

        if pause is not None and self.state is ENDING:
            self.timers.set("cancel", now + pause, again)

    def _on_no_final(self, now: float) -> None:
        # RFC 3261 9.1: 64*T1 after the CANCEL the INVITE counts as cancelled, answer or not.
        if self._pending is not None:
            self.layer.abandon(self._pending)
        self.change(GONE, now, self._reason_to_leave)

    def _on_nobody_there(self, now: float) -> None:
        self._reason_to_leave = user_messages.DOES_NOT_ANSWER.format(name=self.name)
        self.hang_up(now)

    # -- answers -----------------------------------------------------------------------------------

    def _on_repeat(self, exchange: ClientRequest, now: float) -> None:
        if self.state is CALLING and exchange.unanswered == TELL_AFTER:
            self.tell(user_messages.NO_ANSWER_YET.format(name=self.name), now)

    def _on_final(self, exchange: ClientRequest, response: Response, now: float) -> None:
        if exchange.timed_out:
            # A stateless proxy says nothing of its own (RFC 3261 16.11): the phone behind it may be
            # the silent one.
            silence = user_messages.NOBODY_ANSWERS.format(name=self.name)
            self._failed(response.status, silence, now)
        elif response.status < 300:
            try:
                self._on_success(exchange, response, now)
            except RemoteProtocolError:  # no Contact that could be sent an ACK, say
                self.change(GONE, now, user_messages.MAKES_NO_SENSE.format(name=self.name), 400)
        elif (
            response.status == 422
            and self.state in (CALLING, RINGING)
            and self.session_timer.lengthen(response)
        ):
            self._invite(exchange.request.body, now)
        else:
            self._redirection.learn(response)
            self._failed(response.status, self._failure(exchange, response), now)

    def _failed(self, status: int, sentence: str, now: float) -> None:
        """The INVITE has failed: it is sent to the next target of a redirection (RFC 3261 8.1.3.4);
        without one the call is over."""
        exchange = self._pending
        target = self._next_target() if self.state in (CALLING, RINGING) and status < 600 else None
        if target is None or exchange is None:
            sentence = (
                self._reason_to_leave
                if self.state is ENDING
                else self._redirection.refusal or sentence
            )
            self.change(REFUSE, now, sentence, status)
            return
        self.timers.cancel("ring")
        self._target, self._early, self.negotiation = target, {}, self._offer
        self.peer_uri, before = str(target), self.name
        self.name = NameAddr(target).uri.username or target.host
        self.tell(user_messages.SENT_ON.format(name=before, new_name=self.name), now)
        if self._offer is not None:
            self._offer.peers = (self.reached_at[0],)
        self._invite(exchange.request.body, now)

    def _failure(self, exchange: ClientRequest, response: Response) -> str:
        if response.status in (401, 407):
            account = self.layer.account
            wrong = why_no_credentials(account.username, account.password)
            return exchange.proofs.why_not or wrong
        return why_not_called(response.status, self.name, response.reason)

    def _on_provisional(self, exchange: ClientRequest, response: Response, now: float) -> None:
        early = self._ringing_at(exchange, response)
        rseq = rseq_of(response)
        if early and rseq is not None:
            if not early.is_next(rseq):
                return  # taken up before, or not its turn yet (RFC 3262 4)
            rack = ("RAck", f"{rseq} {response.cseq.number} INVITE")  # RFC 3262 7.2
            self.ask("PRACK", lambda *_: None, now, (rack,), dialog=early.dialog)
        self._learn_name(response)
        if self.state is ENDING:
            self._cancel(now)
            return
        if self.state not in (CALLING, RINGING):
            return
        has_sound = self._preview(early, response, is_final=rseq is not None)
        if response.status == 180:
            self.change(RING, now, user_messages.RINGING_AT.format(name=self.name), response.status)
        elif has_sound:
            self.emit_changed(now)
        self.timers.set("ring", now + LONGEST_RINGING, self._on_nobody_there)

    def _ringing_at(self, exchange: ClientRequest, response: Response) -> EarlyDialog | None:
        """The early dialog of a provisional response, which may have begun it."""
        tag = response.to.tag
        if response.status == 100 or not tag or self._offer is None or self.dialog is not None:
            return None
        if tag not in self._early and len(self._early) < MOST_FORKS:
            self._early[tag] = EarlyDialog(Dialog.uac(exchange.request, response), self._offer)
        return self._early.get(tag)

    def _learn_name(self, response: Response) -> None:
        """Learns the name of a person who was called by an address."""
        self.name = name_of_callee(response) or self.name

    def _preview(self, early: EarlyDialog | None, response: Response, is_final: bool) -> bool:
        """Sound before the answer: an announcement, or a ring tone made by the network. What a
        reliable response answers stands (RFC 3262 5), any other may still be replaced (RFC 3261
        13.2.1)."""
        talk = early.negotiation if early else self.negotiation
        if not response.body or talk is None or not talk.awaits_answer:
            return False
        try:
            talk.take_answer(response, preview=not is_final)
        except RemoteProtocolError:
            return False
        self.negotiation = talk
        return True

    def _on_success(self, exchange: ClientRequest, response: Response, now: float) -> None:
        tag = response.to.tag
        self.timers.cancel("ring", "no answer", "cancel")
        # Another phone was faster, or the call is over without an answer.
        is_late = self.state is ENDED if self.dialog is None else tag != self.dialog.remote.tag
        if is_late:
            self._leave_fork(exchange.request, response, now)
            return
        early = self._early.get(tag)
        if self.dialog is None:
            self.dialog = early.dialog if early else Dialog.uac(exchange.request, response)
            self.dialog.confirm(response)
            self.dialog.local_seq = max(self.dialog.local_seq, exchange.request.cseq.number)
        if not self.acknowledge(exchange.request, response, now):
            return
        self._learn_name(response)
        if self.state in (ENDING, ENDED):
            self.send_bye(now)
            return
        self.session_timer.agreed(response, now)
        try:
            self._agree(early, response)
        except RemoteProtocolError:
            self.send_bye(now)
            self.change(GONE, now, why_not_called(488, self.name), 488)
            return
        self.status = response.status
        self.emit_talking(now)

    def _agree(self, early: EarlyDialog | None, response: Response) -> None:
        """Their answer; if it already came with a provisional response, the 2xx may do without (RFC
        6337 3.1.1), and what it says once more is not heard after an UPDATE has changed it."""
        talk, answers = early.negotiation if early else self._offer, offers(response)
        if talk is not None and (answers or talk.plan is not None):
            self.negotiation = talk  # else the preview stands that came under another tag
        talk = self.negotiation
        assert talk is not None
        if talk.awaits_answer and (answers or talk.plan is None):
            talk.take_answer(response)
        elif talk.awaits_answer:
            talk.settle()
        elif answers and not (early and early.updated):
            talk.take_correction(response)

    def _leave_fork(self, invite: Request, response: Response, now: float) -> None:
        """RFC 3261 13.2.2.4: a phone answered whose answer nobody waits for; it is acknowledged,
        and left at once."""
        tag = response.to.tag
        is_new = tag not in self._others
        if is_new:
            if len(self._others) >= MOST_FORKS:
                return
            try:
                self._others[tag] = Dialog.uac(invite, response)
            except RemoteProtocolError:
                return  # one that cannot be left must not end the call with the other
        self.send_ack(self._others[tag], invite, response, now)
        if is_new:
            self.end_dialog(self._others[tag], now, now + PATIENCE, lambda later: None)

    def take_late_success(self, response: Response, now: float) -> bool:
        """A 2xx to an INVITE of ours that had another final response, or none for so long that we
        ceased to wait. False if it is none of ours."""
        if self._pending is None or response.from_.tag != self._tag:
            return False
        is_ours = self.dialog is not None and response.to.tag == self.dialog.remote.tag
        if not self.acknowledge_again(response, now) and not is_ours:
            self._leave_fork(self._pending.request, response, now)
        return True

    # -- their requests before the answer ----------------------------------------------------------

    def owns(self, request: Request) -> bool:
        return self._early_of(request) is not None or super().owns(request)

    def _early_of(self, request: Request) -> EarlyDialog | None:
        early = self._early.get(request.from_.tag) if self.dialog is None else None
        ids = request.call_id, request.to.tag, request.from_.tag
        return early if early is not None and early.dialog.id == ids else None

    def take(self, incoming: ServerRequest, now: float) -> None:
        early = self._early_of(incoming.request)
        if early is None:
            super().take(incoming, now)
        elif incoming.request.method == "BYE":
            self._leave_early(early, incoming, now)
        else:
            early.dialog.take(incoming.request)
            self._take_early(early, incoming, now)

    def _leave_early(self, early: EarlyDialog, incoming: ServerRequest, now: float) -> None:
        """BYE: the 2xx was lost, its repeats too, and they give up on the dialog that only their
        180 told us of. Other phones ring on; after the last the INVITE is taken back."""
        if len(self._early) > 1:
            early.dialog.take(incoming.request)
            incoming.answer(200, now)
            del self._early[early.dialog.remote.tag]
            if self.negotiation is early.negotiation:  # its sound was heard before the answer
                self.negotiation = self._offer
                self.emit_changed(now)
            return
        self.dialog = early.dialog
        super().take(incoming, now)
        if self._pending is not None:
            self._pending.given_up = True
        # with or without a CANCEL before
        self.timers.set("no answer", now + PATIENCE, self._on_no_final)
        self._cancel(now)

    def _take_early(self, early: EarlyDialog, incoming: ServerRequest, now: float) -> None:
        """RFC 3311 5.2: once our offer has its answer they may make one of their own."""
        request, talk = incoming.request, early.negotiation
        if request.method == "INVITE":
            incoming.answer(491, now)  # RFC 3261 14.2: ours is under way
        elif request.method != "UPDATE":
            self.take_other(incoming, now)
        elif not offers(request):
            self.accept_update(incoming, b"", now)
        elif talk.awaits_answer:
            incoming.answer(491, now)
        else:
            body = talk.answer(request)
            self.negotiation, early.updated = talk, True
            self.accept_update(incoming, body, now)
            self.emit_changed(now)
