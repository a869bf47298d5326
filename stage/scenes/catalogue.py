"""The scenes: what is done and what has to be seen, each in one place. `SCENES` names them all.

A scene is a function of a `Director` that says what is done and yields what it waits for. Its moral
is shown at the end: what it has shown, and why that matters. One with the usual servers and
forwarders can be played from the window's menu, too.
"""

from __future__ import annotations

from collections.abc import Callable

from stage.scenes.call_generator import CALLS, CallGenerator
from stage.scenes.director import Director, Play, Scene

PlayFunction = Callable[[Director], Play]
SCENES: dict[str, Scene] = {}


def scene(
    title: str, moral: str, pair: bool = False, servers: int = 2
) -> Callable[[PlayFunction], PlayFunction]:
    """Enters the function into SCENES, under its name with hyphens."""

    def enter(play: PlayFunction) -> PlayFunction:
        name = play.__name__.replace("_", "-")
        SCENES[name] = Scene(name, title, play, moral, pair, servers)
        return play

    return enter


@scene(
    "Crash while talking",
    "The server died in the middle of a call. Neither phone noticed, and one bill covers all of "
    "it.",
)
def while_talking(d: Director) -> Play:
    yield from d.ready()
    yield from d.talk()
    d.kill(d.state.first)
    yield d.taken_over()
    yield 2.5
    d.expect(d.state.talking, "they still talk")
    yield from d.finish()
    d.expect(d.state.lost == 0, "no audio packet lost")


@scene(
    "Crash while ringing", "The server died while the phone rang. It rang on, and Bob could answer."
)
def while_ringing(d: Director) -> Play:
    yield from d.ready()
    yield from d.ring()
    yield 0.5
    d.kill(d.state.first)
    yield d.seen("The other server has the call.", lambda: d.state.taken_over)
    yield 0.3
    d.expect(d.state.call_state("Bob") == "incoming", "Bob's phone still rings")
    yield from d.answer()
    yield 1.5
    yield from d.finish()


@scene(
    "Crash at the INVITE",
    "The server died with Alice's call unread. The other one got it; she did not dial again.",
)
def at_invite(d: Director) -> Play:
    yield from d.ready()
    d.kill_at(d.state.first, "INVITE", None)
    yield from d.ring()
    yield from d.answer()
    yield 1.5
    yield from d.finish()
    d.expect(d.state.kills, "a server died of it")


@scene(
    "Crash before the 200",
    "The server died with Bob's answer unread. The other one got it; they talk.",
)
def before_200(d: Director) -> Play:
    yield from d.ready()
    yield from d.ring()
    yield 0.3
    d.kill_at(d.state.first, "INVITE", 200)
    yield from d.answer()
    yield 1.5
    yield from d.finish()
    d.expect(d.state.kills, "a server died of it")


@scene(
    "Crash at the ACK",
    "The server died just as the call began. The call stands, and its bill is right.",
)
def at_ack(d: Director) -> Play:
    yield from d.ready()
    yield from d.ring()
    first = d.state.first

    # the 200 is on its way to Alice, and her ACK finds nobody
    def on_message(message: object) -> None:
        if getattr(message, "status", None) == 200 and getattr(message, "source", "") == first:
            d.controller.message.disconnect(on_message)
            d.kill(first)

    d.controller.message.connect(on_message)
    yield from d.answer()
    yield 1.5
    yield from d.finish()
    d.expect(d.state.kills, "a server died of it")


@scene(
    "Crash at the BYE",
    "The server died with the hang-up unread. The other one ended the call: nobody pays on.",
)
def at_bye(d: Director) -> Play:
    yield from d.ready()
    yield from d.talk()
    d.kill_at(d.state.first, "BYE", None)
    yield from d.finish()
    d.expect(d.state.kills, "a server died of it")


@scene(
    "Frozen server, and its thaw",
    "A server that hangs is left within 0.2 s. What it says when it runs on does no harm.",
)
def frozen(d: Director) -> Play:
    yield from d.ready()
    yield from d.talk()
    first = d.state.first
    d.freeze(first)
    yield d.taken_over()
    yield 1.5
    d.thaw(first)
    yield d.seen(f"{first} is trusted again.", lambda: d.up(first))
    yield 0.5
    d.expect(d.state.talking, "the thawed server has ended nothing")
    yield from d.finish()


