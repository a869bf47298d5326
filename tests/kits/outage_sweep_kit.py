"""The crash sweep's total outages: both servers die at any message of a call, and people go on
meanwhile.

A flow is a list of wishes with their times. Both servers die at one message of it; half a second
later people do something (a deed), and then one server or both are back. A wish that its phone
cannot follow any more is left out; in the end whoever is still in the call hangs up. There is no
calm course to compare with, so this is checked:

 1. The call ends on both phones, and no phone rang twice for it.
 2. There is one bill, and it ends: within a second of the first hang-up that a phone could tell of
    at once.
 3. It costs nothing unless Alice's phone heard of Bob's answer while she was on the line; if they
    talked for a second, it costs something, and never more than from Bob's picking up to the
    hang-up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

from sweep_kit import (
    ENDED,
    INCOMING,
    POINTS,
    RINGING,
    TALKING,
    Cell,
    DoomedServer,
    Fault,
    Flow,
    Handset,
    MemoryStage,
)
from wire import World

from plumbing.address import Address
from slee_mock.services.bill_record import Bill, total_at
from slee_mock.services.call_record import TIMER_C_SECONDS
from softphone.ua.events import CallState, MessagePassed

CALLING = CallState.CALLING
BOTH, BOTH_LATE, ONE = (
    "both killed, back after 2 s",
    "both killed, back after 10 s",
    "both killed, one back after 2 s",
)
OUTAGES = {
    BOTH: (2.0, True),
    BOTH_LATE: (10.0, True),
    ONE: (2.0, False),
}  # seconds; is server1 back as well?

Wishes = Sequence[tuple[float, str]]  # (seconds, "user wish")
CALL, ANSWER = (0.0, "alice calls"), (1.0, "bob answers")
FLOWS: dict[str, Wishes] = {
    "caller hangs up": (CALL, ANSWER, (4.5, "alice hang_up")),
    "callee hangs up": (CALL, ANSWER, (4.5, "bob hang_up")),
    "cancel": (CALL, (2.0, "alice hang_up")),
    "decline": (CALL, (2.0, "bob hang_up")),
    "hold and resume": (
        CALL,
        ANSWER,
        (2.0, "alice hold"),
        (3.0, "alice resume"),
        (4.5, "alice hang_up"),
    ),
}
# Of the person's wishes that follow the outage: the times count from it.
DEEDS: dict[str, Wishes] = {
    "nobody does anything": (),
    "alice hangs up": ((0.5, "alice hang_up"),),
    "bob hangs up": ((0.5, "bob hang_up"),),
    "both hang up": ((0.5, "bob hang_up"), (0.8, "alice hang_up")),
    "bob answers": ((0.5, "bob answers"),),
    "bob answers, alice hangs up": ((0.5, "bob answers"), (1.0, "alice hang_up")),
    "alice hangs up, bob answers": ((0.5, "alice hang_up"), (1.0, "bob answers")),
}
MAIN_DEEDS = ["alice hangs up", "bob hangs up", "alice hangs up, bob answers"]
STEP = 0.02  # seconds between two looks at the phones
PATIENCE = 15.0  # seconds after the outage, at whose end everybody hangs up
GIVING_UP = 240.0  # seconds after that, in which every timer runs out
ALLOWED = {
    "calls": (None,),
    "answers": (INCOMING,),
    "hold": (TALKING,),
    "resume": (TALKING,),
    "hang_up": (CALLING, RINGING, INCOMING, TALKING),
}


@dataclass
class Seen:
    """What a story has seen. `hung_up`: when somebody did first, if the phone could say so at once;
    it may not say BYE before its answer was acknowledged (RFC 3261 15), nor CANCEL before it has
    heard of the other phone (9.1)."""

    someone_left: bool = False
    hung_up: float | None = None
    picked_up: float | None = None
    talked: float = 0.0  # seconds in which both were talking


class OutageStage(Protocol):
    """A stage both of whose servers die at the fault."""

    handsets: dict[str, Handset]

    @property
    def now(self) -> float: ...
    def wait(self, seconds: float) -> None: ...
    def bills(self) -> list[Bill]: ...
    def struck_at(self) -> float | None:
        """When the servers died; None: they live."""

    def revive(self, both: bool) -> None:
        """Starts server2 anew, or both."""


class Story:
    """One telling of a flow in which both servers die, and what must have come of it."""

    def __init__(
        self, stage: OutageStage, patience: float = PATIENCE, giving_up: float = GIVING_UP
    ) -> None:
        self._stage, self._patience, self._giving_up = stage, patience, giving_up
        self._alice, self._bob = stage.handsets["alice"], stage.handsets["bob"]
        self.seen = Seen()

    def register(self) -> None:
        for handset in (self._alice, self._bob):
            handset.does("register")
            deadline = self._stage.now + 20.0
            while not handset.registered:
                _expect(self._stage.now < deadline, f"{handset.user} cannot register")
                self._stage.wait(STEP)

    def tell(self, wishes: Wishes, deeds: Wishes, fate: str) -> None:
        pause, both = OUTAGES[fate]
        todo = [(self._stage.now + seconds, wish) for seconds, wish in wishes]
        end, back, is_struck = todo[-1][0] + 3.0, math.inf, False
        while self._stage.now < end:
            struck_at = self._stage.struck_at()
            if struck_at is not None and not is_struck:
                todo += [(struck_at + seconds, wish) for seconds, wish in deeds]
                back, end, is_struck = struck_at + pause, struck_at + pause + self._patience, True
            if self._stage.now >= back:
                back = math.inf
                self._stage.revive(both)
            due = sorted(each for each in todo if each[0] <= self._stage.now)
            todo = [each for each in todo if each not in due]
            for _, wish in due:
                self._carry_out(wish)
            self._look()
        for user in ("alice", "bob"):
            self._carry_out(f"{user} hang_up")
        end = self._stage.now + self._giving_up
        while self._stage.now < end and not self._is_over():
            self._stage.wait(0.5)

    def _carry_out(self, wish: str) -> None:
        user, deed = wish.split()
        handset = self._stage.handsets[user]
        if handset.state not in ALLOWED[deed]:
            return
        if deed == "calls":
            handset.calls("bob")
        elif deed == "answers":
            self.seen.picked_up = self._stage.now
            handset.answers()
        else:
            if deed == "hang_up":
                self._note_hang_up(handset)
            handset.does(deed)

    def _note_hang_up(self, handset: Handset) -> None:
        if self.seen.someone_left:
            return
        self.seen.someone_left = True
        if handset.state in (RINGING, TALKING) and not _awaits_ack(handset):
            self.seen.hung_up = self._stage.now

    def _look(self) -> None:
        self._stage.wait(STEP)
        if self._alice.state is TALKING and self._bob.state is TALKING:
            self.seen.talked += STEP

    @property
    def _is_refused(self) -> bool:
        """Was Alice told that no server can take the call? It had not gone any further then."""
        return not self._bob.rings and self._alice.state is ENDED

    def _is_over(self) -> bool:
        ended = all(handset.state in (None, ENDED) for handset in (self._alice, self._bob))
        return ended and all(total_at(bill, self._stage.now).final for bill in self._stage.bills())

    # -- what must have come of it -----------------------------------------------------------------

    def check(self) -> float:
        """Returns how many seconds the bill's end is off the hang-up. Raises AssertionError."""
        for handset in (self._alice, self._bob):
            states = {view.state for view in handset.views}
            _expect(states <= {ENDED}, f"{handset.user} ends with a call that is {states}")
        _expect(self._bob.rings <= 1, f"bob's phone rang {self._bob.rings} times")
        bills = self._stage.bills()
        _expect(len(bills) <= 1 and (bills or not self._bob.rings), f"{len(bills)} bills")
        return self._check_bill(bills[0]) if bills else 0.0

    def _check_bill(self, bill: Bill) -> float:
        total, seen = total_at(bill, self._stage.now), self.seen
        told = f"{total.total} for {seen.talked:.1f} s of talk ({total.why})"
        if self._is_refused and bill.answered is None and self._giving_up < TIMER_C_SECONDS:
            return 0.0  # its timer ends it
        _expect(total.final and total.ended is not None, f"a bill is left open: {total.why}")
        assert total.ended is not None
        _expect(bill.offered <= total.ended, "the bill ends before its call")
        heard = self._alice.view.answered_at
        _expect(not total.units or heard is not None, f"a bill without talk: {told}")
        _expect(total.units or seen.talked < 1.0, f"talk without a bill: {told}")
        shares = sum(seconds for _, seconds in total.carried)
        _expect(shares == total.seconds, "the shares do not add up")
        if seen.hung_up is None:
            return 0.0
        late = total.ended - seen.hung_up
        _expect(abs(late) <= 1.0, f"the bill ends {late:+.3f} s from the hang-up: {total.why}")
        if total.units:
            assert seen.picked_up is not None
            most = seen.hung_up - seen.picked_up + 1.0
            _expect(
                total.seconds <= most, f"{total.seconds} s are billed instead of {most:.0f} at most"
            )
        return late


