"""A call: the states a person sees, and what happens within its dialog whichever side began it.

`outgoing` and `incoming` add how the two kinds begin. The table is what the person sees; every state has an entry
for every event. Who repeats what is the transactions' business, except for the 2xx to an INVITE and its ACK, which
RFC 3261 13.2.2.4 and 13.3.1.4 leave to this level.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from urllib.parse import unquote

from sip import sdp
from sip.dialog import Dialog, next_hop
from sip.errors import RemoteProtocolError
from sip.header import NameAddr
from sip.message import Request, Response, reply
from sip.transaction import T1, T2
from softphone.agent.account import ALLOW, Address
from softphone.agent.endpoint import PATIENCE, Endpoint, Exchange, Incoming
from softphone.agent.event import CallChanged, CallState, CallView, Direction, ProbeAnswered
from softphone.agent.negotiation import CONTENT_TYPE, Negotiation
from softphone.agent.rows import Rows
from softphone.agent.sentence import begin, legible

CALLING, RINGING, INCOMING = CallState.CALLING, CallState.RINGING, CallState.INCOMING
TALKING, ENDING, ENDED = CallState.TALKING, CallState.ENDING, CallState.ENDED


class CallEvent(str, Enum):
    RING = "their phone rings"
    ACCEPT = "a 2xx to the INVITE, theirs or ours"
    REFUSE = "a failure to the INVITE, theirs or ours"
    LEAVE = "our person hangs up"
    GONE = "it is over: BYE, CANCEL, or nobody answers any more"


RING, ACCEPT, REFUSE, LEAVE, GONE = CallEvent

CALL: dict[CallState, dict[CallEvent, CallState]] = {
    CALLING: {RING: RINGING, ACCEPT: TALKING, REFUSE: ENDED, LEAVE: ENDING, GONE: ENDED},
    RINGING: {RING: RINGING, ACCEPT: TALKING, REFUSE: ENDED, LEAVE: ENDING, GONE: ENDED},
    INCOMING: {RING: INCOMING, ACCEPT: TALKING, REFUSE: ENDED, LEAVE: ENDED, GONE: ENDED},
    TALKING: {RING: TALKING, ACCEPT: TALKING, REFUSE: TALKING, LEAVE: ENDING, GONE: ENDED},
    # A CANCEL can cross the 200 (RFC 3261 9.1): the call is then accepted, and left with a BYE.
    ENDING: {RING: ENDING, ACCEPT: ENDING, REFUSE: ENDED, LEAVE: ENDING, GONE: ENDED},
    ENDED: {RING: ENDED, ACCEPT: ENDED, REFUSE: ENDED, LEAVE: ENDED, GONE: ENDED},
}


class Call:
    """What both kinds have in common."""

    direction = Direction.OUTGOING

    def __init__(self, endpoint: Endpoint, state: CallState, call_id: str, peer: NameAddr, now: float) -> None:
        self.endpoint = endpoint
        self.reached_at = endpoint.local  # where the peer was reached, for a Contact that is a name
        self.state = state
        self.call_id = call_id
        self.name = legible(peer.display or unquote(peer.uri.user) or peer.uri.host)
        self.peer_uri = legible(str(peer.uri))
        self.sentence = ""
        self.since = now
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.status: int | None = None
        self.rows = Rows()
        self.dialog: Dialog | None = None
        self.negotiation: Negotiation | None = None
        self._modification: Exchange | None = None
        self._acks: dict[tuple[str, int], tuple[Request, Address]] = {}
        self._unacked: int | None = None  # CSeq of their INVITE whose 2xx waits for an ACK
        self._bye_waits = False

    # -- what is shown ----------------------------------------------------------------------------------------------

    @property
    def view(self) -> CallView:
        talk = self.negotiation
        return CallView(
            self.call_id, self.direction, self.name, self.peer_uri, self.state, self.sentence, self.since,
            self.answered_at, self.ended_at, talk is not None and talk.held_here, talk is not None and talk.held_there,
            self.status, talk.plan if talk else None,
        )  # fmt: skip

    def change(self, event: CallEvent, now: float, sentence: str, status: int | None = None) -> None:
        """Walk the table and tell. What is over stays as it ended."""
        if self.state is ENDED:
            return
        state = CALL[self.state][event]
        if state is not self.state:
            self.state, self.since = state, now
            if state is TALKING:
                self.answered_at = now
            elif state in (ENDING, ENDED) and self.ended_at is None:
                self.ended_at = now
        self.sentence, self.status = begin(sentence), status or self.status
        if state is ENDED:
            self.rows.cancel("glare", "ring", "no answer")
        self.tell(now)

    def tell(self, now: float) -> None:
        self.endpoint.emit(CallChanged(now, self.view))

    def tell_talk(self, now: float, remark: str = "") -> None:
        """The sentence of a call in progress."""
        view = self.view
        if view.held_here:
            text = f"{self.name} is on hold"
        elif view.held_there:
            text = f"{self.name} has put the call on hold"
        else:
            text = f"Talking with {self.name}"
        self.change(ACCEPT, now, f"{text}; {remark}" if remark else text)

    def negotiate(self, port: int) -> Negotiation:
        if self.negotiation is None:
            self.negotiation = Negotiation(self.endpoint.local[0], port, self.endpoint.random.getrandbits(31))
        return self.negotiation

    # -- wishes of the person ---------------------------------------------------------------------------------------

    def hang_up(self, now: float) -> None:
        if self.state is TALKING:
            self.change(LEAVE, now, "Hanging up ...")
            self.leave(now)

    def hold(self, on: bool, now: float) -> None:
        """Put the other side on hold, or take it back. A wish while the last one is under way is not taken."""
        talk = self.negotiation
        busy = self._modification is not None or self._awaits_late_answer
        if self.state is TALKING and talk and talk.held_here is not on and not busy:
            self.rows.cancel("glare")
            self._modify(on, now)

    def probe(self, now: float) -> None:
        """OPTIONS within the dialog: is the path alive? Its answer comes as ProbeAnswered."""
        if self.state is not TALKING or self.dialog is None:
            return

        def answered(exchange: Exchange, response: Response | None, later: float) -> None:
            status = 408 if response is None else response.status
            if status >= 200:
                self.endpoint.emit(ProbeAnswered(later, self.call_id, now, status))
            if status == 481:  # RFC 3261 12.2.1.2; silence ends no call here, for its sound may well go on
                self.change(GONE, later, f"The call with {self.name} was lost", status)

        self._ask("OPTIONS", answered, now)

    # -- requests of ours within the dialog -------------------------------------------------------------------------

    def _ask(self, method: str, handler: Callable[[Exchange, Response | None, float], None], now: float,
             fields: tuple[tuple[str, str], ...] = (), body: bytes = b"") -> Exchange:  # fmt: skip
        assert self.dialog is not None
        contact = (("Contact", self.endpoint.contact),) if method == "INVITE" else ()
        request = self.dialog.request(method, [*contact, *fields], body)
        exchange = Exchange(request, self.reached_at, handler, self.dialog.next_seq)
        return self.endpoint.ask_within(exchange, now)

    def leave(self, now: float) -> None:
        """BYE; the called side waits with it until its 2xx is acknowledged (RFC 3261 15)."""
        self._bye_waits = self._unacked is not None
        if not self._bye_waits and self.dialog is not None:
            self._ask("BYE", self._on_bye_answered, now)

    def _on_bye_answered(self, exchange: Exchange, response: Response | None, now: float) -> None:
        if response is None or response.status >= 200:
            # Also 481 and silence: whatever they say, it is over (RFC 3261 15.1.1).
            self.change(GONE, now, "You hung up")

    def _modify(self, hold: bool, now: float) -> None:
        assert self.negotiation is not None
        body = self.negotiation.offer(hold)

        def answered(exchange: Exchange, response: Response | None, later: float) -> None:
            self._on_modified(exchange, response, hold, later)

        self._modification = self._ask("INVITE", answered, now, (ALLOW, CONTENT_TYPE), body)

    def _on_modified(self, exchange: Exchange, response: Response | None, hold: bool, now: float) -> None:
        status = 408 if response is None else response.status
        if status < 200:
            return
        if response is not None and status < 300 and not self.acknowledge(exchange.request, response, now):
            return  # a repeated 2xx
        self._modification = None
        if self.state is not TALKING or self.negotiation is None or self.dialog is None:
            return
        if response is not None and status < 300:
            self._agree_anew(response, now)
            return
        self.negotiation.withdraw()
        if status == 491:
            # RFC 3261 14.1: who made the Call-ID waits longer, so that the two do not collide again.
            longer = self.direction is Direction.OUTGOING
            pause = self.endpoint.random.uniform(2.1, 4.0) if longer else self.endpoint.random.uniform(0.0, 2.0)
            self.rows.set("glare", now + pause, lambda later: self.hold(hold, later))
        elif status in (408, 481):
            self._lost(now, status)
        else:
            self.tell_talk(now, f"{self.name}'s phone does not agree to {'hold' if hold else 'go on'}")

    def _agree_anew(self, response: Response, now: float) -> None:
        assert self.negotiation is not None and self.dialog is not None
        try:
            self.negotiation.take_answer(response)
            self.dialog.refresh_target(response)  # a Contact that cannot be read leaves the one we know
        except RemoteProtocolError:
            self.negotiation.withdraw()
        self.tell_talk(now)

    def _lost(self, now: float, status: int) -> None:
        """RFC 3261 12.2.1.2: a dialog that answers 481, or not at all, is over. The BYE is for a peer gone deaf."""
        if status != 481:
            self.leave(now)
        self.change(GONE, now, f"The call with {self.name} was lost", status)

    def acknowledge(self, request: Request, response: Response, now: float, body: bytes = b"") -> bool:
        """ACK a 2xx to an INVITE of ours; False if this one only repeats a 2xx that was acknowledged before."""
        key = (response.to.tag, request.cseq.number)
        known = self._acks.get(key)
        if known is None:
            assert self.dialog is not None
            self._acks[key] = self.ack_for(self.dialog, request, now, body)
            return True
        self.endpoint.send(*known, now, repeated=True)
        return False

    def ack_for(self, dialog: Dialog, request: Request, now: float, body: bytes = b"") -> tuple[Request, Address]:
        """Send the ACK; RFC 3261 13.2.2.4 has it carry the INVITE's credentials."""
        kept = [(f.name, f.value) for f in request.fields if f.name in ("Authorization", "Proxy-Authorization")]
        ack = dialog.request("ACK", [*kept, *([CONTENT_TYPE] if body else [])], body, seq=request.cseq.number)
        destination = self.endpoint.address_of(next_hop(ack), self.reached_at)
        self.endpoint.send(ack, destination, now)
        return ack, destination

    # -- requests of theirs within the dialog -----------------------------------------------------------------------

    def owns(self, request: Request) -> bool:
        return self.dialog is not None and self.dialog.id == (request.call_id, request.to.tag, request.from_.tag)

    def take(self, incoming: Incoming, now: float) -> None:
        """A request within our dialog, neither ACK nor CANCEL."""
        assert self.dialog is not None
        request = incoming.request
        self.dialog.take(request)
        if request.method == "BYE":
            incoming.answer(200, now)
            self.gone(now, f"{self.name} hung up")
        elif request.method == "OPTIONS":
            incoming.answer(200, now, ALLOW, ("Accept", sdp.CONTENT_TYPE))
        elif request.method == "INVITE":
            self._take_offer(incoming, now)
        else:
            incoming.answer(405, now, ALLOW)

    def gone(self, now: float, sentence: str) -> None:
        """They ended it."""
        self.rows.clear()
        self._bye_waits, self._unacked = False, None
        self.change(GONE, now, "You hung up" if self.state is ENDING else sentence)

    def _take_offer(self, incoming: Incoming, now: float) -> None:
        talk = self.negotiation
        if self.state is not TALKING or talk is None:
            incoming.answer(481 if self.state in (ENDING, ENDED) else 491, now)
        elif self._modification is not None:
            incoming.answer(491, now)  # RFC 3261 14.2: ours is under way
        elif self._awaits_late_answer:
            incoming.answer(500, now, ("Retry-After", str(round(self.endpoint.random.uniform(0, 10)))))
        else:
            try:
                body = talk.answer(incoming.request) if incoming.request.body else talk.offer(talk.held_here)
            except RemoteProtocolError as error:
                incoming.answer(error.status, now)
                return
            self.accept(incoming, body, now)
            self.tell_talk(now)

    def accept(self, incoming: Incoming, body: bytes, now: float) -> None:
        """200 to their INVITE, repeated until the ACK comes (RFC 3261 13.3.1.4)."""
        assert self.dialog is not None
        fields = [("Contact", self.endpoint.contact), ALLOW, CONTENT_TYPE]
        response = reply(incoming.request, 200, to_tag=self.dialog.local.tag, fields=fields, body=body)
        incoming.respond(response, now)
        self._unacked = incoming.request.cseq.number
        self._await_ack(incoming, response, T1, now)
        self.rows.set("no ACK", now + PATIENCE, self._on_no_ack)

    def _await_ack(self, incoming: Incoming, response: Response, interval: float, now: float) -> None:
        def repeat(later: float) -> None:
            self.endpoint.repeat(response, incoming.destination, later)
            self._await_ack(incoming, response, min(2 * interval, T2), later)

        self.rows.set("repeat 2xx", now + interval, repeat)

    def _on_no_ack(self, now: float) -> None:
        self.rows.cancel("repeat 2xx")
        self._unacked = None
        self.leave(now)
        self.change(GONE, now, f"The call with {self.name} was never confirmed", 408)

    @property
    def _awaits_late_answer(self) -> bool:
        """Our 2xx made the offer, so the ACK brings the answer. What an INVITE of ours offers is another matter."""
        talk = self.negotiation
        is_ours = self._unacked is not None and self._modification is None
        return is_ours and talk is not None and talk.awaits_answer

    def take_ack(self, request: Request, now: float) -> None:
        """The ACK to a 2xx of ours; with a late offer it brings their answer."""
        if request.cseq.number != self._unacked:
            return
        brings_answer = self._awaits_late_answer
        self._unacked = None
        self.rows.cancel("repeat 2xx", "no ACK")
        if self.negotiation is not None and brings_answer:
            try:
                self.negotiation.take_answer(request)
            except RemoteProtocolError:
                self.negotiation.withdraw()
                if self.negotiation.plan is None and self.state is TALKING:
                    self.leave(now)
                    self.change(GONE, now, f"{self.name}'s phone and this one have no sound format in common", 488)
                    return
            if self.state is TALKING:
                self.tell_talk(now)
        if self._bye_waits:
            self.leave(now)
