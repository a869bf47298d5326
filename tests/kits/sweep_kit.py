"""The crash sweep: call flows told as stories, a server that dies at any message of them, and what
is checked then.

A flow knows only a `Stage`: phones, time, the cluster's bills. Here is the stage in memory, on one
fake clock; the one of real processes is in sweep_process_kit.py. The fault switch is part of the
stages, never of the product.

What a bill is held to needs no tolerance, for its times are saved before the message that they come
from goes on: the answer is billed from a moment between the called person's picking up and the
other phone's hearing of it, until one between somebody's hanging up and the other phone's hearing
of that. Where nothing but the server fails, the bill's length is moreover the talk's within the
time that the forwarder takes to notice (`BOUND`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import wire
from agent_kit import DELAY, Line
from wire import DAY, HEARTBEAT, SERVERS, World

from plumbing.address import Address
from sip.message import Request, parse
from sip.timing import T2
from slee_mock.services.bill_record import Bill, total_at
from slee_mock.services.bindings_record import Bindings
from slee_mock.store.interface import Transaction
from softphone.ua.events import (
    CallChanged,
    CallState,
    CallView,
    Direction,
    MessagePassed,
    RegistrationChanged,
    RegistrationState,
)

RINGING, INCOMING, TALKING, ENDED = (
    CallState.RINGING,
    CallState.INCOMING,
    CallState.TALKING,
    CallState.ENDED,
)

RECEIVED = "on receiving it"  # nothing saved, nothing sent
SAVED = "saved, not sent"
POINTS = (RECEIVED, SAVED)
KILLED, BACK, FROZEN = "killed", "killed, back after 2 s", "frozen for 2 s"
ZOMBIE = "answers heartbeats, drops everything else"
FATES = (KILLED, BACK, FROZEN, ZOMBIE)
PAUSE = 2.0  # seconds that BACK and FROZEN take
# By the forwarder; and then the way once more. A zombie is found by what phones say again and
# again.
NOTICED = {KILLED: HEARTBEAT, BACK: HEARTBEAT, FROZEN: 4 * HEARTBEAT, ZOMBIE: 3.0}
BOUND = {fate: seconds + 10 * DELAY for fate, seconds in NOTICED.items()}
FELT = 0.02  # seconds; nobody notices less


@dataclass(frozen=True)
class Fault:
    """The server dies at its `number`th message, heartbeats not counted."""

    number: int
    point: str
    fate: str = KILLED


@dataclass(frozen=True)
class Cell:
    """One crash and what became of it. `bill_error`: seconds billed too much (or too few) of those
    talked."""

    flow: str
    step: str
    point: str
    fate: str
    seed: int | None
    delay: float = 0.0
    bill_error: float = 0.0
    trouble: str = ""

    @property
    def verdict(self) -> str:
        if self.trouble:
            return f"LOST: {self.trouble}"
        return "kept" if self.delay < FELT else f"delayed by {self.delay * 1000:.0f} ms"

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict.partition(" ")[0].rstrip(":").lower()}


# -- what a flow is told with ----------------------------------------------------------------------


class Handset:
    """A phone, known by what it tells. `does`, `calls` and `answers` are its person's."""

    def __init__(self, user: str, address: Address, events: list[Any]) -> None:
        self.user, self.address = user, address
        self.events, self._heard = events, 0
        self._calls: dict[str, CallView] = {}
        self._registration: RegistrationChanged | None = None
        self._registered = 0

    def does(self, wish: str) -> None:
        raise NotImplementedError

    def calls(self, target: str) -> None:
        raise NotImplementedError

    def answers(self) -> None:
        raise NotImplementedError

    def _hear(self) -> None:
        while self._heard < len(self.events):
            event = self.events[self._heard]
            self._heard += 1
            if isinstance(event, CallChanged):
                self._calls[event.call.id] = event.call
            elif isinstance(event, RegistrationChanged):
                self._registration = event
            elif isinstance(event, MessagePassed):
                self._registered += (
                    not event.sent
                    and event.summary.startswith("200")
                    and "REGISTER" in event.summary
                )

    @property
    def views(self) -> list[CallView]:
        self._hear()
        return list(self._calls.values())

    @property
    def view(self) -> CallView:
        return self.views[-1]

    @property
    def state(self) -> CallState | None:
        views = self.views
        return views[-1].state if views else None

    @property
    def registered(self) -> int:
        """How many registrations were confirmed; 0 if the last one was not."""
        self._hear()
        is_registered = (
            self._registration and self._registration.state is RegistrationState.REGISTERED
        )
        return self._registered if is_registered else 0

    @property
    def rings(self) -> int:
        return sum(view.direction is Direction.INCOMING for view in self.views)


