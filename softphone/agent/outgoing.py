"""A call that we place: INVITE, its answers, CANCEL and the 200 that crosses it, forks (RFC 3261 13.2, 9.1)."""

from __future__ import annotations

from sip.dialog import MAX_FORWARDS, Dialog
from sip.errors import LocalProtocolError, RemoteProtocolError
from sip.header import NameAddr
from sip.message import Request, Response
from sip.uri import Uri
from softphone.agent.account import ALLOW
from softphone.agent.call import Call
from softphone.agent.endpoint import PATIENCE, Endpoint, Exchange
from softphone.agent.event import Direction
from softphone.agent.negotiation import CONTENT_TYPE
from softphone.agent.sentence import NO_ANSWER, name_of_callee, why_no_credentials, why_not_called
from softphone.agent.states import CALLING, ENDING, GONE, LEAVE, REFUSE, RING, RINGING

LONGEST_RINGING = 180.0  # seconds until an unanswered call is given up
MOST_FORKS = 16  # phones that ring or answer for one call; real proxies stop sooner
TELL_AFTER = 2  # repeats of the INVITE without any answer, 1.5 s


class OutgoingCall(Call):
    direction = Direction.OUTGOING

    def __init__(self, endpoint: Endpoint, target: Uri, now: float) -> None:
        super().__init__(endpoint, CALLING, endpoint.new_token(), NameAddr(target), now)
        self._target = target
        self._tag = endpoint.new_token()
        self._seq = 0
        self._early: dict[str, Dialog] = {}
        self._others: dict[str, Dialog] = {}  # forks that answered second, each acknowledged and left
        self._exchange: Exchange | None = None
        self._cancelled = False
        self._reason_to_leave = "You hung up"

    def place(self, port: int, now: float) -> None:
        """Send the INVITE; `port` is where our media is wanted."""
        endpoint = self.endpoint
        self.sentence = f"Calling {self.name} ..."
        self.tell(now)
        try:
            self.reached_at = endpoint.proxy or endpoint.address_of(self._target)
        except LocalProtocolError:
            self.change(GONE, now, f"{self._target.host} cannot be found without a server")
            return
        self._invite(self.negotiate(port).offer(), now)

    def _invite(self, body: bytes, now: float) -> None:
        endpoint, account = self.endpoint, self.endpoint.account
        fields = [MAX_FORWARDS, ("From", str(account.name_addr.with_tag(self._tag))), ("To", f"<{self._target}>")]
        fields += [("Call-ID", self.call_id), ("CSeq", f"{self._next_seq()} INVITE")]
        fields += [("Contact", endpoint.contact), ALLOW, *self.timer.request_fields(), CONTENT_TYPE]
        request = Request("INVITE", str(self._target), fields, body)
        self._exchange = Exchange(request, self.reached_at, self._on_response, self._next_seq, self._on_repeat)
        endpoint.ask(self._exchange, now)

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    # -- leaving before the answer ----------------------------------------------------------------------------------

    def hang_up(self, now: float) -> None:
        if self.state in (CALLING, RINGING):
            self.change(LEAVE, now, "Hanging up ...")
            self._cancel(now)
        else:
            super().hang_up(now)

    def _cancel(self, now: float) -> None:
        """RFC 3261 9.1: not before a provisional response came; until then the wish waits."""
        exchange = self._exchange
        if exchange and exchange.transaction and exchange.transaction.may_cancel and not self._cancelled:
            self._cancelled = True
            self.endpoint.cancel(exchange, now)
            self.rows.set("no answer", now + PATIENCE, self._on_no_final)

    def _on_no_final(self, now: float) -> None:
        # RFC 3261 9.1: 64*T1 after the CANCEL the INVITE counts as cancelled, answer or not.
        if self._exchange is not None:
            self.endpoint.abandon(self._exchange)
        self.change(GONE, now, self._reason_to_leave)

    def _on_nobody_there(self, now: float) -> None:
        self._reason_to_leave = f"{self.name} does not answer"
        self.hang_up(now)

    # -- answers ----------------------------------------------------------------------------------------------------

    def _on_repeat(self, exchange: Exchange, now: float) -> None:
        if self.state is CALLING and exchange.unanswered == TELL_AFTER:
            self.sentence = f"Calling {self.name} ... no answer yet"
            self.tell(now)

    def _on_response(self, exchange: Exchange, response: Response | None, now: float) -> None:
        if response is None:
            # A stateless proxy says nothing of its own (RFC 3261 16.11): the phone behind it may be the silent one.
            silence = f"Nobody answers: neither a server nor {self.name}'s phone"
            sentence = self._reason_to_leave if self.state is ENDING else silence
            self.change(REFUSE, now, sentence, NO_ANSWER)
        elif response.status < 200:
            self._on_provisional(exchange, response, now)
        elif response.status < 300:
            try:
                self._on_success(exchange, response, now)
            except RemoteProtocolError:  # no Contact that could be sent an ACK, say
                self.change(GONE, now, f"{self.name}'s phone gave an answer that makes no sense", 400)
        elif response.status == 422 and self.state in (CALLING, RINGING) and self.timer.lengthen(response):
            self._invite(exchange.request.body, now)
        else:
            self.change(REFUSE, now, self._failure(response.status, response.reason), response.status)

    def _failure(self, status: int, reason: str) -> str:
        if self.state is ENDING:
            return self._reason_to_leave
        if status in (401, 407):
            return why_no_credentials(self.endpoint.account.user, self.endpoint.account.password)
        return why_not_called(status, self.name, reason)

    def _on_provisional(self, exchange: Exchange, response: Response, now: float) -> None:
        tag = response.to.tag
        self._learn_name(response)
        if response.status > 100 and tag and tag not in self._early and len(self._early) < MOST_FORKS:
            self._early[tag] = Dialog.uac(exchange.request, response)
        if self.state is ENDING:
            self._cancel(now)
            return
        if self.state not in (CALLING, RINGING):
            return
        early = self._preview(response)
        if response.status == 180:
            self.change(RING, now, f"Ringing at {self.name} ...", response.status)
        elif early:
            self.tell(now)
        self.rows.set("ring", now + LONGEST_RINGING, self._on_nobody_there)

    def _learn_name(self, response: Response) -> None:
        """Whom we called by an address has a name."""
        self.name = name_of_callee(response) or self.name

    def _preview(self, response: Response) -> bool:
        """Sound before the answer: an announcement, or a ring tone made by the network."""
        if not response.body or self.negotiation is None:
            return False
        try:
            self.negotiation.take_answer(response, preview=True)
        except RemoteProtocolError:
            return False
        return True

    def _on_success(self, exchange: Exchange, response: Response, now: float) -> None:
        tag = response.to.tag
        self.rows.cancel("ring", "no answer")
        if self.dialog is not None and tag != self.dialog.remote.tag:
            self._leave_fork(exchange, response, now)
            return
        if self.dialog is None:
            self.dialog = self._early.get(tag) or Dialog.uac(exchange.request, response)
            self.dialog.confirm(response)
            self.dialog.local_seq = max(self.dialog.local_seq, exchange.request.cseq.number)
        if not self.acknowledge(exchange.request, response, now):
            return
        self._learn_name(response)
        if self.state is ENDING:
            self.leave(now)
            return
        self.timer.agreed(response, now)
        try:
            self._agree(response)
        except RemoteProtocolError:
            self.leave(now)
            self.change(GONE, now, why_not_called(488, self.name), 488)
            return
        self.status = response.status
        self.tell_talk(now)

    def _agree(self, response: Response) -> None:
        """Their answer; if it already came with a provisional response, the 2xx may do without (RFC 6337 3.1.1)."""
        assert self.negotiation is not None
        if response.body or self.negotiation.plan is None:
            self.negotiation.take_answer(response)
        else:
            self.negotiation.settle()

    def _leave_fork(self, exchange: Exchange, response: Response, now: float) -> None:
        """RFC 3261 13.2.2.4: a second phone answered too; it is acknowledged, and left at once."""
        tag = response.to.tag
        if tag in self._others:
            self.ack_for(self._others[tag], exchange.request, now)
            return
        if len(self._others) >= MOST_FORKS:
            return
        other = Dialog.uac(exchange.request, response)
        self._others[tag] = other
        self.ack_for(other, exchange.request, now)
        bye = Exchange(other.request("BYE"), self.reached_at, lambda *_: None, other.next_seq)
        self.endpoint.ask_within(bye, now)

    # -- their requests before the answer ---------------------------------------------------------------------------

    def owns(self, request: Request) -> bool:
        if self.dialog is None and request.method == "BYE":
            # The 2xx was lost, its repeats too, and they give up on the dialog that only their 180 told us of.
            early = self._early.get(request.from_.tag)
            if early is not None and early.id == (request.call_id, request.to.tag, request.from_.tag):
                self.dialog = early
        return super().owns(request)
