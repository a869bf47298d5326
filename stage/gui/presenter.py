"""The statements of the window, made from the state: the headline, and how servers and phones look.
Pure functions, but for `show`, which has the window say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stage.gui.main_window import Window
from stage.gui.topology_view import PhoneAppearance, ServerAppearance
from stage.scenes.state import DemoState, ProgramState
from stage.scenes.use_case import Row, milliseconds, uninterrupted


class Headline(NamedTuple):
    """An icon with its tone, what is happening, and what one could do now."""

    icon: str
    tone: str
    words: str
    hint: str


STARTING = Headline(
    "ring", "hot", "Starting", "The forwarder and two servers start as processes of their own ..."
)


def server_look(server: ProgramState, hot: str | None) -> ServerAppearance:
    return _with_buttons(server, *_look(server, hot), f":{server.port}")


def forwarder_look(forwarder: ProgramState) -> ServerAppearance:
    """One of two."""
    look, words = ROLES.get(forwarder.forwarder_state, ("waking", "not heard of yet"))
    if forwarder.starting:
        look, words = "waking", "starting ..."
    elif not forwarder.alive:
        look, words = _dead(forwarder)
    return _with_buttons(forwarder, look, words)


def _with_buttons(
    server: ProgramState, look: str, words: str, address: str = ""
) -> ServerAppearance:
    kill = (
        server.alive and not server.crashed,
        f"Crash {server.name}: SIGKILL to process {server.pid}"
        if server.alive
        else f"{server.name} is not running",
    )
    startable = not server.alive and not server.starting and server.pid is not None
    restart = (
        startable,
        f"Start {server.name} again as it was"
        if startable
        else f"{server.name} is running"
        if server.alive
        else f"{server.name} is not ready to be started",
    )
    return ServerAppearance(look, words, address, kill, restart)


ROLES = {"active": ("hot", "active"), "standby": ("standby", "standby")}


def _dead(program: ProgramState) -> tuple[str, str]:
    return "dead", "crashed (SIGKILL)" if program.crashed else "not running"


def _look(server: ProgramState, hot: str | None) -> tuple[str, str]:
    if server.starting:
        return "waking", "starting ..."
    if not server.alive or server.crashed:
        return _dead(server)
    if server.frozen:
        return "failing", "frozen (SIGSTOP)"
    if server.name == hot:
        return "hot", "hot: gets new calls"
    if server.forwarder_state == "UP":
        return "ready", "replica: ready"
    if server.forwarder_state == "FAILING":
        return "failing", "misses heartbeats"
    if server.forwarder_state == "EJECTED":
        return "failing", "answers heartbeats only"
    return "waking", "not trusted yet"


def phone_look(state: DemoState, phone: str) -> PhoneAppearance:
    linked = state.registered.get(phone, False) and bool(state.up)
    call = state.call_state(phone)
    if call in ("calling", "ringing", "incoming"):
        return PhoneAppearance("ringing", "out" if state.placed_by == phone else "in", linked)
    if call == "talking":
        return PhoneAppearance("warning" if state.held else "alive", "call", linked)
    return PhoneAppearance("hot" if linked else "dead", "call", linked)


def phone_note(state: DemoState, phone: str) -> str:
    """A note beneath a phone's registration, of something that the phone itself cannot know."""
    if not state.registered.get(phone):
        return ""
    if not state.up:
        return "No server answers now: it can neither call nor be called."
    registrar = state.registrar.get(phone)
    if registrar in state.down:
        return f"{str(registrar).capitalize()} is down; the shared store keeps the registration."
    return ""


def headline(
    state: DemoState,
    servers: dict[str, ProgramState],
    forwarders: dict[str, ProgramState],
    presented: bool = False,
) -> Headline:
    """The present situation in a headline: the first that applies of: a program that does not
    start, nobody serves, a call in its states, the phones waiting. `presented`: of the phones the
    figure alone is to be seen."""
    programs = [*servers.values(), *forwarders.values()]
    if any(program.starting and not program.crashed for program in servers.values()):
        return STARTING
    for program in programs:
        if program.trouble and not program.alive and not program.starting:
            words = f"{program.name.capitalize()} does not start"
            return Headline("warning", "stop", words, program.trouble)
    if forwarders and not any(each.alive or each.starting for each in forwarders.values()):
        return Headline("warning", "warning", "No forwarder is alive", _without_forwarders(state))
    if state.hot is None and not state.up:
        return _without_servers(state, servers)
    if state.talking:
        pair = _talking_through_pair(state, forwarders, presented)
        return pair or _talking(state, presented)
    if state.call_state(state.callee) == "incoming":
        return _ringing(state, presented)
    if "calling" in _call_states(state) or "ringing" in _call_states(state):
        through = state.carrier or "no server"
        words = f"{state.caller} calls"
        return Headline("out", "ringing", words, f"The call goes through {through}.")
    return _at_rest(state, programs, presented)


