"""Serial forking: the bindings of a user are tried one after the other (RFC 3261 16.6, 16.7).

Rules
- The best binding is tried first. The INVITE goes to the next one as well if the first gives no
  response at all, not even 100, for SILENCE_SECONDS, or if the forwarder says that nobody listens
  there (503; 408 of a proxy).
- The binding that responds first is the one that rings. What the others say later is answered
  here: a ringing one is cancelled, a refusal is acknowledged.
- The caller hears the failure once no binding is left. Every 2xx is passed on (16.7 step 5).

Theory of operation
- A Search record keeps the INVITE and the bindings that were tried. It is a timer, so the next
  binding is tried although the server that began has died.
- All attempts of a leg share its branch (`way`); a number behind a full stop tells them apart.

Trap: CANCEL and the ACK to a failure follow `Leg.target` and `Leg.attempt`, so whenever the ringing
binding changes, the call's leg is saved with the search (`_aimed`).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from sip.grammar import is_number
from sip.message import Request, Response, parse
from sip.uri import Uri
from slee_mock.container.events import Outcome, RequestEvent, Send
from slee_mock.services.bindings_record import Bindings, address_of_record
from slee_mock.services.call_dialogs import with_leg
from slee_mock.services.call_record import Call, Leg, Search
from slee_mock.store.interface import Transaction
from slee_mock.store.records import Record, replace

SILENCE_SECONDS = 2.0  # without a response, after which the next binding is tried
# The binding's phone was not there: a proxy gave up, or its address refuses (RFC 3261 18.4).
NOBODY_THERE = (408, 503)
KEPT_SECONDS = 3600.0  # after which its record is purged; a search is over long before


class Forward(Protocol):
    def __call__(self, request: Request, target: str, *, attempt: int) -> Send: ...


class Verdict(NamedTuple):
    """The decision of a search on a response. `passes`: the caller is to hear it."""

    passes: bool = True
    call: Call | None = None  # as it is afterwards, if that differs
    writes: tuple[Record, ...] = ()
    sends: tuple[Send, ...] = ()


def numbered(way: str, attempt: int) -> str:
    """Makes the branch of an attempt: the leg's own for the first, with a number for the others."""
    return f"{way}.{attempt}" if attempt else way


def attempt_of(branch: str) -> tuple[str, int]:
    """Splits a branch into the leg's branch and the attempt's number."""
    way, _, number = branch.partition(".")
    return way, int(number) if is_number(number, 2) else 0


def is_old(search: Search, now: float) -> bool:
    return now - search.began > KEPT_SECONDS


