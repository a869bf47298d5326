"""OPTIONS keep-alives between two REGISTERs: they keep a NAT's binding open, and show soon that no
server lives.

OPTIONS to the registrar, which any answer but 503 satisfies. It may be passed on no further than to
whom it is sent (RFC 3261 16.3 step 3): a forwarder answers it itself, 503 where no server lives,
and no server is troubled. Silence, or a 503, says nothing for certain: the phone then registers at
once, and what comes of that is what the person is told. It does so, too, where the answer says that
a NAT has given the phone another address. A server that registers phones and never answers OPTIONS
gets empty lines instead (RFC 5626 3.5.1), which keep the binding as well.
"""

from __future__ import annotations

from sip.message import Request, Response
from sip.uri import Uri
from softphone.ua.client_request import ClientRequest, Send
from softphone.ua.optional_fields import seen_address
from softphone.ua.registration import REGISTERED, Registration
from softphone.ua.timers import NamedTimers
from softphone.ua.transaction_layer import TransactionLayer

PERIOD = 15.0  # seconds; RFC 4787 4.3 has NATs remember for 120, and many forget after 30
TELL_AFTER = 2  # repeats without any answer, 1.5 s
PROMPT = 1.0  # seconds
NO_FURTHER = ("Max-Forwards", "0")
EMPTY = b"\r\n\r\n"


class KeepAlive:
    """One registration's. `interval`: seconds between two; 0: none."""

    def __init__(
        self, layer: TransactionLayer, registration: Registration, interval: float
    ) -> None:
        self._layer, self._registration, self._interval = layer, registration, interval
        self._pending: ClientRequest | None = None
        self._in_doubt_since: float | None = None  # no answer, and no other answer since
        self._answers_options = True
        self.timers = NamedTimers()
        registration.on_accepted = self._on_registered

    def _on_registered(self, now: float) -> None:
        if self._in_doubt_since is not None:
            # REGISTER is answered at once: it is OPTIONS that this server has no answer to.
            self._answers_options = now - self._in_doubt_since > PROMPT
            self._in_doubt_since = None
        if self._interval and self.timers.deadline is None:
            self.timers.set("beat", now + self._interval, self._beat)

    def _beat(self, now: float) -> None:
        if self._registration.state is not REGISTERED:
            return  # it is begun anew with the next registration
        self.timers.set("beat", now + self._interval, self._beat)
        server = self._layer.server
        if server is None or self._pending is not None:
            return
        if self._answers_options:
            self._ask(now)
        else:
            self._layer.outcome.sends.append(Send(EMPTY, server))

    def _ask(self, now: float) -> None:
        account, layer = self._layer.account, self._layer
        registrar = Uri("sip", "", account.uri.host, account.uri.port)
        me = account.name_addr.with_tag(layer.new_token())
        fields = [NO_FURTHER, ("From", str(me)), ("To", f"<{registrar}>")]
        fields += [("Call-ID", layer.new_token()), ("CSeq", "1 OPTIONS")]
        destination = layer.server or layer.local
        # Any answer will do, so a challenge is as good as another.
        request = Request("OPTIONS", str(registrar), fields)
        exchange = ClientRequest(
            request, destination, self._on_answer, lambda: 1, self._on_repeat, given_up=True
        )
        self._pending = exchange
        layer.ask(exchange, now)

    def _on_repeat(self, exchange: ClientRequest, now: float) -> None:
        if exchange.unanswered >= TELL_AFTER:
            self._layer.abandon(exchange)
            self._doubt(True, now)

    def _on_answer(self, exchange: ClientRequest, response: Response, now: float) -> None:
        if response.status in (408, 503):
            self._doubt(exchange.timed_out, now)
        else:
            self._pending = None
            self._follow(response, now)

    def _doubt(self, is_silent: bool, now: float) -> None:
        """Registers anew, as no server seems to live; `is_silent`: nothing was answered at all."""
        self._pending = None
        if self._registration.state is REGISTERED:
            self._in_doubt_since = now if is_silent else None
            self._registration.register(now)

    def _follow(self, response: Response, now: float) -> None:
        """Registers anew at once if a NAT has given us another address."""
        seen = seen_address(response)
        if (
            seen is not None
            and seen != self._layer.public
            and self._registration.state is REGISTERED
        ):
            self._layer.public = seen
            self._registration.register(now)
