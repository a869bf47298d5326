"""The use case of the document as nine steps, and what must be observed for each. Pure:
observations in, rows out.

`STEPS` is the table; each step's check reads the `DemoState` and answers with words for the row and
whether they fulfil it. A step once fulfilled stays so until the next call begins or somebody starts
again. With two forwarders there is one step more, PAIR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from stage.observation.observations import Audio, CallStateChanged, ProcessKilled, ServerFailover
from stage.scenes.state import DemoState, Roles

HEARD_GAP_MS = 400.0  # a pause of the audio that a listener would call an interruption
AUDIO_PACKETS = 40  # 0.8 s of audio at 20 ms a packet, to say that audio goes on
ACTIVE = ("calling", "ringing", "incoming", "talking")  # a phone in one of these states is in use


class CheckResult(NamedTuple):
    """A check's answer: fulfilled or not, and the words beside the step."""

    observed: bool
    words: str = ""


NOT_YET = CheckResult(False)


def two_servers(state: DemoState) -> CheckResult:
    servers = {state.cast.first, state.cast.second}
    if servers <= state.up and servers <= state.members:
        return CheckResult(True, f"{state.hot} first")
    missing = sorted(servers - state.up)
    return CheckResult(
        False, f"{' and '.join(missing)} down" if missing and (state.up or state.members) else ""
    )


def registered(state: DemoState) -> CheckResult:
    phones = (state.cast.caller, state.cast.callee)
    if not all(state.registered.get(phone) and phone in state.registrar for phone in phones):
        return NOT_YET
    servers = [state.registrar[phone] for phone in phones]
    if servers[0] == servers[1]:
        return CheckResult(True, f"through {servers[0]}")
    return CheckResult(
        True, ", ".join(f"{phone} through {state.registrar[phone]}" for phone in phones)
    )


def called(state: DemoState) -> CheckResult:
    if state.rang_at is None or (state.placed_by is None and not state.calls):
        return NOT_YET
    if state.placed_by is None:
        return CheckResult(True, f"{state.callee} rings")
    after = milliseconds((state.rang_at - state.placed_at) * 1000)
    return CheckResult(True, f"{state.callee} rings after {after}")


def answered(state: DemoState) -> CheckResult:
    if not state.talking:
        return NOT_YET
    return CheckResult(True, f"through {state.answered_through}" if state.answered_through else "")


def crashed(state: DemoState) -> CheckResult:
    if state.killed is None or not state.died:
        return NOT_YET
    done = "stopped" if state.killed.frozen else "killed"
    return CheckResult(True, f"process {state.killed.pid} {done}")


def taken_over(state: DemoState) -> CheckResult:
    if state.killed is None or state.taken_over is None:
        return NOT_YET
    if state.takeover_ms is not None:
        return CheckResult(True, milliseconds(state.takeover_ms))
    moved, words = state.taken_over.at - state.killed.at, f"{state.taken_over.target} chosen"
    # earlier if it was held still before it was killed
    return CheckResult(False, f"{words} after {milliseconds(moved * 1000)}" if moved > 0 else words)


def uninterrupted(state: DemoState) -> CheckResult:
    if state.killed is None or state.taken_over is None or not state.talking:
        return NOT_YET
    if state.held:
        return CheckResult(False, "on hold")
    silence = Audio(0.0, "", 0, 0.0, 0)
    fresh = [
        audio.packets - state.audio_at_kill.get(phone, silence).packets
        for phone, audio in state.audio.items()
    ]
    gap, lost = state.longest_gap_ms, state.lost
    if len(fresh) < len(state.calls) or gap is None or lost is None:
        return NOT_YET
    # the phones show the longest gap of the whole call
    words = f"gap at crash {milliseconds(gap)}, {lost} lost"
    return CheckResult(min(fresh) >= AUDIO_PACKETS and gap <= HEARD_GAP_MS, words)


def hung_up(state: DemoState) -> CheckResult:
    if state.hung_up_by is None or not state.over:
        return NOT_YET
    talk = state.talk_seconds
    return CheckResult(True, f"after {talk:.1f} s" if talk is not None else "")


def billed(state: DemoState) -> CheckResult:
    bill = state.bill
    if bill is None or not bill.final or (state.killed and bill.server != state.second):
        return NOT_YET
    return CheckResult(True, f"{bill.total} {bill.currency}")


def address_taken(state: DemoState) -> CheckResult:
    killed = state.forwarder_killed
    if killed is None:
        return NOT_YET
    if state.successor in (None, killed.program):
        return CheckResult(
            False,
            f"{killed.program} dead"
            if state.successor is None
            else f"no standby for {killed.program}",
        )
    if state.forwarder_takeover_ms is None or not state.passed_successor:
        return CheckResult(False, f"{state.successor} is active")
    return CheckResult(True, milliseconds(state.forwarder_takeover_ms))