def _awaits_ack(handset: Handset) -> bool:
    """Has the phone answered an INVITE, and heard no ACK yet?"""
    awaits = False
    for event in handset.events:
        if isinstance(event, MessagePassed):
            if event.sent and event.summary.startswith("200") and "INVITE" in event.summary:
                awaits = True
            elif not event.sent and event.summary.startswith("ACK"):
                awaits = False
    return awaits


def _expect(condition: object, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


# -- in memory -------------------------------------------------------------------------------------


class LastServer(DoomedServer):
    """The one with the fault, and the other one dies with it."""

    def __init__(self, world: World, name: str, fault: Fault | None) -> None:
        super().__init__(world, name, fault)
        self.struck_at: float | None = None

    def receive(self, data: bytes, source: Address, now: float) -> list[Any]:
        packets = super().receive(data, source, now)
        if self.struck_at is None and self._struck:
            self.struck_at, self.killed, self._due = now, True, None
            self._world.servers["server2"].killed = True
        return packets


class MemoryOutage(MemoryStage):
    def __init__(self, flow: Flow, fault: Fault | None = None, seed: int | None = None) -> None:
        super().__init__(flow, fault, seed)
        self._last = LastServer(self.world, "server1", fault)
        self._server = self.world.servers["server1"] = self._last

    def struck_at(self) -> float | None:
        return self._last.struck_at

    def revive(self, both: bool) -> None:
        for name in ("server1", "server2") if both else ("server2",):
            self.world.restart(name)


Opening = Callable[
    ..., AbstractContextManager[Any]
]  # (flow, fault or None, seed or None) -> OutageStage


def steps_of(name: str) -> list[str]:
    """The first server's messages where nothing fails; the first two are the phones'
    registrations."""
    with MemoryOutage(_flow(name)) as stage:
        story = Story(stage)
        story.register()
        story.tell(FLOWS[name], (), BOTH)
        return stage.handled()


def _flow(name: str) -> Flow:
    return Flow(f"total outage: {name}", lambda play: None)


@dataclass(frozen=True)
class Plan:
    """One cell to be played. `step`: the message at which both servers die."""

    name: str
    deed: str
    step: str
    fault: Fault


def plans(
    names: Iterable[str] = tuple(FLOWS),
    fates: Sequence[str] = tuple(OUTAGES),
    points: Sequence[str] = POINTS,
    deeds: Sequence[str] = tuple(DEEDS),
) -> Iterator[Plan]:
    """Every message of these flows, with these points, fates and deeds."""
    for name in names:
        steps = steps_of(name)
        for number in range(3, len(steps) + 1):
            for deed, point, fate in product(deeds, points, fates):
                yield Plan(name, deed, steps[number - 1], Fault(number, point, fate))


def strike_both(
    plan: Plan, seed: int | None = None, opening: Opening = MemoryOutage, **waits: float
) -> Cell:
    """`waits`: as of Story."""
    flow, fault = _flow(plan.name), plan.fault
    step = f"{fault.number} {plan.step}"
    cell = Cell(f"{flow.name}, {plan.deed}", step, fault.point, fault.fate, seed)
    try:
        with opening(flow, fault, seed) as stage:
            story = Story(stage, **waits)
            story.register()
            story.tell(FLOWS[plan.name], DEEDS[plan.deed], fault.fate)
            return replace(cell, bill_error=story.check())
    except AssertionError as trouble:
        return replace(cell, trouble=str(trouble))


def sweep_outages(seed: int | None = None, **which: Any) -> Iterator[Cell]:
    """In memory; `which` as of `plans`."""
    return (strike_both(plan, seed) for plan in plans(**which))
