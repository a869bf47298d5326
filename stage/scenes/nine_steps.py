"""The document's use case, played by clicking the buttons that a person would click.

Each step is said once it is observed, in the document's order, with what was measured. The next
click follows after a while.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from stage.controller import PHONES, DemoController
from stage.scenes.director import PATIENCE_SECONDS, Director, Play, Scene, Wait
from stage.scenes.use_case import PAIR, Row

BEFORE_KILL = 0.55  # of the talk
BEFORE_KILLS = 0.3  # of the talk, if a forwarder is to crash too
BETWEEN_KILLS = 0.25  # of the talk, from the audio's proof to the forwarder's crash
RING_SECONDS = 1.2  # that Bob lets his phone ring
# from a step to its picture, with what moves at that moment
PICTURE_SECONDS = {5: 0.15, 6: 0.7, PAIR.number: 0.6}
USUAL_PICTURE_SECONDS = 0.4


def play(d: Director) -> Play:
    """With two forwarders the active one crashes too, once the audio has outlived the server."""
    pair, talk, answered_at = bool(d.controller.forwarders.pair), d.talk_seconds, 0.0
    buttons = d.controller.window.figure.buttons
    for index, step in enumerate(d.controller.use_case.steps):
        yield Wait(
            f"{step.number}. {step.text(d.state)}",
            partial(_observed, d, index),
            PATIENCE_SECONDS + talk,
        )
        observed_at = time.monotonic()
        row = d.controller.use_case.rows[index]
        d.say(f"{row.number}. {row.text} {_measured(d, row)}".rstrip())
        yield PICTURE_SECONDS.get(step.number, USUAL_PICTURE_SECONDS)
        d.take_picture(f"step-{step.number}")
        if step.number == 2:
            yield 0.4
            _press(d, "Alice", "Call")
        elif step.number == 3:
            yield observed_at + RING_SECONDS - time.monotonic()
            _press(d, "Bob", "Answer")
        elif step.number == 4:
            answered_at = observed_at
            before = BEFORE_KILLS if pair else BEFORE_KILL
            yield answered_at + talk * before - time.monotonic()
            buttons[d.state.first, "kill"].animateClick()
        elif step.number == 7 and pair:
            yield talk * BETWEEN_KILLS - USUAL_PICTURE_SECONDS
            buttons[d.state.active or "", "kill"].animateClick()
        elif step.number in (7, PAIR.number):
            yield answered_at + talk - time.monotonic()
            _press(d, "Alice", "Hang up")


NINE_STEPS = Scene("", "", play)


def _press(d: Director, phone: str, action: str) -> None:
    """Unless a person was faster."""
    if d.can(phone, action):
        d.press(phone, action)


def _observed(d: Director, index: int) -> bool:
    return d.controller.use_case.rows[index].observed


def _measured(d: Director, row: Row) -> str:
    state = d.state
    if row.number == 6:
        return f"({row.words} from the kill to {state.counted_to} through {state.second})"
    if row.number == PAIR.number:
        return f"({row.words} from the kill to the first answer through {state.successor})"
    if row.number == 9 and state.bill is not None:
        return f"({state.bill.total} {state.bill.currency} for {state.bill.seconds} s)"
    return f"({row.words})" if row.words else ""


def report(show: DemoController) -> dict[str, Any]:
    """Everything measured in this run, for `--json`; what was not measured is null. Call it before
    the phones stop."""
    state, rows = show.use_case.state, show.use_case.rows
    bill = state.bill if state.bill and state.bill.final else None
    told = ("server", "seconds", "total", "currency")
    pair = (
        {"forwarder_takeover_ms": rounded(state.forwarder_takeover_ms, 2)}
        if state.cast.forwarders
        else {}
    )
    return {
        "steps": [
            {"number": row.number, "text": row.text, "observed": row.observed} for row in rows
        ],
        "talk_seconds": rounded(state.talk_seconds, 2),
        "bill": {key: getattr(bill, key) for key in told} if bill else None,
        "takeover_ms": rounded(state.takeover_ms, 2),
        **pair,
        "rtp_longest_gap_ms": rounded(state.longest_gap_ms, 1),
        "rtp_lost": state.lost,
        "retransmissions": retransmissions(show),
    }


def retransmissions(show: DemoController) -> int | None:
    try:
        return sum(show.phones[name].snapshot().retransmissions for name in PHONES)
    except (RuntimeError, TimeoutError):
        return None  # a phone that never ran sent nothing, and nothing was measured


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
