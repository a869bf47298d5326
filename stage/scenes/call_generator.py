"""Many calls at once without audio: two user agents a call, all in one thread with a socket each.

The agents are the softphone's own (softphone/ua, which has no socket and no clock), driven by one
event loop: a hundred whole phones with their media threads would be the load, not the servers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass
class CallRecord:
    """One call as its caller's agent sees it; monotonic seconds."""

    state: str = "idle"
    call_id: str = ""
    answered_at: float | None = None
    ended_at: float | None = None
    gap_ms: float | None = None  # from the crash to the answer within the call


class Party:
    """One agent with its socket. The loop's thread alone."""

    def __init__(
        self, user: str, proxy: Address, loop: Loop, told: Callable[[Party, object], None]
    ) -> None:
        self.user = user
        self._loop, self._told = loop, told
        self._socket = bind_udp((HOST, 0))
        local = self._socket.getsockname()[:2]
        account, dice = Account(user, DOMAIN), random.SystemRandom()
        self.agent = UserAgent(account, local, proxy, dice, lambda call_id: AUDIO_PORT)
        self._timer: Timer | None = None
        loop.watch(self._socket, self._read)

    def do(self, outcome: Actions) -> None:
        for send in outcome.sends:
            self._socket.sendto(send.data, send.to)
        for event in outcome.events:
            self._told(self, event)
        if self._timer is not None:
            self._timer.cancel()
        due = self.agent.deadline
        self._timer = None if due is None else self._loop.at(due, self._on_deadline)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._socket)
        self._socket.close()

    def _on_deadline(self) -> None:
        self.do(self.agent.on_deadline(time.monotonic()))

    def _read(self) -> None:
        try:
            data, source = self._socket.recvfrom(DATAGRAM_OCTETS)
        except OSError:
            return
        self.do(self.agent.receive(data, source[:2], time.monotonic()))


class CallGenerator:
    """`states` may be read by any thread, everything else about calls is the loop's."""

    def __init__(self, proxy: Address, number: int) -> None:
        self.records = [CallRecord() for _ in range(number)]
        self._loop = Loop("calls")
        self._killed_at = 0.0
        self._callees = [
            Party(f"callee{index}", proxy, self._loop, self._callee_told) for index in range(number)
        ]
        self._callers = [
            Party(f"caller{index}", proxy, self._loop, self._caller_told) for index in range(number)
        ]

    # -- any thread --------------------------------------------------------------------------------

    def start(self) -> None:
        """Register the callees and call each of them, one after the other."""
        self._loop.start()
        for index, callee in enumerate(self._callees):
            self._after(index, partial(self._wish, callee, callee.agent.register))

    def probe(self) -> None:
        """Ask within every call, now, whether it is answered."""
        self._killed_at = _now()
        for caller in self._callers:
            self._loop.post(partial(self._wish, caller, caller.agent.probe))

    def hang_up(self) -> None:
        for index, caller in enumerate(self._callers):
            self._after(index, partial(self._wish, caller, caller.agent.hang_up))

    def stop(self) -> None:
        """Twice is fine."""
        for party in (*self._callees, *self._callers):
            self._loop.post(party.close)
        self._loop.stop(2.0)

    def states(self) -> list[str]:
        return [record.state for record in self.records]

    @property
    def talking(self) -> int:
        return self.states().count("talking")

    @property
    def ended(self) -> int:
        return self.states().count("ended")

    @property
    def probed(self) -> int:
        return sum(record.gap_ms is not None for record in self.records)

    @property
    def kept(self) -> int:
        """Calls that were answered after the crash."""
        return self.probed

    @property
    def talked(self) -> dict[str, float]:
        """Seconds by Call-ID, as the callers saw them."""
        return {
            record.call_id: record.ended_at - record.answered_at
            for record in self.records
            if record.ended_at is not None and record.answered_at is not None
        }

    def gap(self, quantile: float) -> float | None:
        gaps = sorted(record.gap_ms for record in self.records if record.gap_ms is not None)
        return gaps[min(len(gaps) - 1, int(len(gaps) * quantile))] if gaps else None

    # -- the loop's thread -------------------------------------------------------------------------

    def _after(self, index: int, act: Callable[[], object]) -> None:
        due = _now() + index * SPACING_SECONDS
        self._loop.post(lambda: self._loop.at(due, act))

    @staticmethod
    def _wish(party: Party, wish: Callable[[float], Actions]) -> None:
        party.do(wish(_now()))

    def _callee_told(self, party: Party, event: object) -> None:
        if isinstance(event, RegistrationChanged) and event.state is RegistrationState.REGISTERED:
            index = self._callees.index(party)
            if self.records[index].state == "idle":
                self.records[index].state = "calling"
                caller = self._callers[index]
                caller.do(caller.agent.call(party.user, _now()))
        if isinstance(event, CallChanged) and event.call.state is CallState.INCOMING:
            self._loop.post(lambda: party.do(party.agent.answer(_now())))

    def _caller_told(self, party: Party, event: object) -> None:
        record = self.records[self._callers.index(party)]
        if isinstance(event, CallChanged):
            record.state, record.call_id = event.call.state.value, event.call.id
            record.answered_at = event.call.answered_at
            record.ended_at = event.call.ended_at
        elif isinstance(event, ProbeAnswered) and event.status == 200 and self._killed_at:
            record.gap_ms = (event.at - self._killed_at) * 1000


def _now() -> float:
    return time.monotonic()
