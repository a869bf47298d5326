"""A call that comes to us: 180 while it rings, 200, 486 or 603 as the person decides, 487 if they
give up first."""

from __future__ import annotations

from sip.dialog import Dialog
from sip.errors import RemoteProtocolError
from sip.message import Request, reply
from sip.via import Via
from softphone.ua import user_messages
from softphone.ua.call import Call
from softphone.ua.call_states import ACCEPT, GONE, INCOMING, LEAVE, REFUSE, CallInput
from softphone.ua.events import Direction
from softphone.ua.offer_answer import CONTENT_TYPE, check_offer, offers
from softphone.ua.reliable_provisional import ReliableProvisionals, requires
from softphone.ua.transaction_layer import ServerRequest, TransactionLayer

LONGEST_RINGING = 180.0  # seconds
# RFC 3261 13.3.1.1: a provisional response every minute keeps proxies from giving up
RING_AGAIN = 60.0


class IncomingCall(Call):
    direction = Direction.INCOMING

    def __init__(self, layer: TransactionLayer, incoming: ServerRequest, now: float) -> None:
        """RemoteProtocolError if this INVITE cannot become a call: no Contact, a body or codecs we
        do not have."""
        request = incoming.request
        super().__init__(layer, INCOMING, request.call_id, request.from_, now)
        check_offer(request, layer.local[0])
        self._expires = request.expires  # a broken one is refused before the phone rings
        self.dialog = Dialog.uas(request, layer.new_token())
        self.reached_at = incoming.source
        self.invite = incoming
        self.seen_at = _seen_at(request)
        self._reliable: ReliableProvisionals | None = None
        if requires(request):
            self._reliable = ReliableProvisionals(layer, self.timers, incoming, self._on_no_prack)
        self._picked_up = False  # and the answer waits for a PRACK

    def ring(self, now: float) -> None:
        self.tell(user_messages.IS_CALLING.format(name=self.name), now)
        if self._reliable and not offers(self.invite.request):
            # Our 180 is the first reliable response, which makes the offer (RFC 3261 13.2.1).
            try:
                self.negotiate()
            except OSError as error:
                self.fail(user_messages.NO_SOUND.format(reason=error), now)
                return
        self._say_ringing(now)
        self.timers.set("no answer", now + LONGEST_RINGING, self._on_nobody_here)
        if self._expires:
            self.timers.set("expired", now + min(self._expires, 3600), self.cancelled)

    def _say_ringing(self, now: float) -> None:
        assert self.dialog is not None
        self.timers.set("ring", now + RING_AGAIN, self._say_ringing)
        fields, body = [("Contact", self.layer.contact), *self.layer.who_answers], b""
        talk = self.negotiation
        if talk is not None and self._reliable and not self._reliable.told_session:
            fields, body = [*fields, CONTENT_TYPE], talk.offer()
        response = reply(
            self.invite.request, 180, to_tag=self.dialog.local.tag, fields=fields, body=body
        )
        if self._reliable:
            self._reliable.send(response, now)
        else:
            self.invite.respond(response, now)

    def take_prack(self, incoming: ServerRequest, now: float) -> None:
        """RFC 3262 3 and 5: the answer to the offer in our 180, or once there is one, a new
        offer."""
        request, talk = incoming.request, self.negotiation
        # Asked first: one that is refused with 415 acknowledges nothing, and the wait for another
        # goes on.
        has_offer = offers(request)
        if self._reliable is None or not self._reliable.is_acknowledged(request):
            incoming.answer(481, now)
            return
        body = b""
        if has_offer:
            if self.state is not INCOMING or talk is None:
                # an offer, and theirs in the INVITE is not answered yet
                self.not_now(incoming, now)
                return
            try:
                if talk.awaits_answer:
                    talk.take_answer(request)
                else:
                    body = talk.answer(request)
            except RemoteProtocolError as error:
                incoming.answer(200, now)
                self._refuse(error.status, now, self._nothing_in_common)
                return
        incoming.answer(200, now, body=body)
        if self._picked_up:
            self.pick_up(now)

    def take_early_offer(self, incoming: ServerRequest, now: float) -> None:
        """An UPDATE may, once our offer in the 180 has its answer (RFC 3311 5.2)."""
        request, talk = incoming.request, self.negotiation
        is_agreed = talk is not None and talk.plan is not None and not talk.awaits_answer
        if talk is None or request.method != "UPDATE" or not is_agreed:
            self.not_now(incoming, now)
        else:
            self.accept_update(incoming, talk.answer(request), now)

    @property
    def _nothing_in_common(self) -> str:
        return user_messages.NOTHING_IN_COMMON.format(name=self.name)

    def _on_no_prack(self, now: float) -> None:
        """RFC 3262 3: 64*T1 without PRACK."""
        self._refuse(
            504,
            now,
            user_messages.RINGING_UNHEARD.format(name=self.name),
            GONE,
        )

    def pick_up(self, now: float) -> None:
        """The person answers."""
        if self.state is not INCOMING or self.dialog is None:
            return
        self.timers.cancel("ring", "no answer", "expired")
        if self._reliable and self._reliable.waits and self._reliable.told_session:
            # RFC 3262 3: no 2xx before that offer is known to have arrived
            self._picked_up = True
            return
        try:
            talk = self.negotiate()
        except OSError as error:
            self.fail(user_messages.NO_SOUND.format(reason=error), now)
            return
        try:
            body = self._session(talk.plan is not None)
        except RemoteProtocolError as error:
            self._refuse(error.status, now, self._nothing_in_common)
            return
        self.dialog.confirm()
        if self._reliable:
            self._reliable.stop_repeating()
        self.accept(self.invite, body, now)
        self.change(ACCEPT, now, user_messages.TALKING_WITH.format(name=self.name), 200)

    def _session(self, is_agreed: bool) -> bytes:
        """The session description of our 2xx: nothing, if offer and answer have passed with the 180
        and its PRACK."""
        talk, request = self.negotiation, self.invite.request
        assert talk is not None
        if offers(request):
            return talk.answer(request)
        if is_agreed:
            return b""
        return talk.repeat() if talk.awaits_answer else talk.offer()

    def decline(self, now: float) -> None:
        if self.state is INCOMING:
            self._refuse(603, now, user_messages.DECLINED_HERE, LEAVE)

    def hang_up(self, now: float) -> None:
        if self.state is INCOMING:
            self.decline(now)
        else:
            super().hang_up(now)

    def fail(self, sentence: str, now: float) -> None:
        if self.state is INCOMING:
            self._refuse(480, now, sentence, GONE)
        else:
            super().fail(sentence, now)

    def cancelled(self, now: float) -> None:
        """They gave up, or the time they set is over (RFC 3261 9.2, 13.3.1)."""
        if self.state is INCOMING:
            self._refuse(487, now, user_messages.MISSED_CALL.format(name=self.name), GONE)

    def _on_nobody_here(self, now: float) -> None:
        self._refuse(480, now, user_messages.MISSED_CALL.format(name=self.name), GONE)

    def ended_by_peer(self, now: float, sentence: str) -> None:
        if self.state is INCOMING:
            # a BYE before the answer: RFC 3261 15.1.2 wants the INVITE answered with 487
            self.cancelled(now)
        else:
            super().ended_by_peer(now, sentence)

    def _refuse(self, status: int, now: float, sentence: str, event: CallInput = REFUSE) -> None:
        assert self.dialog is not None
        self.timers.clear()
        self.invite.answer(status, now, to_tag=self.dialog.local.tag)
        self.change(event, now, sentence, status)


def _seen_at(request: Request) -> tuple[str, ...]:
    """Through proxies, the lowest Via tells where the first of them saw the caller (RFC 3261
    18.2.1)."""
    try:
        host = Via.parse(request.values("Via")[-1]).received
    except RemoteProtocolError:  # not the Via that our answer goes by
        host = ""
    return (host,) if host else ()
