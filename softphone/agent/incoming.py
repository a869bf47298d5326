"""A call that comes to us: 180 while it rings, 200, 486 or 603 as the person decides, 487 if they give up first."""

from __future__ import annotations

from sip.dialog import Dialog
from sip.errors import RemoteProtocolError
from sip.message import Request, reply
from sip.via import Via
from softphone.agent.call import Call
from softphone.agent.endpoint import Endpoint, Incoming
from softphone.agent.event import Direction
from softphone.agent.negotiation import check_offer
from softphone.agent.sentence import begin
from softphone.agent.states import ACCEPT, GONE, INCOMING, LEAVE, REFUSE, CallEvent

LONGEST_RINGING = 180.0  # seconds
RING_AGAIN = 60.0  # RFC 3261 13.3.1.1: a provisional response every minute keeps proxies from giving up


class IncomingCall(Call):
    direction = Direction.INCOMING

    def __init__(self, endpoint: Endpoint, incoming: Incoming, now: float) -> None:
        """RemoteProtocolError if this INVITE cannot become a call: no Contact, a body or codecs we do not have."""
        request = incoming.request
        super().__init__(endpoint, INCOMING, request.call_id, request.from_, now)
        check_offer(request, endpoint.local[0])
        self._expires = request.expires  # a broken one is refused before the phone rings
        self.dialog = Dialog.uas(request, endpoint.new_token())
        self.reached_at = incoming.source
        self.invite = incoming
        self.seen_at = _seen_at(request)

    def ring(self, now: float) -> None:
        self.sentence = begin(f"{self.name} is calling")
        self.tell(now)
        self._say_ringing(now)
        self.rows.set("no answer", now + LONGEST_RINGING, self._on_nobody_here)
        if self._expires:
            self.rows.set("expired", now + min(self._expires, 3600), self.cancelled)

    def _say_ringing(self, now: float) -> None:
        assert self.dialog is not None
        contact = [("Contact", self.endpoint.contact)]
        self.invite.respond(reply(self.invite.request, 180, to_tag=self.dialog.local.tag, fields=contact), now)
        self.rows.set("ring", now + RING_AGAIN, self._say_ringing)

    def pick_up(self, port: int, now: float) -> None:
        """The person answers; `port` is where our media is wanted."""
        if self.state is not INCOMING or self.dialog is None:
            return
        self.rows.cancel("ring", "no answer", "expired")
        request, talk = self.invite.request, self.negotiate(port)
        try:
            body = talk.answer(request) if request.body else talk.offer()
        except RemoteProtocolError as error:
            self._refuse(error.status, now, f"{self.name}'s phone and this one have no sound format in common")
            return
        self.dialog.confirm()
        self.accept(self.invite, body, now)
        self.change(ACCEPT, now, f"Talking with {self.name}", 200)

    def decline(self, now: float) -> None:
        if self.state is INCOMING:
            self._refuse(603, now, "You declined the call", LEAVE)

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
            self._refuse(487, now, f"Missed call from {self.name}", GONE)

    def _on_nobody_here(self, now: float) -> None:
        self._refuse(480, now, f"Missed call from {self.name}", GONE)

    def gone(self, now: float, sentence: str) -> None:
        if self.state is INCOMING:
            self.cancelled(now)  # a BYE before the answer: RFC 3261 15.1.2 wants the INVITE answered with 487
        else:
            super().gone(now, sentence)

    def _refuse(self, status: int, now: float, sentence: str, event: CallEvent = REFUSE) -> None:
        assert self.dialog is not None
        self.rows.clear()
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
