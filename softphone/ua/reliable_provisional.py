"""Provisional responses that are acknowledged (RFC 3262): PRACK, RSeq, RAck, the option tag 100rel.

Ours are sent that way only to a caller who requires it. Each is repeated from T1 on, twice as long
after each time, until its PRACK comes; the next waits for that. Theirs are acknowledged in their
order, and each is taken up once.
"""

from __future__ import annotations

from copy import copy

from sip.dialog import Dialog
from sip.errors import RemoteProtocolError
from sip.grammar import is_number
from sip.message import Message, Request, Response
from sip.timing import PATIENCE, T1
from softphone.ua.offer_answer import OfferAnswer
from softphone.ua.timers import Action, NamedTimers
from softphone.ua.transaction_layer import ServerRequest, TransactionLayer

OPTION = "100rel"
# A line of its own: some peers compare the whole value with "timer"
RELIABLE = ("Supported", OPTION)
LARGEST = 2**31 - 1  # of an RSeq (RFC 3262 7.1)


def requires(message: Message) -> bool:
    """Is 100rel in its Require?"""
    return any(option.lower() == OPTION for option in message.values("Require"))


def rseq_of(response: Response) -> int | None:
    """The number of a provisional response that is to be acknowledged; None if it is not. 100 never
    is."""
    if response.status == 100 or not requires(response):
        return None
    text = (response.get("RSeq") or "").strip()
    return int(text) if is_number(text, 10) and 0 < int(text) <= LARGEST else None


class EarlyDialog:
    """One phone that rings for a call of ours, and what was agreed with it. `updated`: by an UPDATE
    since, so that what its 2xx repeats is out of date."""

    def __init__(self, dialog: Dialog, negotiation: OfferAnswer) -> None:
        self.dialog = dialog
        self.negotiation = copy(negotiation)  # what one fork answers is nothing to the others
        self.updated = False
        self._rseq: int | None = None

    def is_next(self, rseq: int) -> bool:
        """Is it the one to take up now? What was taken up before is not, and neither what comes
        before its turn."""
        if self._rseq is not None and rseq != self._rseq + 1:
            return False
        self._rseq = rseq
        return True


class ReliableProvisionals:
    """Those that we send in answer to one INVITE. `on_unheard` is called when no PRACK came for
    64*T1."""

    def __init__(
        self,
        layer: TransactionLayer,
        timers: NamedTimers,
        invite: ServerRequest,
        on_unheard: Action,
    ) -> None:
        self._layer, self._timers, self._invite = layer, timers, invite
        self._on_unheard = on_unheard
        # RFC 3262 3: the first is chosen at random, below 2**31
        self._rseq = layer.random.getrandbits(30)
        self._unheard: Response | None = None
        self.told_session = False  # with a description of ours in it

    @property
    def waits(self) -> bool:
        """Is one of them unacknowledged?"""
        return self._unheard is not None

    def send(self, response: Response, now: float) -> None:
        """The next one; while another waits for its PRACK there is no next (RFC 3262 3)."""
        if self.waits:
            return
        self._rseq += 1
        response.add("Require", OPTION)
        response.add("RSeq", str(self._rseq))
        self._unheard = response
        self.told_session = self.told_session or bool(response.body)
        self._invite.respond(response, now)

        def repeat(later: float) -> None:
            self._layer.repeat(response, self._invite.destination, later)

        # RFC 3262 3: without the cap that a 2xx has
        self._timers.repeat("repeat 1xx", T1, PATIENCE, repeat, now)
        self._timers.set("no PRACK", now + PATIENCE, self._give_up)

    def is_acknowledged(self, prack: Request) -> bool:
        """Does it acknowledge the one that waits? RemoteProtocolError (400) if its RAck cannot be
        read."""
        parts = (prack.get("RAck") or "").split()
        if len(parts) != 3 or not all(is_number(part, 10) for part in parts[:2]):
            raise RemoteProtocolError("PRACK without a RAck that can be read")
        expected = self._rseq, self._invite.request.cseq.number, "INVITE"
        if not self.waits or (int(parts[0]), int(parts[1]), parts[2]) != expected:
            return False
        self._unheard = None
        self.stop_repeating()
        return True

    def stop_repeating(self) -> None:
        """A final response ends that, though its PRACK may still come."""
        self._timers.cancel("repeat 1xx", "no PRACK")

    def _give_up(self, now: float) -> None:
        self._timers.cancel("repeat 1xx")
        self._on_unheard(now)