class Searches:
    """Runs the searches. `forward(request, target, attempt)` makes the datagram of an attempt;
    `via` is this server's address."""

    def __init__(self, forward: Forward, via: str) -> None:
        self._forward, self._via = forward, via

    def begun(self, event: RequestEvent, call_id: str, leg: Leg) -> Search:
        return Search(
            leg.way,
            call_id,
            event.time,
            event.request.to_bytes().decode("latin-1"),
            (leg.target,),
            (self._via,),
            next_at=event.time + SILENCE_SECONDS,
        )

    def timer(self, search: Search, transaction: Transaction, now: float) -> Outcome:
        """Tries the next binding: nobody has responded for SILENCE_SECONDS."""
        call = transaction.read(Call, search.call_id)
        ended = Outcome(writes=(replace(search, next_at=None),), consumed=True, log_text="timer")
        if call is None or call.over or call.given_up or call.confirmed or search.heard >= 0:
            return ended
        return self._next(search, call, transaction, now) or ended

    def response(
        self,
        call: Call,
        search: Search,
        attempt: int,
        response: Response,
        transaction: Transaction,
        now: float,
    ) -> Verdict:
        """Decides on a response to the attempt of this number."""
        attempt = min(attempt, len(search.tried) - 1)
        is_heard, is_final = search.heard in (-1, attempt), response.status >= 300
        is_open = not (call.over or call.confirmed or call.given_up)
        if is_heard and response.status in NOBODY_THERE and is_open:
            follow = self._failed(call, search, attempt, transaction, now)
            if follow:
                sends = (self._ask(search, attempt, "ACK", response), *follow.sends)
                return Verdict(False, None, follow.writes, sends)
        if is_heard:
            verdict = self._heard(call, search, attempt)
            if search.heard < 0 and call.given_up and response.status < 200:
                return verdict._replace(sends=(self._ask(search, attempt, "CANCEL"),))
            return verdict
        if is_final:
            return Verdict(False, sends=(self._ask(search, attempt, "ACK", response),))
        if response.status < 200:
            return Verdict(False, sends=(self._ask(search, attempt, "CANCEL"),))
        verdict = self._heard(call, search, attempt)
        if call.confirmed:
            return Verdict()
        return verdict._replace(sends=(self._ask(search, search.heard, "CANCEL"),))

    def stopped(self, search: Search | None) -> tuple[Record, ...]:
        """Ends the search: no further binding is tried. Returns the records to save."""
        if search is None or search.next_at is None:
            return ()
        return (replace(search, next_at=None),)

    def _heard(self, call: Call, search: Search, attempt: int) -> Verdict:
        """Makes this attempt the one that rings: CANCEL and ACK go there from now on."""
        known = replace(search, heard=attempt, next_at=None)
        updated = _aimed(call, search, attempt)
        writes: tuple[Record, ...] = () if known == search else (known,)
        return Verdict(True, None if updated == call else updated, writes)

    def _failed(
        self, call: Call, search: Search, attempt: int, transaction: Transaction, now: float
    ) -> Outcome | None:
        """Tries the next binding, as nobody is at this one. If there is none, a phone that has
        not responded yet may still answer (RFC 3261 16.7 step 5). None: nobody is left."""
        failed = (*(each for each in search.failed if each != attempt), attempt)
        known = replace(search, heard=-1, failed=failed)
        follow = self._next(known, call, transaction, now)
        silent = [each for each in range(len(search.tried)) if each not in failed]
        if follow or search.heard >= 0 or not silent:
            return follow
        # CANCEL, and the INVITE once more, are for the newest of them.
        writes = (replace(known, next_at=None), _aimed(call, known, silent[-1]))
        return Outcome(writes=writes, consumed=True)

    def _next(
        self, search: Search, call: Call, transaction: Transaction, now: float
    ) -> Outcome | None:
        request = _restored(search)
        bindings = transaction.read(Bindings, address_of_record(Uri.parse(request.uri)))
        live = bindings.live(now) if bindings else []
        target = next((each.contact for each in live if each.contact not in search.tried), "")
        if not target:
            return None
        attempt = len(search.tried)
        tried, by = (*search.tried, target), (*search.by, self._via)
        known = replace(search, tried=tried, by=by, next_at=now + SILENCE_SECONDS)
        writes = (known, _aimed(call, known, attempt))
        send = self._forward(request, target, attempt=attempt)
        return Outcome(
            writes=writes, sends=(send,), consumed=True, log_text=f"nobody answers, -> {target}"
        )

    def _ask(
        self, search: Search, attempt: int, method: str, response: Response | None = None
    ) -> Send:
        """Makes the CANCEL, or the ACK to a failure, of one attempt's INVITE (RFC 3261 9.1,
        17.1.1.3)."""
        request = _restored(search)
        branch = numbered(search.way, attempt)
        made = Request(
            method,
            search.tried[attempt],
            [
                ("Via", f"SIP/2.0/UDP {search.by[attempt]};branch={branch}"),
                ("Max-Forwards", "70"),
                ("From", request.get("From") or ""),
                ("To", (response or request).get("To") or ""),
                ("Call-ID", request.call_id),
                ("CSeq", f"{request.cseq.number} {method}"),
            ],
        )
        return Send(made.to_bytes())


def _aimed(call: Call, search: Search, attempt: int) -> Call:
    """Returns the call with this attempt's contact as the target of its leg."""
    leg = replace(call.leg(search.way), target=search.tried[attempt], attempt=attempt)
    return with_leg(call, leg)


def _restored(search: Search) -> Request:
    request = parse(search.request.encode("latin-1"), in_passing=True)
    assert isinstance(request, Request)
    return request