class Stage(Protocol):
    """Where a flow is played. `talk`: how long people talk, in seconds."""

    talk: float
    handsets: dict[str, Handset]

    @property
    def now(self) -> float: ...
    def until(self, condition: Callable[[], object], what: str) -> None: ...
    def wait(self, seconds: float) -> None: ...
    def settle(self) -> None:
        """Until whatever is still under way must have arrived."""

    def bills(self) -> list[Bill]:
        """With their times on the stage's own clock."""

    def live(self, user: str) -> int:
        """How many bindings a user has."""

    def handled(self) -> list[str]:
        """What the first server was given, heartbeats left out. In the end: it may be stopped by
        this."""

    def demand(self, fault: Fault, bill_error: float) -> None:
        """What can be asked for on this stage alone; AssertionError if it is not so."""


class Play:
    """One telling of a flow: what its people do, how long they wait for each effect, and what must
    come of it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.alice, self.bob = stage.handsets["alice"], stage.handsets["bob"]
        self.waits: list[float] = []
        self.picked_up = self.left = 0.0
        self.leaver: Handset | None = None
        self.attempts = 0  # calls that somebody placed

    def until(self, condition: Callable[[], object], what: str) -> None:
        began = self.stage.now
        self.stage.until(condition, what)
        self.waits.append(self.stage.now - began)

    def until_states(self, alice: CallState, bob: CallState) -> None:
        self.until(
            lambda: (self.alice.state, self.bob.state) == (alice, bob),
            f"{alice.value} and {bob.value}",
        )

    def register(self, *users: str) -> None:
        for handset in (self.stage.handsets[user] for user in users or self.stage.handsets):
            before = handset.registered
            handset.does("register")
            self.until(
                lambda handset=handset, before=before: handset.registered > before,
                f"{handset.user} registers",
            )

    def ring(self) -> None:
        self.attempts += 1
        self.alice.calls("bob")
        self.until_states(RINGING, INCOMING)

    def answer(self) -> None:
        self.picked_up = self.stage.now
        self.bob.answers()
        self.until_states(TALKING, TALKING)

    def hang_up(self, who: Handset) -> None:
        self.leaver, self.left = who, self.stage.now
        who.does("hang_up")
        self.until_states(ENDED, ENDED)

    def converse(self) -> None:
        self.register()
        self.ring()
        self.answer()
        self.stage.wait(self.stage.talk)

    def until_told(self, alice: str, bob: str) -> None:
        self.until(
            lambda: (self.alice.view.sentence, self.bob.view.sentence) == (alice, bob),
            f"{alice} / {bob}",
        )

    # -- what must have come of it -----------------------------------------------------------------

    def check(self, rings: int, *told: str) -> None:
        """`rings` calls reached phones in all; `told` are Alice's last sentence and Bob's."""
        self.stage.settle()
        ringing = sum(handset.rings for handset in self.stage.handsets.values())
        _expect(ringing == rings, f"{ringing} calls rang instead of {rings}")
        for handset, sentence in zip((self.alice, self.bob), told, strict=False):
            _expect(
                handset.view.sentence == sentence,
                f"{handset.user} was told '{handset.view.sentence}'",
            )
        for handset in self.stage.handsets.values():
            _expect(handset.registered, f"{handset.user} is not registered any more")
            _expect(
                self.stage.live(handset.user) == 1,
                f"{handset.user} has {self.stage.live(handset.user)} bindings",
            )
            states = {view.state for view in handset.views}
            _expect(states <= {ENDED}, f"{handset.user} ends with a call that is {states}")
        bills = self.stage.bills()
        _expect(len(bills) == self.attempts, f"{len(bills)} bills instead of {self.attempts}")
        for bill in bills:
            self._check_bill(bill)

    def _check_bill(self, bill: Bill) -> None:
        total = total_at(bill, self.stage.now)
        _expect(total.final, f"a bill is left open: {total.why}")
        if not self.picked_up:
            _expect(
                bill.answered is None and total.seconds == 0,
                "a call that nobody answered is billed",
            )
            return
        assert bill.answered is not None and bill.ended is not None and self.leaver is not None
        other = self.bob if self.leaver is self.alice else self.alice
        heard, heard_of_end = self.alice.view.answered_at, other.view.ended_at
        assert heard_of_end is not None
        _between(self.picked_up, bill.answered, heard or heard_of_end, "the answer")
        _between(self.left, bill.ended, heard_of_end, "the end")
        _expect(
            total.seconds == int(bill.ended - bill.answered), f"the bill says {total.seconds} s"
        )

    @property
    def bill_error(self) -> float:
        answered = [
            bill
            for bill in self.stage.bills()
            if bill.answered is not None and bill.ended is not None
        ]
        return (
            sum(bill.ended - bill.answered for bill in answered) - (self.left - self.picked_up)
            if answered
            else 0.0
        )


def _expect(condition: object, sentence: str) -> None:
    if not condition:
        raise AssertionError(sentence)


ROUNDING = 0.002  # seconds; two clocks are compared where processes play


def _between(early: float, moment: float, late: float, what: str) -> None:
    sentence = f"{what} is billed {moment - early:+.3f} s from the wish, {moment - late:+.3f} s from when it was heard"
    _expect(early - ROUNDING <= moment <= late + ROUNDING, sentence)


# -- the flows -------------------------------------------------------------------------------------


def _register(play: Play) -> None:
    play.register()
    play.register()  # and its refresh
    play.check(0)


def _caller_hangs_up(play: Play) -> None:
    play.converse()
    play.hang_up(play.alice)
    play.check(1, "You hung up", "Alice hung up")


def _callee_hangs_up(play: Play) -> None:
    play.converse()
    play.hang_up(play.bob)
    play.check(1, "Bob hung up", "You hung up")


def _cancel(play: Play) -> None:
    play.register()
    play.ring()
    play.hang_up(play.alice)
    play.check(1, "You hung up", "Missed call from Alice")


def _busy(play: Play) -> None:
    carol = play.stage.handsets["carol"]
    play.register()
    play.bob.calls("carol")
    play.until(lambda: (play.bob.state, carol.state) == (RINGING, INCOMING), "carol's phone rings")
    play.alice.calls("bob")
    play.attempts = 2
    play.until(lambda: play.alice.state is ENDED, "alice hears of it")
    play.bob.does("hang_up")
    play.until(lambda: (play.bob.state, carol.state) == (ENDED, ENDED), "carol's phone is quiet")
    play.check(1, "Bob is busy", "You hung up")


def _hold(play: Play) -> None:
    play.converse()
    play.alice.does("hold")
    play.until_told("Bob is on hold", "Alice has put the call on hold")
    _expect(
        play.alice.view.held_here and play.bob.view.held_there,
        "one of the phones does not know of the hold",
    )
    play.alice.does("resume")
    play.until_told("Talking with Bob", "Talking with Alice")
    _expect(
        not play.alice.view.held_here and not play.bob.view.held_there,
        "one of the phones is still on hold",
    )
    play.hang_up(play.alice)
    play.check(1, "You hung up", "Alice hung up")


def _reregister(play: Play) -> None:
    play.converse()
    play.register("alice")
    play.register("bob")
    play.hang_up(play.bob)
    play.check(1, "Bob hung up", "You hung up")


def _crossing(play: Play) -> None:
    """The CANCEL meets the answer on its way (RFC 3261 9.1)."""
    play.register()
    play.ring()
    play.picked_up = play.stage.now
    play.bob.answers()
    play.hang_up(play.alice)
    play.check(1, "You hung up", "Alice hung up")


def _glare(play: Play) -> None:
    """Both hold at the same moment: 491, and each tries again after a while of its own (RFC 3261
    14.1)."""
    play.converse()
    play.alice.does("hold")
    play.bob.does("hold")

    def is_held(handset: Handset) -> bool:
        return handset.view.held_here and handset.view.held_there

    play.until(lambda: is_held(play.alice) and is_held(play.bob), "each holds the other")
    play.hang_up(play.alice)
    play.check(1, "You hung up", "Alice hung up")


@dataclass(frozen=True)
class Flow:
    """`begins`: how many messages of the server pass before that is swept; the registrations have a
    flow of their own. `timed`: it is about moments that only one clock for all can meet, and is
    played in memory alone."""

    name: str
    tell: Callable[[Play], None]
    begins: int = 2
    users: bool = False
    others: Sequence[str] = ()
    timed: bool = False


FLOWS = {
    flow.name: flow
    for flow in (
        Flow("register", _register, begins=0),
        Flow("caller hangs up", _caller_hangs_up),
        Flow("callee hangs up", _callee_hangs_up),
        Flow("cancel", _cancel),
        Flow("busy", _busy, begins=3, others=("carol",)),
        Flow("hold and resume", _hold),
        Flow("register in mid-call", _reregister),
        Flow("digest", _caller_hangs_up, begins=0, users=True),
        Flow("cancel crosses answer", _crossing, timed=True),
        Flow("both hold at once", _glare, timed=True),
    )
}
PASSWORDS = {"alice": "secret", "bob": "hush"}


# -- in memory -------------------------------------------------------------------------------------


class DoomedServer(wire.Server):
    """The one with the fault."""

    def __init__(self, world: World, name: str, fault: Fault | None) -> None:
        super().__init__(world, name)
        self.fault = fault
        self.names: list[str] = []
        self._unsent: list[Any] = []
        self._due: float | None = None

    def receive(self, data: bytes, source: Address, now: float) -> list[Any]:
        if self._struck:
            return super().receive(data, source, now)
        self.names.append(name_of(data))
        if not self.fault or len(self.names) != self.fault.number:
            return super().receive(data, source, now)
        if self.fault.point == SAVED:
            self._unsent = super().receive(data, source, now)
        fate = self.fault.fate
        self._due = None if fate in (KILLED, ZOMBIE) else now + PAUSE
        self.frozen, self.zombie = fate == FROZEN, fate == ZOMBIE
        self.killed = not (self.frozen or self.zombie)
        return super().receive(data, source, now) if self.fault.point == RECEIVED else []

    @property
    def _struck(self) -> bool:
        return self.fault is not None and len(self.names) >= self.fault.number

    def on_deadline(self, now: float) -> list[Any]:
        if self._due is not None and now >= self._due and (self.killed or self.frozen):
            if self.killed:
                self.restart(now)
            if self.frozen:
                self._world.network.send(self._unsent, SERVERS[self.name])
                self.thaw()
        return super().on_deadline(now)


def name_of(data: bytes) -> str:
    message = parse(data)
    return (
        message.method
        if isinstance(message, Request)
        else f"{message.status} {message.cseq.method}"
    )


class _MemoryHandset(Handset):
    def __init__(self, line: Line) -> None:
        super().__init__(line.user, line.address, line.events)
        self._line = line

    def does(self, wish: str) -> None:
        self._line.does(wish)

    def calls(self, target: str) -> None:
        self._line.calls(target)

    def answers(self) -> None:
        self._line.answers()


class MemoryStage:
    """`seed`: throws the dice for a network that loses every twelfth datagram, holds up every fifth
    so that others overtake it, and delivers every twentieth twice."""

    talk = 3.5

    def __init__(self, flow: Flow, fault: Fault | None = None, seed: int | None = None) -> None:
        self.world = self.make_world(PASSWORDS if flow.users else None)
        self._server = self.world.servers["server1"] = DoomedServer(self.world, "server1", fault)
        lines = [self.world.alice, self.world.bob]
        lines += [self.world.phone(user, 5066 + 2 * n) for n, user in enumerate(flow.others)]
        self.handsets: dict[str, Handset] = {line.user: _MemoryHandset(line) for line in lines}
        self._lossy = seed is not None
        if seed is not None:
            dice = random.Random(seed)
            self.world.network.lose = lambda passage: dice.random() < 1 / 12
            self.world.network.delays = lambda passage: _bad_delays(dice)

    def make_world(self, users: dict[str, str] | None) -> World:
        return World(users)

    def __enter__(self) -> MemoryStage:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def now(self) -> float:
        return self.world.network.now

    def until(self, condition: Callable[[], object], what: str) -> None:
        try:
            self.world.network.run_until(condition, within=64.0)
        except AssertionError:
            raise AssertionError(f"never came about: {what}") from None

    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    def settle(self) -> None:
        passed, before = self.world.network.passed, -1
        while len(passed) > before:
            before = len(passed)
            self.world.run(T2 + 0.5)  # nobody repeats anything at longer intervals

    def bills(self) -> list[Bill]:
        return [moved(bill, DAY) for bill in Transaction(self.world.cluster.store).scan(Bill)]

    def live(self, user: str) -> int:
        known = Transaction(self.world.cluster.store).read(Bindings, f"sip:{user}@failover.test")
        return len(known.live(DAY + self.now)) if known else 0

    def handled(self) -> list[str]:
        return self._server.names

    def demand(self, fault: Fault, bill_error: float) -> None:
        _expect(len(self.handled()) >= fault.number, "the server never got so far")
        if not self._lossy:
            _expect(
                abs(bill_error) <= BOUND[fault.fate], f"the bill is wrong by {bill_error:.3f} s"
            )
            repeats = self.world.phones_retransmissions if fault.fate != ZOMBIE else 0
            _expect(not repeats, f"phones had to repeat themselves {repeats} times")


def _bad_delays(dice: random.Random) -> list[float]:
    copies = 2 if dice.random() < 1 / 20 else 1
    return [DELAY * (1 + 20 * dice.random() * (dice.random() < 1 / 5)) for _ in range(copies)]


def moved(bill: Bill, by: float) -> Bill:
    """The bill with its times on another clock."""
    values = {
        name: getattr(bill, name) for name in ("offered", "rang", "answered", "given_up", "ended")
    }
    carriers = tuple(type(each)(each.server, each.since - by) for each in bill.carriers)
    times = {name: None if value is None else value - by for name, value in values.items()}
    return type(bill)(**{**vars(bill), **times, "carriers": carriers})


# -- the sweep -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Calm:
    """A flow as it goes when nothing fails: the server's messages and how long everybody waited."""

    steps: Sequence[str]
    waits: Sequence[float]