@scene(
    "Zombie: answers heartbeats only",
    "A server that only seems alive is found out by the requests it leaves unanswered.",
)
def zombie(d: Director) -> Play:
    yield from d.ready()
    yield from d.talk()
    first = d.state.first
    d.kill(first)
    yield d.taken_over()
    d.controller.restart(first, zombie=True)
    yield d.seen("A zombie stands in its place and is trusted.", lambda: d.up(first))
    server = d.controller.servers[first]
    for _ in range(25):  # as many requests as the forwarder waits for (passive.requests), and more
        d.controller.phones["Alice"].probe()
        yield 0.15
    yield d.seen("It is found out and ejected.", lambda: server.forwarder_state == "EJECTED")
    yield from d.hang_up()
    yield from d.billed()
    d.kill(first)
    yield d.seen("The zombie is gone.", lambda: not server.alive)


@scene(
    "Both servers dead and back",
    "Without any server they talked on. The hang-up waited until one was back.",
)
def both_dead(d: Director) -> Play:
    yield from d.ready()
    yield from d.talk()
    for name in (d.state.first, d.state.second):
        d.kill(name)
    yield d.seen("No server is alive.", lambda: not d.state.up)
    yield 1.0
    d.expect(d.state.talking, "the audio needs no server")
    d.act("Alice", "Hang up")
    yield 1.0
    d.controller.restart("server2")
    yield d.seen("server2 is back.", lambda: d.up("server2"))
    yield d.seen("The hang-up went on.", lambda: d.state.over)
    yield from d.billed()


@scene(
    "Registrar failover",
    "The server where both had registered died. Both could be called all the same.",
)
def registrar(d: Director) -> Play:
    yield from d.ready()
    before = d.state.registrar["Bob"]
    d.kill(before)
    yield d.seen("The other server is in use.", lambda: d.state.hot not in (None, before))
    yield from d.talk()
    d.expect(d.state.answered_through != before, "the call came about through the other server")
    d.controller.phones["Bob"].register()
    yield d.seen("Bob registers anew.", lambda: d.state.registrar["Bob"] != before)
    yield from d.hang_up()
    yield from d.billed()


@scene(
    "Forwarder takeover (Figure 3)",
    "The forwarder itself died. Its standby took over; the call went on.",
    pair=True,
)
def forwarder(d: Director) -> Play:
    yield from d.ready()
    yield from d.talk()
    active = d.state.active or ""
    d.kill(active)
    yield d.seen("The other has the address.", lambda: d.state.forwarder_takeover_ms is not None)
    yield d.seen("The call passes it.", lambda: d.state.passed_successor)
    yield 1.0
    d.note("forwarder_takeover_ms", d.state.forwarder_takeover_ms)
    yield from d.hang_up()
    yield from d.billed()


@scene(
    "A hundred calls at once", "Not one of a hundred calls was lost, and every second is billed."
)
def hundred_calls(d: Director) -> Play:
    yield from d.ready()
    calls = CallGenerator(d.controller.cluster.forwarder, CALLS)
    d.controller.window.show_calls(calls.states)
    calls.start()
    try:
        yield d.seen(f"{CALLS} calls are answered.", lambda: calls.talking == CALLS, 60)
        yield 2.0
        d.kill(str(d.state.hot))
        calls.probe()
        yield d.seen("Every call is answered again.", lambda: calls.kept == CALLS, 40)
        yield 1.0
        d.expect(calls.talking == CALLS, "every call is kept")
        calls.hang_up()
        yield d.seen("Every call has ended.", lambda: calls.ended == CALLS, 60)
        yield 1.5
        bills = d.controller.bills()
        billed = [bills[call] for call in calls.talked if call in bills]
        d.note("kept", calls.kept)
        d.note("lost", CALLS - calls.kept)
        d.note("gap_p50_ms", calls.gap(0.50))
        d.note("gap_p99_ms", calls.gap(0.99))
        d.note("billed_seconds", round(sum(billed)))
        d.note("talked_seconds", sum(calls.talked.values()))
        d.expect(len(billed) == CALLS, "every call has a bill")
        difference = abs(sum(billed) - sum(calls.talked.values()))
        d.expect(difference <= CALLS, "as many whole seconds billed as talked")
    finally:
        d.controller.window.dots.show_result(d.figures)
        calls.stop()


@scene(
    "Without failover: one server",
    "The call cannot be ended, and nobody bills it. That is what failover is for.",
    servers=1,
)
def without_failover(d: Director) -> Play:
    yield d.seen("One server, two phones.", lambda: all(d.state.registered.values()), 20)
    yield d.seen("Both are registered.", lambda: len(d.state.registered) == 2)
    yield 0.5
    yield from d.talk()
    d.kill("server1")
    yield d.seen("Nobody takes over.", lambda: not d.state.up)
    yield 1.0
    d.act("Alice", "Hang up")
    yield 3.0
    d.expect(not (d.state.bill and d.state.bill.final), "the minutes are not billed")
    d.expect(d.state.call_state("Bob") == "talking", "Bob's phone has not heard of the hang-up")
    d.note("billed_seconds", None)
    d.note("dropped", 1)