def _how(action: str, phone: str, presented: bool) -> str:
    """Where to click in order to call, answer or hang up."""
    if presented:
        return f"Click {phone} to {action.lower()}"
    return f"Click {action} at {phone}'s phone"


def _call_states(state: DemoState) -> set[str]:
    return {call.state for call in state.calls.values()}


def _without_servers(state: DemoState, servers: dict[str, ProgramState]) -> Headline:
    if any(server.alive and not server.frozen for server in servers.values()):
        hint = "A server runs and is not trusted yet: two answers to heartbeats, and it serves."
        return Headline("ring", "warning", "No server serves yet", hint)
    if any(server.alive for server in servers.values()):
        words, again = "No server answers", "Continue or restart one of them"
    else:
        words, again = "No server is alive", "Restart one of the servers"
    if state.talking:
        hint = f"The sound goes on, since it needs none. {again} to be able to hang up."
    elif "ending" in _call_states(state):
        hint = f"Somebody hung up; the forwarder keeps that for the next live server. {again}."
    else:
        hint = f"The forwarder refuses every new call. {again}."
    return Headline("warning", "warning", words, hint)


def _without_forwarders(state: DemoState) -> str:
    if state.talking:
        return "The sound goes on, since it needs none. Restart either to be able to hang up."
    return "Nobody has the phones' address. Restart either: the first to start is the active one."


def _ringing(state: DemoState, presented: bool) -> Headline:
    if state.takeover_ms is not None:
        after = milliseconds(state.takeover_ms)
        hint = f"The ringing call went on through {state.second} {after} after the kill."
    elif state.spare:
        hint = f"Kill {state.carrier} first if you like: a ringing call survives too."
    else:
        hint = f"Only {state.carrier} is alive."
    words = f"{state.callee}'s phone rings"
    return Headline("in", "ringing", words, f"{_how('Answer', state.callee, presented)}. {hint}")


def _talking_through_pair(
    state: DemoState, forwarders: dict[str, ProgramState], presented: bool
) -> Headline | None:
    """The statement on the two forwarders, if that is the latest news or the next thing to do."""
    killed, after = state.forwarder_killed, state.forwarder_takeover_ms
    if killed and after is not None and not (state.killed and state.killed.at > killed.at):
        words = f"{str(state.successor).capitalize()} took over in {milliseconds(after)}"
        if state.killed is None and state.spare:
            advice = f"Now crash {state.carrier} too."
        else:
            advice = _how("Hang up", _hanger(state), presented)
            advice += f": the call ends through {state.successor}"
            advice += f" and {state.carrier}." if state.carrier else "."
        return Headline("check", "hot", words, f"{_heard(state)}{advice}")
    if not forwarders or killed or state.takeover_ms is None:
        return None
    standby = next(
        (each for each in forwarders.values() if each.forwarder_state == "standby"), None
    )
    advice = (
        f"Now crash {state.active} too: {standby.name} stands by for its address."
        if standby
        else f"Restart the forwarder that is down, so that {state.active} has a standby again."
    )
    return _talking(state, presented)._replace(hint=f"{_heard(state)}{advice}")


def _heard(state: DemoState) -> str:
    """How the phones came through the crash, as far as it is known by now."""
    if uninterrupted(state).observed:
        return "Neither phone noticed. "
    gap = state.longest_gap_ms
    return "" if gap is None else f"Longest pause of the sound so far: {milliseconds(gap)}. "


def _hanger(state: DemoState) -> str:
    """The phone of ours at which to hang up."""
    return state.caller if state.caller in state.calls else next(iter(state.calls), state.caller)


