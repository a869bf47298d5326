"""Many calls at once without audio: two user agents a call, all in one thread with a socket each.

The agents are the softphone's own (softphone/ua, which has no socket and no clock), driven by one
event loop: a hundred whole phones with their media threads would be the load, not the servers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial

from plumbing.address import Address
from plumbing.event_loop import Loop, Timer
from plumbing.udp_socket import bind_udp
from softphone.ua.account import Account
from softphone.ua.client_request import Actions
from softphone.ua.events import (
    CallChanged,
    CallState,
    ProbeAnswered,
    RegistrationChanged,
    RegistrationState,
)
from softphone.ua.user_agent import UserAgent
from stage.processes.cluster import DOMAIN, HOST

CALLS = 100
SPACING_SECONDS = 0.02  # between two registrations or two calls
AUDIO_PORT = 40_000  # named in the descriptions; nothing is sent there
DATAGRAM_OCTETS = 65_535


class Party:
    """One agent with its socket. The loop's thread alone."""

    def __init__(
        self, user: str, proxy: Address, loop: Loop, told: Callable[[object], None]
    ) -> None:
        self._loop, self._told = loop, told
        self._socket = bind_udp((HOST, 0))
        local = self._socket.getsockname()[:2]
        account, dice = Account(user, DOMAIN), random.SystemRandom()
        self.agent = UserAgent(account, local, proxy, dice, lambda call_id: AUDIO_PORT)
        self._timer: Timer | None = None
        loop.watch(self._socket, self._read)

    def wish(self, act: Callable[[float], Actions]) -> None:
        """Have the agent do something: `act` is a method of it, and is given the time."""
        self._do(act(time.monotonic()))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._socket)
        self._socket.close()

    def _do(self, outcome: Actions) -> None:
        for send in outcome.sends:
            self._socket.sendto(send.data, send.to)
        for event in outcome.events:
            self._told(event)
        if self._timer is not None:
            self._timer.cancel()
        due = self.agent.deadline
        act = partial(self.wish, self.agent.on_deadline)
        self._timer = None if due is None else self._loop.at(due, act)

    def _read(self) -> None:
        try:
            data, source = self._socket.recvfrom(DATAGRAM_OCTETS)
        except OSError:
            return
        self._do(self.agent.receive(data, source[:2], time.monotonic()))


class GeneratedCall:
    """Two agents and their call, as the caller's sees it; monotonic seconds. Any thread may read
    it; the rest is the loop's."""

    def __init__(self, number: int, proxy: Address, loop: Loop) -> None:
        self.state, self.call_id = "idle", ""
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.killed_at: float | None = None
        self.gap_ms: float | None = None  # from the crash to the answer within the call
        self._loop, self._target = loop, f"callee{number}"
        self.callee = Party(self._target, proxy, loop, self._callee_told)
        self.caller = Party(f"caller{number}", proxy, loop, self._caller_told)

    def begin(self) -> None:
        """Register the callee; the rest follows."""
        self.callee.wish(self.callee.agent.register)

    def probe(self, killed_at: float) -> None:
        self.killed_at = killed_at
        self.caller.wish(self.caller.agent.probe)

    def hang_up(self) -> None:
        self.caller.wish(self.caller.agent.hang_up)

    def close(self) -> None:
        self.callee.close()
        self.caller.close()

    def _callee_told(self, event: object) -> None:
        if isinstance(event, RegistrationChanged) and event.state is RegistrationState.REGISTERED:
            if self.state == "idle":
                self.state = "calling"
                self.caller.wish(partial(self.caller.agent.call, self._target))
        elif isinstance(event, CallChanged) and event.call.state is CallState.INCOMING:
            self._loop.post(lambda: self.callee.wish(self.callee.agent.answer))

    def _caller_told(self, event: object) -> None:
        if isinstance(event, CallChanged):
            self.state, self.call_id = event.call.state.value, event.call.id
            self.answered_at, self.ended_at = event.call.answered_at, event.call.ended_at
        elif isinstance(event, ProbeAnswered) and event.status == 200 and self.killed_at:
            self.gap_ms = (event.at - self.killed_at) * 1000


class CallGenerator:
    """Many calls, begun and hung up one after the other. Any thread may use it."""

    def __init__(self, proxy: Address, number: int) -> None:
        self._loop = Loop("calls")
        self.calls = [GeneratedCall(index, proxy, self._loop) for index in range(number)]

    def start(self) -> None:
        """Register the callees and call each of them, one after the other."""
        self._loop.start()
        self._one_by_one(GeneratedCall.begin)

    def probe(self) -> None:
        """Ask within every call, now, whether it is answered."""
        now = time.monotonic()
        for call in self.calls:
            self._loop.post(partial(call.probe, now))

    def hang_up(self) -> None:
        self._one_by_one(GeneratedCall.hang_up)

    def stop(self) -> None:
        """Twice is fine."""
        for call in self.calls:
            self._loop.post(call.close)
        self._loop.stop(2.0)

    def _one_by_one(self, act: Callable[[GeneratedCall], None]) -> None:
        now = time.monotonic()
        for number, call in enumerate(self.calls):
            due = now + number * SPACING_SECONDS
            self._loop.post(partial(self._loop.at, due, partial(act, call)))

    def states(self) -> list[str]:
        return [call.state for call in self.calls]

    @property
    def talking(self) -> int:
        return self.states().count("talking")

    @property
    def ended(self) -> int:
        return self.states().count("ended")

    @property
    def kept(self) -> int:
        """Calls that were answered after the crash."""
        return sum(call.gap_ms is not None for call in self.calls)

    @property
    def talked(self) -> dict[str, float]:
        """Seconds by Call-ID, as the callers saw them."""
        return {
            call.call_id: call.ended_at - call.answered_at
            for call in self.calls
            if call.ended_at is not None and call.answered_at is not None
        }

    def gap(self, quantile: float) -> float | None:
        gaps = sorted(call.gap_ms for call in self.calls if call.gap_ms is not None)
        return gaps[min(len(gaps) - 1, int(len(gaps) * quantile))] if gaps else None
