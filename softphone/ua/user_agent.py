"""The user agent: takes datagrams, commands and the time; answers with what to send and to tell.

    local, proxy = ("192.0.2.1", 5062), ("192.0.2.9", 5060)
    agent = UserAgent(account, local, proxy, random.SystemRandom(), lambda call_id: 4000)
    agent.call("bob", now=100.0)  # Actions(sends=[Send(data, to)], events=[...])
    agent.receive(data, source, now=100.1)
    agent.on_deadline(now=agent.deadline)

It owns no socket, thread or clock, and everything it knows it knows from its arguments. One call at
a time occupies the phone; another that comes is told 486.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sip import sdp
from sip.dialog import TARGET_REFRESHING
from sip.errors import LocalProtocolError, RemoteProtocolError
from sip.header import NameAddr
from sip.message import Request, Response
from sip.uri import Uri
from softphone.ua import user_messages
from softphone.ua.account import ALLOW, METHODS, Account, Address, Randomness
from softphone.ua.call import Call
from softphone.ua.call_states import ENDED, GONE, INCOMING
from softphone.ua.client_request import Actions
from softphone.ua.dial_target import CannotBeCalled, target_of_text
from softphone.ua.digest_auth import DigestCredentials
from softphone.ua.events import CallState, CallTurnedAway, CallView, Direction, RegistrationChanged
from softphone.ua.incoming_call import IncomingCall
from softphone.ua.keep_alive import KeepAlive
from softphone.ua.outgoing_call import OutgoingCall
from softphone.ua.registration import Registration
from softphone.ua.reliable_provisional import OPTION, RELIABLE
from softphone.ua.session_timer import DEFAULT_INTERVAL, SHORTEST, SUPPORTED, too_brief
from softphone.ua.timers import NamedTimers
from softphone.ua.transaction_layer import ServerRequest, TransactionLayer
from softphone.ua.user_messages import begin

REMEMBERED_CALLS = 20
UNDERSTOOD = ("timer", OPTION)  # what a request may require of us


class UserAgent:
    """One account on one address. Every public method returns what is to be done now.

    `open_media(call_id)` gives the port at which a call wants its media, and is asked once a call,
    when that is about to be told; OSError if there is none. `direct`: a call rings that does not
    come from the proxy, too. `keep_alive`: seconds between two signs of life to the server while
    registered, 0: none.
    """

    def __init__(
        self,
        account: Account,
        local: Address,
        proxy: Address | None,
        random: Randomness,
        open_media: Callable[[str], int],
        expires: int = 300,
        session_expires: int = DEFAULT_INTERVAL,
        direct: bool = False,
        keep_alive: float = 0.0,
    ) -> None:
        self.account = account
        self._direct = direct
        self._layer = TransactionLayer(account, local, proxy, random, open_media, session_expires)
        self._layer.on_request = self._on_request
        self._layer.on_ack = self._on_ack
        self._layer.on_late_success = self._on_late_success
        self._registration = Registration(self._layer, expires)
        self._keep_alive = KeepAlive(self._layer, self._registration, keep_alive)
        self._calls: list[Call] = []  # the newest last

    # -- what it is like now -----------------------------------------------------------------------

    @property
    def registration(self) -> RegistrationChanged:
        return self._registration.event

    @property
    def calls(self) -> tuple[CallView, ...]:
        """The newest last; ended ones are remembered for a while."""
        return tuple(call.view for call in self._calls)

    @property
    def active_call(self) -> CallView | None:
        call = self._active()
        return call.view if call else None

    @property
    def retransmissions(self) -> int:
        """How many messages went out again because no answer came in time."""
        return self._layer.retransmissions

    @property
    def dropped(self) -> dict[str, int]:
        """The number of messages that were dropped, by reason."""
        return dict(self._layer.dropped)

    @property
    def peer(self) -> Address | None:
        """Where the call going on was reached: a proxy, or the other phone itself."""
        call = self._active()
        return call.reached_at if call else None

    def destination(self, target: str) -> Address | None:
        """Where a call to this target would be sent; None if that is not known."""
        try:
            return self._layer.proxy or self._layer.address_of(target_of_text(target, self.account))
        except (RemoteProtocolError, LocalProtocolError):
            return None

    @property
    def at_rest(self) -> bool:
        """Nothing is left to be confirmed by the other side: no call and no registering under
        way."""
        return self._registration.at_rest and all(
            call.state is CallState.ENDED for call in self._calls
        )

    @property
    def deadline(self) -> float | None:
        """When `on_deadline` is to be called next."""
        dues = [self._layer.deadline, *(timers.deadline for timers in self._all_timers())]
        return min((due for due in dues if due is not None), default=None)

    # -- what happens ------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address, now: float) -> Actions:
        known_as = self._layer.public
        self._layer.receive(data, source, now)
        if self._layer.public != known_as:  # the other side's requests are to come there
            return self._with_active(lambda call: call.refresh(now))
        return self._done()

    def on_deadline(self, now: float) -> Actions:
        self._layer.on_deadline(now)
        for timers in self._all_timers():
            timers.fire(now)
        return self._done()

    def on_unreachable(self, destination: Address, now: float) -> Actions:
        """The system could not send there."""
        self._layer.on_unreachable(destination, now)
        return self._done()

    def move(self, host: str, now: float, register: bool = True) -> Actions:
        """This computer's address is `host`, perhaps the one it was: Contact and SDP name it,
        the registration and a call that is up follow it."""
        layer = self._layer
        if host != layer.local[0]:
            layer.local = layer.public = (host, layer.local[1])
            if register:
                self._registration.anew(now)
        return self._with_active(lambda call: call.move(host, now))

    def woke(self, now: float) -> Actions:
        """This computer has slept: what it had promised to refresh may have run out."""
        self._registration.anew(now)
        return self._with_active(lambda call: call.refresh(now))

    def fail(self, sentence: str, now: float) -> Actions:
        """The call cannot be had here: it ends, on both sides, and this sentence says why."""
        return self._with_active(lambda call: call.fail(sentence, now))

    # -- commands ----------------------------------------------------------------------------------

    def register(self, now: float) -> Actions:
        return self._do(lambda: self._registration.register(now))

    def set_password(self, password: str, now: float) -> Actions:
        """Use another password from now on, and register with it."""
        self.account = self._layer.account = replace(self.account, password=password)
        self._layer.credentials = DigestCredentials(self.account, self._layer.new_token)
        return self.register(now)

    def unregister(self, now: float) -> Actions:
        return self._do(lambda: self._registration.unregister(now))

    def call(self, target: str, now: float) -> Actions:
        """Call "bob", "bob@host" or a SIP URI. With a call going on nothing happens."""
        return self._do(lambda: self._place(target, now))

    def answer(self, now: float) -> Actions:
        call = self._active()
        return self._do(lambda: call.pick_up(now) if isinstance(call, IncomingCall) else None)

    def decline(self, now: float) -> Actions:
        call = self._active()
        return self._do(lambda: call.decline(now) if isinstance(call, IncomingCall) else None)

    def hang_up(self, now: float) -> Actions:
        return self._with_active(lambda call: call.hang_up(now))

    def hold(self, now: float) -> Actions:
        return self._with_active(lambda call: call.hold(True, now))

    def resume(self, now: float) -> Actions:
        return self._with_active(lambda call: call.hold(False, now))

    def probe(self, now: float) -> Actions:
        return self._with_active(lambda call: call.probe(now))

    def digit(self, digit: str, now: float) -> Actions:
        """Send a digit by INFO, for a call whose media takes none."""
        return self._with_active(lambda call: call.digits.press(digit, now))

    def nothing_heard(self, seconds: int, now: float) -> Actions:
        """No sound has come for so long in the call going on; 0: it comes again."""
        return self._with_active(lambda call: call.nothing_heard(seconds, now))

    # -- inside ------------------------------------------------------------------------------------

    def _all_timers(self) -> list[NamedTimers]:
        return [
            self._registration.timers,
            self._keep_alive.timers,
            *(call.timers for call in self._calls),
        ]

    def _active(self) -> Call | None:
        return next((call for call in reversed(self._calls) if call.view.active), None)

    def _do(self, wish: Callable[[], object]) -> Actions:
        wish()
        return self._done()

    def _with_active(self, wish: Callable[[Call], object]) -> Actions:
        call = self._active()
        return self._do(lambda: wish(call) if call else None)

    def _done(self) -> Actions:
        outcome, self._layer.outcome = self._layer.outcome, Actions()
        return outcome

    def _remember(self, call: Call) -> None:
        self._calls.append(call)
        over = [
            old
            for old in self._calls
            if old.state is CallState.ENDED and old.timers.deadline is None
        ]
        for old in over[: max(0, len(self._calls) - REMEMBERED_CALLS)]:
            self._calls.remove(old)

    def _place(self, target: str, now: float) -> None:
        if self._active() is not None:
            return
        try:
            uri = target_of_text(target, self.account)
        except RemoteProtocolError as fault:
            shown = "".join(c for c in target.strip()[:40] if c.isprintable())
            nobody = NameAddr(Uri("sip", "", "invalid"), shown or "?")
            call = Call(self._layer, CallState.CALLING, self._layer.new_token(), nobody, now)
            call.peer_uri = ""
            self._remember(call)
            sentence = user_messages.NO_ADDRESS.format(text=shown)
            if isinstance(fault, CannotBeCalled):
                sentence = str(fault)
            call.change(GONE, now, sentence if shown else user_messages.WHOM_TO_CALL)
            return
        outgoing = OutgoingCall(self._layer, uri, now)
        self._remember(outgoing)
        outgoing.place(now)

    # -- their requests ----------------------------------------------------------------------------

    def _on_request(self, incoming: ServerRequest, now: float) -> None:
        """RFC 3261 8.2 and 12.2.2, in their order. RemoteProtocolErrors become their response in
        the endpoint."""
        request = incoming.request
        if request.method == "CANCEL":
            self._on_cancel(incoming, now)
        elif request.method not in METHODS:
            incoming.answer(405, now, ALLOW)
        elif request.to.tag:
            call = next((call for call in reversed(self._calls) if call.owns(request)), None)
            if call is None or call.state is CallState.ENDED:
                incoming.answer(481, now)
            elif not _refused_unheard(incoming, now):
                call.take(incoming, now)
        elif self._layer.merged(request):
            incoming.answer(482, now)
        elif request.method == "INVITE" and not self._may_ring(incoming):
            self._layer.dropped["a call that did not come from the server"] += 1
            incoming.answer(403, now, reason="Calls Come Through The Server")
        elif not _refused_unheard(incoming, now):
            self._on_first_request(incoming, now)

    def _may_ring(self, incoming: ServerRequest) -> bool:
        """With a proxy calls come through it, and what comes from elsewhere was checked by
        nobody."""
        return self._direct or self._layer.proxy is None or self._layer.is_server(incoming.source)

    def _on_first_request(self, incoming: ServerRequest, now: float) -> None:
        request = incoming.request
        user = Uri.parse(request.uri).user
        if user and not self.account.is_called(user):
            incoming.answer(404, now)
        elif request.method in ("BYE", "UPDATE", "PRACK"):
            incoming.answer(481, now)
        elif self._active() is not None:
            incoming.answer(486, now)  # OPTIONS too: RFC 3261 11.2
            if request.method == "INVITE":
                self._tell_turned_away(request, now)
        elif request.method == "OPTIONS":
            fields = (
                ALLOW,
                SUPPORTED,
                RELIABLE,
                ("Accept", sdp.CONTENT_TYPE),
                ("Contact", self._layer.contact),
            )
            incoming.answer(200, now, *fields)
        else:
            call = IncomingCall(self._layer, incoming, now)
            self._remember(call)
            call.ring(now)

    def _tell_turned_away(self, request: Request, now: float) -> None:
        call = Call(self._layer, ENDED, request.call_id, request.from_, now)
        call.direction, call.ended_at, call.status = Direction.INCOMING, now, 486
        call.sentence = begin(user_messages.CALLED_WHILE_BUSY.format(name=call.name))
        self._layer.emit(CallTurnedAway(now, call.view))

    def _on_cancel(self, incoming: ServerRequest, now: float) -> None:
        """RFC 3261 9.2: a CANCEL is answered for itself; it ends an INVITE only if that is still
        unanswered."""
        invite = self._layer.cancelled(incoming.request)
        if invite is None:
            incoming.answer(481, now)
            return
        call = next(
            (c for c in self._calls if isinstance(c, IncomingCall) and c.invite is invite), None
        )
        tag = call.dialog.local.tag if call and call.dialog else ""
        incoming.answer(200, now, to_tag=tag)
        if call is not None and call.state is INCOMING:
            call.cancelled(now)

    def _on_late_success(self, response: Response, now: float) -> bool:
        placed = [call for call in self._calls if isinstance(call, OutgoingCall)]
        ours = [call for call in placed if call.call_id == response.call_id]
        return any(call.take_late_success(response, now) for call in ours)

    def _on_ack(self, request: Request, now: float) -> None:
        for call in self._calls:
            if call.owns(request):
                call.take_ack(request, now)


def _refused_unheard(incoming: ServerRequest, now: float) -> bool:
    """RFC 3261 8.2.2.3: 420 where an extension is required that we lack; RFC 4028 9: 422 to a
    session too brief."""
    request = incoming.request
    lacking = [option for option in request.values("Require") if option.lower() not in UNDERSTOOD]
    if lacking:
        incoming.answer(420, now, ("Unsupported", ", ".join(lacking)))
        return True
    if request.method in TARGET_REFRESHING and too_brief(request):
        incoming.answer(422, now, ("Min-SE", str(SHORTEST)))
        return True
    return False
