"""What the window says about what is known: the headline, and how servers and phones look. Pure
functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stage.gui.topology_view import PhoneAppearance, ServerAppearance
from stage.scenes.state import DemoState
from stage.scenes.use_case import milliseconds


@dataclass
class ProgramState:
    """What is known of one server's process. `heard`: the forwarder's word for its state (UP,
    EJECTED ...); of one of two forwarders its own, active or standby."""

    name: str
    port: int
    pid: int | None = None
    alive: bool = False
    starting: bool = True
    crashed: bool = False
    heard: str = "DOWN"


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
    look, words = ROLES.get(forwarder.heard, ("waking", "not heard of yet"))
    if forwarder.starting:
        look, words = "waking", "starting ..."
    elif not forwarder.alive:
        look, words = _dead(forwarder)
    return _with_buttons(forwarder, look, words)


def _with_buttons(
    server: ProgramState, look: str, words: str, address: str = ""
) -> ServerAppearance:
    kill = (
        server.alive,
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
    if not server.alive:
        return _dead(server)
    if server.name == hot:
        return "hot", "hot: carries the calls"
    if server.heard == "UP":
        return "ready", "replica: ready"
    if server.heard == "FAILING":
        return "failing", "misses heartbeats"
    if server.heard == "EJECTED":
        return "failing", "answers heartbeats only"
    return "waking", "not trusted yet"


def phone_look(state: DemoState, phone: str) -> PhoneAppearance:
    linked = state.registered.get(phone, False)
    call = state.call_state(phone)
    if call in ("calling", "ringing", "incoming"):
        return PhoneAppearance("ringing", "out" if state.placed_by == phone else "in", linked)
    if call == "talking":
        return PhoneAppearance("alive", "call", linked)
    return PhoneAppearance("hot" if linked else "dead", "call", linked)


def story(
    state: DemoState, servers: dict[str, ProgramState], forwarders: dict[str, ProgramState]
) -> Headline:
    """The headline. The first that applies: nobody serves, a call in its states, the phones
    waiting."""
    if any(server.starting and not server.crashed for server in servers.values()):
        return STARTING
    if forwarders and not any(each.alive or each.starting for each in forwarders.values()):
        return Headline("warning", "warning", "No forwarder is alive", _without_forwarders(state))
    if state.hot is None and not any(server.alive for server in servers.values()):
        return Headline("warning", "warning", "No server is alive", _without_servers(state))
    if state.both("talking"):
        return _talking_through_pair(state, forwarders) or _talking(state)
    caller, callee = state.cast.caller, state.cast.callee
    if state.placed_by == callee:
        caller, callee = callee, caller
    if state.call_state(callee) == "incoming":
        saved = state.killed is not None and state.taken_over is not None
        hint = (
            f"The ringing call moved to {state.taken_over.target} with it."
            if saved and state.taken_over
            else f"Kill {state.hot} first if you like: a ringing call survives too."
        )
        return Headline(
            "in", "ringing", f"{callee}'s phone rings", f"Click Answer at {callee}'s phone. {hint}"
        )
    if state.call_state(caller) in ("calling", "ringing"):
        return Headline(
            "out",
            "ringing",
            f"{caller} calls",
            f"The call goes through {state.hot or 'no server'}.",
        )
    return _at_rest(state)


def _without_servers(state: DemoState) -> str:
    if state.both("talking"):
        return (
            "The audio goes on, since it needs none. Restart a server to be able to hang up and be "
            "billed."
        )
    return "The forwarder answers every call with 503. Restart one of the servers."


def _without_forwarders(state: DemoState) -> str:
    if state.both("talking"):
        return (
            "The audio goes on, since it needs none. Restart either forwarder to be able to hang "
            "up."
        )
    return (
        "Nobody has the phones' address. Restart either of the two; the first to start is the "
        "active one."
    )


def _talking_through_pair(state: DemoState, forwarders: dict[str, ProgramState]) -> Headline | None:
    """What there is to say about the two forwarders, if that is the latest news or the next thing
    to do."""
    killed, after = state.forwarder_killed, state.forwarder_takeover_ms
    if killed and after is not None and not (state.killed and state.killed.at > killed.at):
        advice = (
            f"Now crash {state.hot} too."
            if state.killed is None
            else f"Hang up at {state.cast.caller}'s phone: the call ends through {state.successor} "
            f"and {state.hot}."
        )
        successor = (state.successor or "").capitalize()
        words = f"{successor} took over the address after {milliseconds(after)}"
        return Headline("check", "hot", words, f"Neither phone noticed. {advice}")
    if not forwarders or killed or state.takeover_ms is None:
        return None
    standby = next((each for each in forwarders.values() if each.heard == "standby"), None)
    advice = (
        f"Now crash {state.active} too: {standby.name} stands by for its address."
        if standby
        else f"Restart the forwarder that is down, so that {state.active} has a standby again."
    )
    return _talking(state)._replace(hint=f"Neither phone noticed. {advice}")


def _talking(state: DemoState) -> Headline:
    if state.taken_over is None or state.killed is None:
        return Headline(
            "call",
            "alive",
            f"The call runs through {state.hot or 'no server'}",
            f"Now crash it: click Kill on {state.hot}. Then watch who carries the call, and "
            "listen.",
        )
    after = state.takeover_ms
    successor = state.taken_over.target.capitalize()
    words = (
        f"{successor} took over after {milliseconds(after)}"
        if after is not None
        else f"{successor} takes over"
    )
    return Headline(
        "check",
        "hot",
        words,
        f"Neither phone noticed. Talk on; then hang up at {state.cast.caller}'s phone to see the "
        "bill.",
    )


def _at_rest(state: DemoState) -> Headline:
    bill = state.bill
    if bill is not None and bill.final and state.both("ended"):
        carried = "both servers" if state.taken_over else bill.server
        words = (
            f"{bill.server.capitalize()} bills {bill.total} {bill.currency} for {bill.seconds} s"
        )
        return Headline(
            "check",
            "alive",
            words,
            f"One call, one bill, carried by {carried}. Restart what you killed and call again.",
        )
    if state.placed_by and state.call_state(state.placed_by) == "ended":
        if state.calls[state.placed_by].answered_at is None:
            return Headline(
                "hang_up",
                "dead",
                "No call came about",
                "The phone says why. Call again at any time.",
            )
        return Headline(
            "hang_up", "dead", "The call is over", "Its bill is being read. Call again at any time."
        )
    if all(state.registered.get(phone) for phone in (state.cast.caller, state.cast.callee)):
        return Headline("check", "alive", "Ready", f"Click Call at {state.cast.caller}'s phone.")
    return Headline(
        "ring",
        "hot",
        "The phones register",
        f"They know one address, the forwarder's; {state.hot} answers.",
    )