Opening = Callable[..., AbstractContextManager[Stage]]  # (flow, fault or None, seed or None)


def play_calmly(flow: Flow, seed: int | None = None, opening: Opening = MemoryStage) -> Calm:
    with opening(flow, None, seed) as stage:
        play = Play(stage)
        flow.tell(play)
        return Calm(stage.handled(), play.waits)


def faults(flow: Flow, calm: Calm, fates: Sequence[str] = FATES) -> Iterator[Fault]:
    """Every message of the flow, every point, these fates. Of a zombie the flows alone that do not
    live by the moment: it is found out in a second or two, and what was to cross does not cross
    then."""
    fates = [fate for fate in fates if fate != ZOMBIE or not flow.timed]
    for number in range(flow.begins + 1, len(calm.steps) + 1):
        for point in POINTS:
            for fate in fates:
                yield Fault(number, point, fate)


def strike(
    flow: Flow, fault: Fault, calm: Calm, seed: int | None = None, opening: Opening = MemoryStage
) -> Cell:
    """One cell of the matrix."""
    cell = Cell(
        flow.name, f"{fault.number} {calm.steps[fault.number - 1]}", fault.point, fault.fate, seed
    )
    try:
        with opening(flow, fault, seed) as stage:
            play = Play(stage)
            flow.tell(play)
            late = max(wait - usual for wait, usual in zip(play.waits, calm.waits, strict=True))
            cell = replace(cell, delay=max(0.0, late), bill_error=play.bill_error)
            stage.demand(fault, cell.bill_error)
    except AssertionError as trouble:
        return replace(cell, trouble=str(trouble))
    return cell


def sweep(flow: Flow, seed: int | None = None, fates: Sequence[str] = FATES) -> Iterator[Cell]:
    """All cells of a flow, in memory."""
    calm = play_calmly(flow, seed)
    return (strike(flow, fault, calm, seed) for fault in faults(flow, calm, fates))
