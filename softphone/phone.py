"""A whole phone without windows: the user agent, its thread and socket, and the sound of its calls.

    phone = Phone(Account("alice", "failover.test"), proxy=("127.0.0.1", 5060), on_event=print)
    phone.start()
    phone.call("bob")
    phone.stop()

Commands return at once and may come from any thread; what becomes of them arrives as events
(softphone.ua.events), told in the phone's own `sip` thread, which alone owns the agent, the
socket and the media sessions' list.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from plumbing.address import Address, format_address
from plumbing.event_loop import Loop, LoopStopped, Timer
from plumbing.udp_socket import bind_udp, family_of
from softphone.call_audio import CallAudio
from softphone.local_host import SuspendDetector, nowhere, own_host, resolved
from softphone.media.audio_interfaces import AudioSink, AudioSource, NullSink
from softphone.media.dtmf import is_digit
from softphone.media.stream import MediaStats
from softphone.media.tone_generator import ToneSource
from softphone.ua.account import Account as Account
from softphone.ua.client_request import Actions, Send
from softphone.ua.events import (
    CallChanged,
    CallView,
    DigitPassed,
    MessagePassed,
    RegistrationChanged,
    RegistrationState,
)
from softphone.ua.keep_alive import PERIOD
from softphone.ua.session_timer import DEFAULT_INTERVAL
from softphone.ua.user_agent import UserAgent
from softphone.ua.user_messages import NO_SOUND

log = logging.getLogger(__name__)

DATAGRAM = 65_535
BURST = 64  # datagrams read before timers and commands get their turn
LOOK_AGAIN = 1.0  # seconds between two looks at what no signal tells
DEADLINE_AGAIN = 1.0  # seconds until timers are looked at again after an error in that


@dataclass(frozen=True)
class PhoneSnapshot:
    """The phone at one moment. `calls`: the newest last. `retransmissions`: SIP messages that went
    out again because no answer came in time. `dropped`: what came and was no use, or not wanted, by
    reason."""

    registration: RegistrationChanged
    calls: tuple[CallView, ...]
    retransmissions: int
    media: MediaStats | None
    dropped: Mapping[str, int] = field(default_factory=dict)


class Phone:
    """`proxy`: where everything goes that begins something; None: straight to the called address.
    `sound`: a source and a sink; without, a test tone is said and nothing is heard. `expires`:
    seconds asked of the registrar; `session_expires`: seconds after which a call ends unless one
    side refreshes it (RFC 4028), 0: not asked for; `direct`: calls ring that do not come from the
    proxy, too; `keep_alive`: seconds between two signs of life to the server while registered, 0:
    none."""

    def __init__(
        self,
        account: Account,
        proxy: Address | None,
        listen: Address = ("0.0.0.0", 0),
        on_event: Callable[[object], None] = lambda event: None,
        sound: tuple[AudioSource, AudioSink] | None = None,
        register: bool = True,
        expires: int = 300,
        session_expires: int = DEFAULT_INTERVAL,
        direct: bool = False,
        keep_alive: float = PERIOD,
    ) -> None:
        self.account = account
        self.address: Address = listen
        self._proxy, self._listen, self._on_event = proxy, listen, on_event
        # Computed now, not when the first call is under way: a tone takes 20 ms.
        self._sound = CallAudio(sound or (ToneSource(), NullSink()), self._digit_passed)
        self._register, self._expires, self._session_expires = register, expires, session_expires
        self._direct, self._keep_alive = direct, keep_alive
        self._loop = Loop(f"sip-{account.user}")
        self._lifecycle = threading.Lock()  # guards _started, _stopped
        self._started = self._stopped = False
        self._at_rest = threading.Event()  # set while leaving, once the others have confirmed
        # From here on: the sip thread's, or before start.
        self._agent: UserAgent
        self._socket: socket.socket
        self._timer: Timer | None = None
        self._look_timer: Timer | None = None
        self._suspend = SuspendDetector()
        self._leaving = False

    # -- any thread: start and stop ----------------------------------------------------------------

    def start(self) -> None:
        """Bind, begin to listen, register. OSError names the address that could not be had."""
        with self._lifecycle:
            if self._started or self._stopped:
                raise RuntimeError("a phone is started once")
            proxy, listen = self._proxy, self._listen
            if proxy and ":" in proxy[0] and listen[0] == "0.0.0.0":
                # all addresses means those from which the proxy can be reached
                listen = ("::", listen[1])
            if proxy:
                proxy = self._proxy = resolved(proxy, family_of(listen[0]))
            self._socket = bind_udp(listen)
            self.address = self._socket.getsockname()[:2]
            host = own_host(self.address[0], proxy) or nowhere(self.address[0])
            local = (host, self.address[1])
            wanted = self._expires, self._session_expires, self._direct, self._keep_alive
            self._agent = UserAgent(
                self.account, local, proxy, random.SystemRandom(), self._open_media, *wanted
            )
            self._loop.watch(self._socket, self._on_readable)
            self._loop.post(self._look_again)
            self._loop.start()
            self._started = True
        if self._register:
            self.register()

    def stop(self, timeout: float = 3.0) -> None:
        """End the call, take the registration back, leave no thread and no socket, all within
        `timeout` seconds.

        Twice is fine. Called from an event it does not wait for the others' answers.
        """
        with self._lifecycle:
            if self._stopped:
                return
            self._stopped = True
            if not self._started:
                self._loop.stop()
                return
        end = time.monotonic() + timeout
        self._loop.post(self._say_goodbye)
        if self._loop.on_thread():
            self._loop.post(self._close)
            self._loop.stop()
            return
        # A BYE that is not confirmed after most of the time will not be; the threads need the rest.
        self._at_rest.wait(timeout * 0.8)
        self._loop.post(self._close)
        self._loop.stop(max(0.1, end - time.monotonic()))

    # -- any thread: commands ----------------------------------------------------------------------

    def register(self) -> None:
        """Register, or refresh the registration, now."""
        self._run_in_sip_thread(lambda now: self._agent.register(now))

    def unregister(self) -> None:
        """Take the registration back: nobody can call this phone until it registers again."""
        self._run_in_sip_thread(lambda now: self._agent.unregister(now))

    def set_password(self, password: str) -> None:
        """Use another password from now on, and register with it."""
        self._run_in_sip_thread(lambda now: self._agent.set_password(password, now))

    def call(self, target: str) -> None:
        """Call "bob", "bob@host" or "sip:bob@host:port"."""
        self._loop.post(lambda: self._call(target))

    def answer(self) -> None:
        self._loop.post(self._answer)

    def decline(self) -> None:
        self._run_in_sip_thread(lambda now: self._agent.decline(now))

    def hang_up(self) -> None:
        """End the call, or give it up before it was answered."""
        self._run_in_sip_thread(lambda now: self._agent.hang_up(now))

    def hold(self) -> None:
        self._run_in_sip_thread(lambda now: self._agent.hold(now))

    def resume(self) -> None:
        self._run_in_sip_thread(lambda now: self._agent.resume(now))

    def probe(self) -> None:
        """Ask the other side within the call (OPTIONS); ProbeAnswered tells when its answer
        came."""
        self._run_in_sip_thread(lambda now: self._agent.probe(now))

    def mute(self, muted: bool) -> None:
        """Say nothing for the rest of the call, or speak again."""
        self._loop.post(lambda: self._sound.mute(muted))

    def dtmf(self, digit: str) -> None:
        """Send a digit of the dial pad into the call (RFC 4733, or INFO where the other side allows
        that alone).

        DigitPassed tells when it has left, DigitRefused that the other side takes none. Without a
        call nothing is sent.
        """
        self._loop.post(lambda: self._dtmf(digit))

    # -- any thread: questions ---------------------------------------------------------------------

    def snapshot(self, timeout: float = 1.0) -> PhoneSnapshot:
        """Raises plumbing.event_loop.LoopStopped if the phone is not running, TimeoutError if it is
        stuck."""
        return self._loop.ask(self._snapshot, timeout)

    def media_stats(self) -> MediaStats | None:
        """Of the call going on, after its end of the last one; None before the first. Cheap, no
        lock."""
        return self._sound.stats()

    # -- sip thread --------------------------------------------------------------------------------

    def _run_in_sip_thread(self, function: Callable[[float], Actions]) -> None:
        self._loop.post(lambda: self._perform(function(time.monotonic())))

    def _on_readable(self) -> None:
        for _ in range(BURST):
            try:
                data, source = self._socket.recvfrom(DATAGRAM)
            except OSError:  # nothing more, or (Windows) the refusal of something sent earlier
                return
            self._perform(self._agent.receive(data, source[:2], time.monotonic()))

    def _on_deadline(self) -> None:
        # should what follows fail
        self._timer = self._loop.at(time.monotonic() + DEADLINE_AGAIN, self._on_deadline)
        self._perform(self._agent.on_deadline(time.monotonic()))

    def _perform(self, outcome: Actions) -> None:
        try:
            self._carry_out(outcome)
        finally:
            self._set_timer()

    def _carry_out(self, outcome: Actions) -> None:
        try:
            for send in outcome.sends:
                self._send(send)
        finally:  # whatever becomes of that: a call that is over must not leave the microphone on
            for event in outcome.events:
                if isinstance(event, CallChanged):
                    self._update_media(event.call)
                elif isinstance(event, MessagePassed):
                    way = "to" if event.sent else "from"
                    log.debug("%s %s %s", event.summary, way, format_address(event.peer))
                self._tell(event)
        if self._leaving and self._agent.at_rest:
            self._at_rest.set()

    def _tell(self, event: object) -> None:
        try:
            self._on_event(event)
        except Exception:
            log.exception("telling %s failed", type(event).__name__)

    def _send(self, send: Send) -> None:
        try:
            self._socket.sendto(send.data, send.to)
        except BlockingIOError:
            return  # as if lost on the way: it is sent again
        # all but the first: no address that could be written
        except (OSError, TypeError, ValueError, OverflowError) as error:
            log.debug("not sent to %s port %d: %s", send.to[0], send.to[1], error)
            self._loop.post(
                lambda: self._perform(self._agent.on_unreachable(send.to, time.monotonic()))
            )

    def _set_timer(self) -> None:
        due = self._agent.deadline
        if self._timer is not None:
            if self._timer.deadline == due:
                return
            self._timer.cancel()
        self._timer = self._loop.at(due, self._on_deadline) if due is not None else None

    def _look_again(self) -> None:
        """Look for another address of this computer, for a sleep, and for a call without sound,
        every second: no signal tells of them."""
        self._look_timer = self._loop.at(time.monotonic() + LOOK_AGAIN, self._look_again)
        self._look(self._agent.peer)
        if self._suspend.slept():
            log.info("this computer has slept")
            self._perform(self._agent.woke(time.monotonic()))
        call, now = self._agent.active_call, time.monotonic()
        if call is not None:
            seconds = self._sound.silent_seconds(call, now)
            self._perform(self._agent.nothing_heard(seconds, now))

    def _look(self, towards: Address | None) -> None:
        """Use the address that this computer has now towards the proxy, or without one `towards`
        the other phone."""
        own = own_host(self.address[0], self._proxy or towards)
        if own is not None and not self._leaving:
            self._perform(
                self._agent.move(own, time.monotonic(), bool(self._proxy) or towards is None)
            )

    def _call(self, target: str) -> None:
        if self._agent.active_call is not None:
            return
        self._look(self._agent.destination(target))
        self._perform(self._agent.call(target, time.monotonic()))

    def _answer(self) -> None:
        self._look(self._agent.peer)
        self._perform(self._agent.answer(time.monotonic()))

    def _open_media(self, call_id: str) -> int:
        return self._sound.open(call_id, self.address[0])

    def _update_media(self, call: CallView) -> None:
        """The sound does what the call says. If it cannot, the call ends with a sentence;
        telling goes on."""
        try:
            self._sound.follow(call)
        except Exception as error:
            log.exception("the sound of a call cannot follow it")
            sentence = NO_SOUND.format(reason=error)
            self._loop.post(lambda: self._perform(self._agent.fail(sentence, time.monotonic())))

    def _dtmf(self, digit: str) -> None:
        call = self._agent.active_call
        session = self._sound.of(call)
        if call is None or session is None or not is_digit(digit):
            log.info("digit %r not sent", digit)
        elif call.media is not None and call.media.telephone_event is None:
            self._perform(self._agent.digit(digit.upper(), time.monotonic()))
        else:
            try:
                session.dtmf(digit)
            except ValueError as error:
                log.info("digit %r not sent: %s", digit, error)

    def _digit_passed(self, call_id: str, digit: str, sent: bool) -> None:
        """Media thread."""
        event = DigitPassed(time.monotonic(), call_id, digit, sent)
        self._loop.post(lambda: self._tell(event))

    def _snapshot(self) -> PhoneSnapshot:
        agent = self._agent
        said = agent.registration, agent.calls, agent.retransmissions
        return PhoneSnapshot(*said, self.media_stats(), agent.dropped)

    def _say_goodbye(self) -> None:
        now = time.monotonic()
        self._perform(self._agent.hang_up(now))
        outcome = self._agent.unregister(now)
        self._leaving = True
        self._perform(outcome)

    def _close(self) -> None:
        self._loop.unwatch(self._socket)
        self._socket.close()
        for timer in (self._timer, self._look_timer):
            if timer is not None:
                timer.cancel()
        self._sound.close()


__all__ = ["Account", "LoopStopped", "Phone", "PhoneSnapshot", "RegistrationState"]
