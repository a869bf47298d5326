"""The part of a call that a person sees: its state and sentence, and the step from one to the next,
for which every state has an entry for every input."""

from __future__ import annotations

from enum import Enum
from urllib.parse import unquote

from sip.dialog import Dialog
from sip.header import NameAddr
from sip.message import Request
from softphone.ua import user_messages
from softphone.ua.events import CallChanged, CallState, CallView, Direction
from softphone.ua.offer_answer import OfferAnswer
from softphone.ua.timers import NamedTimers
from softphone.ua.transaction_layer import TransactionLayer
from softphone.ua.user_messages import begin, legible

CALLING, RINGING, INCOMING = CallState.CALLING, CallState.RINGING, CallState.INCOMING
TALKING, ENDING, ENDED = CallState.TALKING, CallState.ENDING, CallState.ENDED


class CallInput(str, Enum):
    RING = "their phone rings"
    ACCEPT = "a 2xx to the INVITE, theirs or ours"
    REFUSE = "a failure to the INVITE, theirs or ours"
    LEAVE = "our person hangs up"
    GONE = "it is over: BYE, CANCEL, or nobody answers any more"


RING, ACCEPT, REFUSE, LEAVE, GONE = CallInput

CALL_TRANSITIONS: dict[CallState, dict[CallInput, CallState]] = {
    CALLING: {RING: RINGING, ACCEPT: TALKING, REFUSE: ENDED, LEAVE: ENDING, GONE: ENDED},
    RINGING: {RING: RINGING, ACCEPT: TALKING, REFUSE: ENDED, LEAVE: ENDING, GONE: ENDED},
    INCOMING: {RING: INCOMING, ACCEPT: TALKING, REFUSE: ENDED, LEAVE: ENDED, GONE: ENDED},
    TALKING: {RING: TALKING, ACCEPT: TALKING, REFUSE: TALKING, LEAVE: ENDING, GONE: ENDED},
    # A CANCEL can cross the 200 (RFC 3261 9.1): the call is then accepted, and left with a BYE.
    ENDING: {RING: ENDING, ACCEPT: ENDING, REFUSE: ENDED, LEAVE: ENDING, GONE: ENDED},
    ENDED: {RING: ENDED, ACCEPT: ENDED, REFUSE: ENDED, LEAVE: ENDED, GONE: ENDED},
}


class ShownCall:
    """The part of every call that is shown. What happens in its dialog stands in `call`."""

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
                self.stop_timers()
        self.sentence, self.status = begin(sentence), status or self.status
        if state is ENDED:
            self.timers.cancel("glare", "ring", "no answer", "cancel")
        self.emit_changed(now)

    def stop_timers(self) -> None:
        """The call is over: nothing keeps it alive any more."""

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
        """No sound has come for so long, 0: it comes."""
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


def turned_away(layer: TransactionLayer, request: Request, now: float) -> CallView:
    """The ended call of somebody who was told 486 because another call was up."""
    call = ShownCall(layer, ENDED, request.call_id, request.from_, now)
    call.direction, call.since, call.ended_at, call.status = Direction.INCOMING, now, now, 486
    call.sentence = begin(user_messages.CALLED_WHILE_BUSY.format(name=call.name))
    return call.view
