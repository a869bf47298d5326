"""The management page as HTML: one string, brought up to date in place every second by a script.

Pure. Everything that came from the network passes `_text`, which escapes it; the HTTP layer's
Content-Security-Policy allows no script but `/page.js`.
"""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from slee_mock.management.page_style import SCRIPT, STYLE
from slee_mock.management.snapshot import TICKING, Snapshot
from slee_mock.services.bill_record import BillTotal

MOST_ROWS = 20  # finished bills and bindings here; the files behind the links have them all
NOBODY = "No forwarder has been heard"
ROLES = {
    "hot": "hot: new calls come here",
    "live": "live: takes its share of the new calls",
    "replica": "replica: takes over when others die",
}

__all__ = ["SCRIPT", "render", "trouble"]


def render(board: Snapshot) -> str:
    status = board.status
    main = "".join(
        [
            _running(board),
            _section("Servers of this cluster", "", _members(board.members, status["name"])),
            _finished(board.calls["calls"]),
            _reachable(board.bindings),
            _prepaid(status["services"].get("prepaid", {})),
            _section("What this server handled", "", _handled(status)),
        ]
    )
    words = (
        f"The store does not work: {status['store']}"
        if status["store"] != "ok"
        else status["warning"]
    )
    own = next(
        (each["role"] for each in board.members["members"] if each["name"] == status["name"]), ""
    )
    return _document(status["name"], _header(status, own, words), main, board.calls["now"])


def trouble(sentence: str, status: Mapping[str, Any] | None) -> str:
    """The page of a server that cannot tell more than why, and its `status` if it knows that."""
    if status is None:
        return _document(
            "no answer", f"<h1>No answer from the server</h1>{_alarm(sentence)}", "", 0.0
        )
    main = _section("What this server handled", "", _handled(status))
    return _document(
        status["name"], _header(status, None, f"The store cannot be read: {sentence}"), main, 0.0
    )


def _header(status: Mapping[str, Any], role: str | None, words: str) -> str:
    """`role` None: it cannot be told now."""
    known = "" if role is None else f'<p class="role {role}">{ROLES.get(role, NOBODY)}</p>'
    return (
        f'<h1>{_text(status["name"])}</h1>{known}<p class="small">listens on {_text(status["address"])}, '
        f'up for <span class="number">{_duration(int(status["uptime"]))}</span></p>{_alarm(words)}'
    )


def _alarm(sentence: str) -> str:
    return f'<p class="alarm" id="trouble">{_sentence(sentence)}</p>' if sentence else ""


def _document(title: str, header: str, main: str, now: float) -> str:
    names = ("calls", "calls.csv", "bindings", "members", "status", "metrics")
    links = "".join(f'<a href="/{name}">{name}</a>' for name in names)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)} - calls and bills</title><link rel="icon" href="data:,"><style>{STYLE}</style>
<script src="/page.js" defer></script></head>
<body><header>{header}</header><p id="news" role="status"></p><main data-now="{now:.3f}">{main}</main>
<footer class="small"><nav aria-label="The same as data">{links}</nav></footer></body></html>
"""


def _section(title: str, note: str, inside: str) -> str:
    return f'<section><h2>{title} <span class="note">{note}</span></h2>{inside}</section>'


def _running(board: Snapshot) -> str:
    calls = [call for call in board.calls["calls"] if not call["final"]][:TICKING]
    colours = {member["name"]: index % 3 for index, member in enumerate(board.members["members"])}
    cards = "".join(_call(call, colours, board.forecast.get(call["call_id"], ())) for call in calls)
    count = board.running.total()
    note = "" if count == len(calls) else f"{len(calls)} of {count}"
    return _section(
        "Running calls", note or str(count or ""), cards or _empty("Nobody is talking now.")
    )


def _call(
    call: Mapping[str, Any], colours: Mapping[str, int], forecast: Iterable[BillTotal]
) -> str:
    """What changes while the call runs has the class `tick`; `data-ticks` has its texts for the
    next seconds."""
    length = bill = shares = ticks = ""
    free = " free" if call["answered"] is None else ""
    state = f'<span class="state {call["state"]}">{call["state"]}</span>'
    if not free:
        length = _tick(_duration(call["seconds"]))
        bill = f"{_tick(_units(call['units']))}, tariff {_text(call['tariff'])}"
        shares = _shares(call["carried"], colours, running=True)
        texts = json.dumps([_texts(each) for each in forecast])
        ticks = f' data-answered="{call["answered"]:.3f}" data-ticks="{html.escape(texts)}"'
    return f"""<article class="card call"{ticks}>
