"""What the window says about what is known: the headline, and how servers and phones look. Pure
functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stage.gui.topology_view import PhoneLook, ServerLook
from stage.scenes.state import Facts
from stage.scenes.use_case import milliseconds


@dataclass
class ServerFacts:
    """What is known of one server's process. `heard`: the forwarder's word for its state (UP,
    EJECTED ...); of one of two forwarders its own, active or standby."""

    name: str
    port: int
    pid: int | None = None
    alive: bool = False
    starting: bool = True
    crashed: bool = False
    heard: str = "DOWN"


class Story(NamedTuple):
    """An icon with its tone, what is happening, and what one could do now."""

    icon: str
    tone: str
    words: str
    hint: str


STARTING = Story(
    "ring", "hot", "Starting", "The forwarder and two servers start as processes of their own ..."
)


def server_look(server: ServerFacts, hot: str | None) -> ServerLook:
    return _with_buttons(server, *_look(server, hot), f":{server.port}")


def forwarder_look(forwarder: ServerFacts) -> ServerLook:
    """One of two."""
    look, words = ROLES.get(forwarder.heard, ("waking", "not heard of yet"))
    if forwarder.starting:
        look, words = "waking", "starting ..."
    elif not forwarder.alive:
        look, words = _dead(forwarder)
    return _with_buttons(forwarder, look, words)


def _with_buttons(server: ServerFacts, look: str, words: str, address: str = "") -> ServerLook:
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
    return ServerLook(look, words, address, kill, restart)


ROLES = {"active": ("hot", "active"), "standby": ("standby", "standby")}


def _dead(program: ServerFacts) -> tuple[str, str]:
    return "dead", "crashed (SIGKILL)" if program.crashed else "not running"


def _look(server: ServerFacts, hot: str | None) -> tuple[str, str]:
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


def phone_look(facts: Facts, phone: str) -> PhoneLook:
    linked = facts.registered.get(phone, False)
    state = facts.state(phone)
    if state in ("calling", "ringing", "incoming"):
        return PhoneLook("ringing", "out" if facts.placed_by == phone else "in", linked)
    if state == "talking":
        return PhoneLook("alive", "call", linked)
    return PhoneLook("hot" if linked else "dead", "call", linked)


def story(
    facts: Facts, servers: dict[str, ServerFacts], forwarders: dict[str, ServerFacts]
) -> Story:
    """The headline. The first that applies: nobody serves, a call in its states, the phones
    waiting."""
    if any(server.starting and not server.crashed for server in servers.values()):
        return STARTING
    if forwarders and not any(each.alive or each.starting for each in forwarders.values()):
        return Story("warning", "warning", "No forwarder is alive", _without_forwarders(facts))
    if facts.hot is None and not any(server.alive for server in servers.values()):
        return Story("warning", "warning", "No server is alive", _without_servers(facts))
    if facts.both("talking"):
        return _talking_through_pair(facts, forwarders) or _talking(facts)
    caller, callee = facts.cast.caller, facts.cast.callee
    if facts.placed_by == callee:
        caller, callee = callee, caller
    if facts.state(callee) == "incoming":
        saved = facts.killed is not None and facts.taken_over is not None
        hint = (
            f"The ringing call moved to {facts.taken_over.target} with it."
            if saved and facts.taken_over
            else f"Kill {facts.hot} first if you like: a ringing call survives too."
        )
        return Story(
            "in", "ringing", f"{callee}'s phone rings", f"Click Answer at {callee}'s phone. {hint}"
        )
    if facts.state(caller) in ("calling", "ringing"):
        return Story(
            "out",
            "ringing",
            f"{caller} calls",
            f"The call goes through {facts.hot or 'no server'}.",
        )
    return _at_rest(facts)


def _without_servers(facts: Facts) -> str:
    if facts.both("talking"):
        return (
            "The audio goes on, since it needs none. Restart a server to be able to hang up and be "
            "billed."
        )
    return "The forwarder answers every call with 503. Restart one of the servers."


def _without_forwarders(facts: Facts) -> str:
    if facts.both("talking"):
        return (
            "The audio goes on, since it needs none. Restart either forwarder to be able to hang "
            "up."
        )
    return (
        "Nobody has the phones' address. Restart either of the two; the first to start is the "
        "active one."
    )


def _talking_through_pair(facts: Facts, forwarders: dict[str, ServerFacts]) -> Story | None:
    """What there is to say about the two forwarders, if that is the latest news or the next thing
    to do."""
    killed, after = facts.forwarder_killed, facts.forwarder_takeover_ms
    if killed and after is not None and not (facts.killed and facts.killed.at > killed.at):
        advice = (
            f"Now crash {facts.hot} too."
            if facts.killed is None
            else f"Hang up at {facts.cast.caller}'s phone: the call ends through {facts.heir} "
            f"and {facts.hot}."
        )
        words = (
            f"{(facts.heir or '').capitalize()} took over the address after {milliseconds(after)}"
        )
        return Story("check", "hot", words, f"Neither phone noticed. {advice}")
    if not forwarders or killed or facts.takeover_ms is None:
        return None
    standby = next((each for each in forwarders.values() if each.heard == "standby"), None)
    advice = (
        f"Now crash {facts.active} too: {standby.name} stands by for its address."
        if standby
        else f"Restart the forwarder that is down, so that {facts.active} has a standby again."
    )
    return _talking(facts)._replace(hint=f"Neither phone noticed. {advice}")


def _talking(facts: Facts) -> Story:
    if facts.taken_over is None or facts.killed is None:
        return Story(
            "call",
            "alive",
            f"The call runs through {facts.hot or 'no server'}",
            f"Now crash it: click Kill on {facts.hot}. Then watch who carries the call, and "
            "listen.",
        )
    after = facts.takeover_ms
    heir = facts.taken_over.target.capitalize()
    words = (
        f"{heir} took over after {milliseconds(after)}"
        if after is not None
        else f"{heir} takes over"
    )
    return Story(
        "check",
        "hot",
        words,
        f"Neither phone noticed. Talk on; then hang up at {facts.cast.caller}'s phone to see the "
        "bill.",
    )


def _at_rest(facts: Facts) -> Story:
    bill = facts.bill
    if bill is not None and bill.final and facts.both("ended"):
        carried = "both servers" if facts.taken_over else bill.server
        words = (
            f"{bill.server.capitalize()} bills {bill.total} {bill.currency} for {bill.seconds} s"
        )
        return Story(
            "check",
            "alive",
            words,
            f"One call, one bill, carried by {carried}. Restart what you killed and call again.",
        )
    if facts.placed_by and facts.state(facts.placed_by) == "ended":
        if facts.calls[facts.placed_by].answered_at is None:
            return Story(
                "hang_up",
                "dead",
                "No call came about",
                "The phone says why. Call again at any time.",
            )
        return Story(
            "hang_up", "dead", "The call is over", "Its bill is being read. Call again at any time."
        )
    if all(facts.registered.get(phone) for phone in (facts.cast.caller, facts.cast.callee)):
        return Story("check", "alive", "Ready", f"Click Call at {facts.cast.caller}'s phone.")
    return Story(
        "ring",
        "hot",
        "The phones register",
        f"They know one address, the forwarder's; {facts.hot} answers.",
    )
