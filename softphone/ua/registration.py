"""The registration: REGISTER, refreshed well before it expires, and tried again for ever when no
server answers.

What trying again may soon change is listed in TRANSIENT; every other failure is REFUSED, with a
sentence. A server may come to other terms, so a refused phone asks again after minutes; but a
password that is wrong or missing stays so, and asking again would only lock the account. Silence
ends nothing: the person is told, and the phone goes on trying.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from sip.dialog import MAX_FORWARDS
from sip.errors import RemoteProtocolError
from sip.grammar import is_number
from sip.header import NameAddr
from sip.message import Request, Response
from sip.uri import Uri
from softphone.ua import user_messages
from softphone.ua.account import ALLOW, Account, Address
from softphone.ua.client_request import ClientRequest
from softphone.ua.events import RegistrationChanged, RegistrationState
from softphone.ua.optional_fields import listed, retry_after, seen_address
from softphone.ua.timers import Action, NamedTimers
from softphone.ua.transaction_layer import TransactionLayer
from softphone.ua.user_messages import (
    name_of_server,
    registered,
    trying_again,
    why_no_credentials,
    why_not_registered,
)

UNREGISTERED, REGISTERING, REGISTERED, REFUSED, UNREACHABLE = RegistrationState

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 32.0  # seconds between attempts, doubling
REFUSED_PAUSE, LONGEST_REFUSED_PAUSE = 60.0, 600.0  # seconds, doubling
TELL_AFTER = 2  # repeats without an answer, 1.5 s, before the person is told
# Not the account's fault, so worth another try: silence, overload, a server in trouble (RFC 3261
# 21.4.9, 21.5).
TRANSIENT = (408, 480, 500, 502, 503, 504)


class Registration:
    """One binding of the account to this phone's contact."""

    def __init__(self, layer: TransactionLayer, expires: int) -> None:
        self._layer = layer
        self._wanted_expires = expires
        self._asked_expires = expires
        self._call_id, self._tag = layer.new_token(), layer.new_token()
        self._next_seq = count(1).__next__  # of CSeq
        self._pause = FIRST_PAUSE
        self._refused_pause = REFUSED_PAUSE
        self._too_brief = 0
        self._registered_as: Address | None = None
        self._pending: ClientRequest | None = None
        self.timers = NamedTimers()
        self.on_accepted: Action = lambda now: None
        self.event = RegistrationChanged(0.0, UNREGISTERED, user_messages.NOT_REGISTERED)

    @property
    def _account(self) -> Account:
        return self._layer.account

    @property
    def state(self) -> RegistrationState:
        return self.event.state

    @property
    def at_rest(self) -> bool:
        return self._pending is None

    # -- commands ----------------------------------------------------------------------------------

    def register(self, now: float) -> None:
        """Register, or refresh now. Nothing is sent while an attempt is under way (RFC 3261 10.2);
        one that takes the binding back is followed by a new registration."""
        self.timers.clear()
        if self._pending is not None and self.state is not UNREGISTERED:
            return
        if self.state is not REGISTERED:
            sentence = user_messages.REGISTERING.format(name=self._account.username)
            self._become(REGISTERING, sentence, now)
        if self._pending is None:
            self._ask(self._asked_expires, now)

    def anew(self, now: float) -> None:
        """This computer's address or the time is another than it was: whatever is under way no
        longer counts."""
        if self.state is UNREGISTERED:
            return
        self._abandon()
        self.register(now)

    def unregister(self, now: float) -> None:
        """Take the binding back; without one there is nothing to say."""
        self.timers.clear()
        had = self._registered_as is not None or self.state is REGISTERING
        self._abandon()
        self._registered_as = None
        self._become(UNREGISTERED, user_messages.NOT_REGISTERED, now)
        if had:
            self._ask(0, now)

    def _abandon(self) -> None:
        """The REGISTER that is under way is of no interest any more."""
        if self._pending is not None:
            self._layer.abandon(self._pending)
            self._pending = None

    # -- asking ------------------------------------------------------------------------------------

    def _ask(self, expires: int, now: float) -> None:
        account, layer = self._account, self._layer
        registrar = Uri("sip", "", account.uri.host, account.uri.port)
        fields = [
            MAX_FORWARDS,
            ("From", str(account.name_addr.with_tag(self._tag))),
            ("To", str(account.name_addr)),
        ]
        fields += [("Call-ID", self._call_id), ("CSeq", f"{self._next_seq()} REGISTER")]
        contact = f"{account.contact(layer.public)};expires={expires}"
        fields += [("Contact", contact), ("Expires", str(expires)), ALLOW]
        if expires and self._registered_as not in (None, layer.public):
            assert self._registered_as is not None
            fields.append(("Contact", f"{account.contact(self._registered_as)};expires=0"))
        request = Request("REGISTER", str(registrar), fields)
        proofs = layer.credentials.sign(request)
        destination = layer.proxy or layer.address_of(registrar)
        exchange = ClientRequest(
            request, destination, self._on_response, self._next_seq, self._on_repeat, proofs=proofs
        )
        self._pending = exchange
        layer.ask(exchange, now)

    def _on_repeat(self, exchange: ClientRequest, now: float) -> None:
        """The request keeps going out as timer E has it; from the second repeat on the person knows
        why it is quiet."""
        if exchange.unanswered < TELL_AFTER or self.state is UNREGISTERED:
            return
        pause = (exchange.transaction.deadline or now) - now
        sentence = trying_again(pause, exchange.destination)
        self._become(UNREACHABLE, sentence, now)

    # -- answers -----------------------------------------------------------------------------------

    def _on_response(self, exchange: ClientRequest, response: Response, now: float) -> None:
        self._pending = None
        if exchange.request.get("Expires") == "0":  # the binding is taken back
            if self.state is not UNREGISTERED:
                self._ask(self._asked_expires, now)
            return
        status = response.status
        if status < 300:
            self._layer.answers_from = exchange.came_from
            self._accepted(response, now)
        elif status in (401, 407):
            wrong = why_no_credentials(self._account.username, self._account.password)
            self._refused(exchange.proofs.why_not or wrong, now, not exchange.proofs.why_not)
        elif status == 423 and self._lengthen(response):
            self._ask(self._asked_expires, now)
        elif status in TRANSIENT:
            self._try_again(exchange, response, now)
        else:
            why = why_not_registered(status, self._account.username, response.reason)
            self._refused(why, now)
            self.timers.set("refresh", now + self._refused_pause, self._refresh)
            self._refused_pause = min(2 * self._refused_pause, LONGEST_REFUSED_PAUSE)

    def _accepted(self, response: Response, now: float) -> None:
        used = self._layer.public
        self._pause, self._refused_pause, self._too_brief = FIRST_PAUSE, REFUSED_PAUSE, 0
        self._registered_as = used
        granted = self._granted(response)
        if granted <= 0:
            self._refused(user_messages.TAKEN_BACK, now)
            return
        # Half of the time leaves room for a whole transaction that fails (32 s) and another one.
        self.timers.set("refresh", now + max(1.0, granted / 2), self._refresh)
        server = name_of_server(response.get("Server") or "")
        sentence = registered(self._account.username, server)
        if (self.state, self.event.sentence) != (REGISTERED, sentence):
            self._become(REGISTERED, sentence, now, server=server)
        seen = seen_address(response)
        if seen is not None and seen != used:
            # Behind a NAT only the address that the other side sees reaches this phone (RFC 3581
            # 4).
            self._layer.public = seen
            pause = 0.0 if used == self._layer.local else granted / 2
            self.timers.set("refresh", now + pause, self._refresh)
        self.on_accepted(now)

    def _granted(self, response: Response) -> int:
        """Seconds until our binding ends: its own expires, else the header's, else what was asked
        (RFC 3261 10.2.4).

        A registrar, or something before it, may write our Contact anew. Then ours is the one at our
        address or with our name, and if none is it may be any of them: the one that ends first is
        soon enough for all.
        """
        try:
            whole = response.expires
        except RemoteProtocolError:
            whole = None
        asked = self._asked_expires if whole is None else whole
        bindings = [
            binding
            for value in listed(response, "Contact")
            if (binding := _binding(value)) is not None
        ]
        mine = self._account.contact(self._layer.public).uri
        for is_mine in _ways_to_recognize(mine):
            granted = [expires for uri, expires in bindings if is_mine(uri)]
            if granted:
                return min((each for each in granted if each is not None), default=asked)
        return min((each for _, each in bindings if each), default=asked)

    def _lengthen(self, response: Response) -> bool:
        """423: ask for as long as the server wants at least; once or twice, not for ever (RFC 3261
        10.2.8)."""
        text = (response.get("Min-Expires") or "").strip()
        self._too_brief += 1
        if not is_number(text, 7) or self._too_brief > 2:
            return False
        self._asked_expires = max(int(text), self._wanted_expires)
        return True

    def _try_again(self, exchange: ClientRequest, response: Response, now: float) -> None:
        pause = retry_after(response) or self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        sentence = trying_again(pause, exchange.destination if exchange.timed_out else None)
        self._become(UNREACHABLE, sentence, now)
        self.timers.set("refresh", now + pause, self._refresh)

    def _refresh(self, now: float) -> None:
        if self._pending is None:
            self._ask(self._asked_expires, now)

    def _refused(self, sentence: str, now: float, wants_password: bool = False) -> None:
        self.timers.clear()
        self._become(REFUSED, sentence, now, wants_password)

    def _become(
        self,
        state: RegistrationState,
        sentence: str,
        now: float,
        wants_password: bool = False,
        server: str = "",
    ) -> None:
        self.event = RegistrationChanged(now, state, sentence, wants_password, server)
        self._layer.emit(self.event)


def _binding(value: str) -> tuple[Uri, int | None] | None:
    """URI and expires of a Contact. The other phones of the account may be listed by what we cannot
    read."""
    try:
        contact = NameAddr.parse_any(value)
    except RemoteProtocolError:
        return None
    text = contact.params.get("expires") or ""
    return contact.uri, int(text) if is_number(text, 9) else None


def _ways_to_recognize(mine: Uri) -> list[Callable[[Uri], bool]]:
    """The surest first: the very URI, then our address under any name and with any parameters, then
    our name."""
    return [
        mine.same_as,
        lambda uri: uri.is_sip and (uri.host.lower(), uri.port) == (mine.host.lower(), mine.port),
        lambda uri: uri.is_sip and uri.username == mine.username,
    ]