<p class="who">{_text(call["caller"])} <span class="to">to</span> {_text(call["callee"])}</p>
<p class="total number{free}">{_tick(call["total"])} {_text(call["currency"])}</p>
<p class="says">{state} <span class="small">{_sentence(call["why"])}</span></p>
<p class="length number">{length}</p>
<p class="small number">{_clock(call["offered"])}</p><p class="small length units">{bill}</p>{shares}</article>
"""


def _texts(total: BillTotal) -> list[Any]:
    """The second of the call, then a text for each `tick` in the order of the page."""
    return [
        total.seconds,
        total.total,
        _duration(total.seconds),
        _units(total.units),
        f"{total.carried[-1][1]} s",
    ]


def _tick(text: str) -> str:
    return f'<span class="tick">{html.escape(text)}</span>'


def _units(count: int) -> str:
    return f"{count} {'unit' if count == 1 else 'units'}"


def _shares(carried: list[Mapping[str, Any]], colours: Mapping[str, int], running: bool) -> str:
    parts = [
        (share["server"], share["seconds"], colours.get(share["server"], 0)) for share in carried
    ]
    words = "".join(
        f'<span><i class="s{colour}"></i>{_text(server)} <span class="number{tick}">{seconds} s</span></span>'
        for (server, seconds, colour), tick in zip(
            parts, [*[""] * (len(parts) - 1), " tick" * running], strict=True
        )
    )
    if not running:
        return f'<p class="shares small">{words}</p>'
    bar = "".join(
        f'<i class="s{colour}" style="flex:{seconds}"></i>'
        for _, seconds, colour in parts
        if seconds
    )
    return f'<div class="wide"><div class="bar" aria-hidden="true">{bar}</div><p class="shares small">{words}</p></div>'


def _finished(calls: list[Mapping[str, Any]]) -> str:
    done = [call for call in calls if call["final"]]
    rows = "".join(_bill(call) for call in done[:MOST_ROWS])
    note = '<a href="/calls.csv">All bills as CSV</a>'
    if not done:
        return _section(
            "Finished bills", "", _empty("No bills yet. Each call that ends leaves one here.")
        )
    return _section(
        "Finished bills", note, f'<div class="card rows">{rows}{_more(len(done), "calls")}</div>'
    )


def _bill(call: Mapping[str, Any]) -> str:
    free = "" if call["units"] else " free"
    length = "" if free else f"{_duration(call['seconds'])}, {_units(call['units'])}"
    shares = "" if free else _shares(call["carried"], {}, running=False)
    return f"""<article class="call row-call">
<p class="who">{_text(call["caller"])} <span class="to">to</span> {_text(call["callee"])}</p>
<p class="total number{free}">{_text(call["total"])} {_text(call["currency"])}</p>
<p class="says small">{_sentence(call["why"])}</p><p class="small length number">{length}</p>
<p class="when small number">{_clock(call["offered"])}</p>{shares}</article>
"""


def _reachable(bindings: Mapping[str, Any]) -> str:
    users, shown = bindings["users"], min(bindings["shown"], MOST_ROWS)
    note = f"The newest {shown:,} of {users:,} users" if users > shown else ""
    return _section("Who can be reached", note, _bindings(bindings["bindings"]))


def _bindings(bindings: list[Mapping[str, Any]]) -> str:
    if not bindings:
        return _empty("Nobody is registered now.")
    rows = "".join(
        f'<div class="row"><span><span class="who">{_text(each["name"] or each["aor"].removeprefix("sip:"))}</span>'
        f' <span class="small">{_text(each["aor"]) if each["name"] else ""}</span></span>'
        f'<span class="second small">{_text(each["contact"])}'
        f' <span class="whole">through {_text(each["server"])}</span></span>'
        f'<span class="number small">{_duration(each["expires"])} left</span></div>'
        for each in bindings[:MOST_ROWS]
    )
    return f'<div class="card rows">{rows}{_more(len(bindings), "bindings")}</div>'


def _more(count: int, name: str) -> str:
    """Of so many, where to find those that are not shown."""
    rest = count - MOST_ROWS
    return (
        f'<p class="small more">and {rest} more, as <a href="/{name}">{name}</a></p>'
        if rest > 0
        else ""
    )


def _members(members: Mapping[str, Any], own_name: str) -> str:
    rows = []
    for each in members["members"]:
        silent = max(0, int(members["now"] - each["last_seen"]))
        state, words = (
            ("alive", "alive") if each["alive"] else ("dead", f"silent for {_duration(silent)}")
        )
        if each["stopped"]:
            state, words = "ended", "stopped"
        own = ' <span class="small">this one</span>' if each["name"] == own_name else ""
        name = _text(each["name"])
        if each["management"].startswith("http://") and not own:
            name = f'<a href="{html.escape(each["management"])}">{name}</a>'
        role = f' <span class="role {each["role"]}">{each["role"]}</span>' if each["role"] else ""
        rows.append(
            f'<div class="row"><span><span class="who{"" if each["alive"] else " gone"}">{name}</span>{role}{own}'
            f"</span>"
            f'<span class="second small">{_text(each["address"])}</span>'
            f'<span class="number {state}">{words}</span></div>'
        )
    return f'<div class="card rows">{"".join(rows)}</div>'


def _prepaid(accounts: Mapping[str, Any]) -> str:
    if not accounts:
        return ""
    rows = "".join(
        f'<div class="row"><span class="who">{_text(user)}</span>'
        f'<span class="second small number">{each["used"]} of {each["paid_in"]} used</span>'
        f'<span class="number">{each["balance"]} {_text(each["currency"])}</span></div>'
        for user, each in list(accounts.items())[:MOST_ROWS]
    )
    return _section(
        "Prepaid balances",
        "",
        f'<div class="card rows">{rows}{_more(len(accounts), "status")}</div>',
    )


def _handled(status: Mapping[str, Any]) -> str:
    counts = {
        **status["handled"],
        **{name.replace("_", " "): count for name, count in status["dropped"].items()},
    }
    tiles = "".join(
        f'<span class="small"><b class="number">{n}</b>{_text(name)}</span>'
        for name, n in counts.items()
    )
    return f'<div class="card tiles">{tiles}</div>' if tiles else _empty("Nothing yet.")


def _empty(sentence: str) -> str:
    return f'<p class="card small">{sentence}</p>'


def _text(value: object) -> str:
    """Escaped, and kept apart from its neighbours' writing direction."""
    return f"<bdi>{html.escape(str(value))}</bdi>" if str(value) else ""


def _sentence(words: str) -> str:
    """Reads from left to right, though it may begin with a name that does not."""
    return f'<bdi dir="ltr">{html.escape(words)}</bdi>'


def _duration(seconds: int) -> str:
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _clock(wall: float | None) -> str:
    if wall is None:  # of a bill that is damaged
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))