Number = int | str  # of a step: the document's nine are counted


@dataclass(frozen=True)
class Step:
    """`text` names the phones and servers of the present call."""

    number: Number
    text: Callable[[DemoState], str]
    check: Callable[[DemoState], CheckResult]


def named(text: str) -> Callable[[DemoState], str]:
    """A text whose {caller}, {callee}, {first}, {second} ... are those of the state."""
    return lambda state: text.format(
        caller=state.caller,
        callee=state.callee,
        leaver=state.hung_up_by or state.caller,
        first=state.first.capitalize(),
        second=state.second.capitalize(),
        reader=(state.bill.server if state.bill else state.second).capitalize(),
        forwarder=(_dying_forwarder(state) or "The forwarder").capitalize(),
        standby=_standby(state),
        dies="freezes" if state.killed and state.killed.frozen else "crashes",
    )


def _dying_forwarder(state: DemoState) -> str | None:
    return state.forwarder_killed.program if state.forwarder_killed else state.active


def _standby(state: DemoState) -> str:
    dying = _dying_forwarder(state)
    return next((each for each in state.cast.forwarders if each != dying), "its standby")


STEPS = (
    Step(1, named("Two servers run and share one cluster."), two_servers),
    Step(2, named("Both phones register."), registered),
    Step(3, named("{caller} calls {callee}."), called),
    Step(4, named("{callee} answers."), answered),
    Step(5, named("{first} {dies}."), crashed),
    Step(6, named("{second} takes over, unnoticed by both phones."), taken_over),
    Step(7, named("The call continues uninterrupted."), uninterrupted),
    Step(8, named("{leaver} hangs up."), hung_up),
    Step(9, named("{reader}'s management page shows the total bill."), billed),
)

PAIR = Step("7a", named("{forwarder} crashes, {standby} takes over."), address_taken)


def steps_of(cast: Roles) -> tuple[Step, ...]:
    """In the order in which they are played; the document's keep their numbers."""
    return (*STEPS[:7], PAIR, *STEPS[7:]) if cast.forwarders else STEPS


@dataclass(frozen=True)
class Row:
    """One step as shown: `words` is what was measured, or why it is not (yet) fulfilled."""

    number: Number
    text: str
    observed: bool = False
    words: str = ""


class UseCase:
    """Keeps the state and the rows. One thread."""

    def __init__(self, cast: Roles | None = None) -> None:
        self.state = DemoState(cast or Roles())
        self.steps = steps_of(self.state.cast)
        self.start_again()

    def start_again(self) -> None:
        """A list of steps for the next call; what still holds is ticked, and not told again."""
        self.state = self.state.next_call()
        self.rows = [Row(step.number, step.text(self.state)) for step in self.steps]
        self._check()

    def observe(self, seen: object) -> list[Row]:
        """Take one observation in; returns the steps it fulfilled, in order."""
        early: list[ProcessKilled | ServerFailover] = []
        if isinstance(seen, CallStateChanged):
            if self._begins(seen):
                # a phone tells of its INVITE after it has sent it: something may have died of that
                news: list[ProcessKilled | ServerFailover] = [*self.state.kills]
                news += self.state.failovers
                early = [each for each in news if each.at >= seen.at]
                self.start_again()
            elif self.state.call_id is None and seen.state in ("ending", "ended"):
                return []  # the end of a call whose steps somebody has put away
        for each in (seen, *early):
            self.state.apply(each)
        return self._check()

    def _begins(self, seen: CallStateChanged) -> bool:
        """A call not seen before, at a phone that is free. Either phone may be the first to tell of
        it."""
        if seen.state not in ("calling", "incoming") or seen.call_id == self.state.call_id:
            return False
        busy = [phone for phone in self.state.calls if self.state.call_state(phone) in ACTIVE]
        return seen.phone not in busy if seen.state == "calling" else not busy

    def _check(self) -> list[Row]:
        fulfilled = []
        for index, step in enumerate(self.steps):
            row, (observed, words) = self.rows[index], step.check(self.state)
            # once fulfilled, it stays so in this call, whoever dies afterwards
            text = row.text if row.observed else step.text(self.state)
            if not observed and row.observed:
                observed, words = True, row.words
            self.rows[index] = replace(row, text=text, observed=observed, words=words)
            if observed and not row.observed:
                fulfilled.append(self.rows[index])
        return fulfilled


def milliseconds(value: float) -> str:
    """1.9 ms, 21 ms, 1.2 s: as precise as it matters."""
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"