def _talking(state: DemoState, presented: bool) -> Headline:
    carrier = state.carrier
    if carrier is None:
        hint = "The call runs on; wait a moment."
        return Headline("call", "warning", "No server is in use yet", hint)
    latest = state.failovers[-1] if state.failovers else None
    if carrier in state.down:
        words = f"{carrier.capitalize()} is {'frozen' if state.down[carrier].frozen else 'dead'}"
        return Headline("warning", "warning", words, "The forwarder has not noticed it yet.")
    held = f"On hold, through {carrier}"
    words = held if state.held else f"{carrier.capitalize()} carries the call"
    if state.spare:
        next_step = f"Click Kill on {carrier}: {state.spare[0]} would take over."
    else:
        other = state.cast.second if carrier == state.cast.first else state.cast.first
        next_step = f"{carrier.capitalize()} is the only one alive: bring {other} back first."
    if latest is None or latest.target != carrier:
        if latest is None and state.spare:
            next_step = (
                f"Now crash it: click Kill on {carrier}. Then watch who carries the call, and "
                "that the sound goes on."
            )
        elif latest is not None and not state.held:
            words = f"{carrier.capitalize()} carries it again"
        return Headline("call", "alive", words, next_step)
    after = state.outage_ms(latest)
    target = latest.target.capitalize()
    words = f"{target} took over" + ("" if after is None else f" in {milliseconds(after)}")
    if after is None and latest.first_answer_at is None:
        words = f"{target} takes over"
    hint = "That is from the kill to the next message of the ringing call. "
    hint = hint if state.rang_at_kill and after is not None else _heard(state)
    hint += f"{_how('Hang up', _hanger(state), presented)} and see the bill"
    hint += f", or kill {carrier} too." if state.spare else ", or bring a spare server back."
    return Headline("check", "hot", words, hint)


def _at_rest(state: DemoState, programs: list[ProgramState], presented: bool) -> Headline:
    bill = state.bill
    gone = [program.name for program in programs if not program.alive and not program.starting]
    again = f"Restart {' and '.join(gone)} and call again." if gone else "Call again at any time."
    if bill is not None and bill.final and state.over:
        words = f"The bill: {bill.total} {bill.currency} for {bill.seconds} s"
        hint = f"Read from {bill.server}'s page; the call was carried by {bill.carriers}. {again}"
        return Headline("check", "alive", words, hint)
    if state.calls and _call_states(state) <= {"ended", "ending"}:
        if all(call.answered_at is None for call in state.calls.values()):
            hint = f"The phone says why. {again}"
            return Headline("hang_up", "dead", "No call came about", hint)
        if "ending" in _call_states(state):
            hint = "The other phone has not confirmed it yet."
            return Headline("hang_up", "dead", f"{state.hung_up_by or 'A phone'} hangs up", hint)
        hint = f"Its bill is being read. {again}"
        return Headline("hang_up", "dead", "The call is over", hint)
    if _call_states(state) & {"ended", "ending"}:
        late = next(name for name, call in state.calls.items() if call.state == "talking")
        hint = f"{late}'s phone has not heard of it yet."
        return Headline("hang_up", "dead", "The call is over", hint)
    if state.calls:
        hint = "One side has answered; the other has not heard of it yet."
        return Headline("call", "alive", f"{state.callee} answers", hint)
    if all(state.registered.get(phone) for phone in (state.cast.caller, state.cast.callee)):
        hint = f"{_how('Call', state.cast.caller, presented)}."
        if gone:
            hint += f" Nobody would take over from {state.hot}: restart {' and '.join(gone)} first."
        return Headline("check", "alive", "Ready", hint)
    hint = f"They know one address, the forwarder's; {state.hot or 'a server'} answers."
    return Headline("ring", "hot", "The phones register", hint)


def large_numbers(state: DemoState) -> tuple[str, str]:
    """The large numbers of the presenter's mode: the takeover, and what was heard or billed."""
    latest = state.failovers[-1] if state.failovers else None
    outage = state.outage_ms(latest)
    first = "" if outage is None else f"{milliseconds(outage)} to {state.counted_to}"
    if state.bill is not None and state.over:
        return first, f"{state.bill.total} {state.bill.currency} for {state.bill.seconds} s"
    gap = state.longest_gap_ms
    name = "pause at the crash" if state.killed else "longest pause"
    return first, "" if gap is None else f"{milliseconds(gap)} {name}"


def show(
    window: Window,
    state: DemoState,
    servers: dict[str, ProgramState],
    forwarders: dict[str, ProgramState],
    rows: Sequence[Row],
    announced: tuple[str, str] | None,
) -> None:
    """`announced`: a scene's title and words, which stand where advice would stand."""
    for name, server in servers.items():
        window.figure.show_server(name, server_look(server, state.hot))
    for name, forwarder in forwarders.items():
        window.figure.show_server(name, forwarder_look(forwarder))
    for panel in window.panels:
        window.figure.show_phone(panel.label, phone_look(state, panel.label))
        panel.set_note(phone_note(state, panel.label))
    window.figure.show_talking(state.talking and len(state.calls) == 2, state.held)
    window.steps.show_rows(rows)
    window.bill.show_bill(state.shown_bill)
    window.failover.show_state(state, window.ladder.rows)
    said = headline(state, servers, forwarders, window.presented)
    if announced and not state.calls:
        said = Headline("call", "hot", *announced)
    elif announced:
        said = said._replace(hint=": ".join(announced))
    window.tell(*said)
    window.tell_numbers(*large_numbers(state))
