"""The management page as HTML: one string, refreshed in place every second by a few lines of script.

Pure. Everything that came from the network passes `_text`, which escapes it; the HTTP layer's Content-Security-Policy
allows no script but `/page.js`.
"""

from __future__ import annotations

import html
import time
from collections.abc import Iterable, Mapping
from typing import Any

from slee_mock.report import Board

# Okabe-Ito hues, darkened or lightened until text in them reaches 4.5 : 1.
STYLE = """
:root { color-scheme: light dark; --paper: #fbfbf9; --card: #fff; --ink: #1a1c1e; --faint: #5b6067; --line: #dcdedf;
  --good: #00664b; --wait: #8a4b00; --done: #5b6067; --bad: #a23b00; --one: #0072b2; --two: #e69f00; --three: #009e73; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1e2125; --ink: #eceef0; --faint: #a3a9b1;
  --line: #363b41; --good: #4fd1a8; --wait: #f0b64a; --done: #a3a9b1; --bad: #ff9a62; --one: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
body > * { max-width: 960px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; } h1 { font-size: 28px; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 32px 0 8px; } p { margin: 0; } .small { font-size: 14px; color: var(--faint); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px; }
.card + .card { margin-top: 8px; } .number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.call { display: grid; grid-template-columns: 1fr auto; gap: 0 16px; } .call > * { min-width: 0; }
.who { font-weight: 600; overflow-wrap: anywhere; } .who .to { color: var(--faint); font-weight: 400; }
.total { text-align: right; font-size: 20px; font-weight: 600; line-height: 1.2; }
.free { font-size: 16px; font-weight: 400; color: var(--faint); } .length { text-align: right; }
.wide { grid-column: 1 / -1; } .whole { white-space: nowrap; }
.state { font-weight: 600; } .answered, .alive { color: var(--good); } .offered, .ringing { color: var(--wait); }
.ended { color: var(--done); } .dead { color: var(--bad); }
.bar { display: flex; gap: 2px; height: 8px; margin: 12px 0 4px; }
.bar i { border-radius: 4px; background: var(--one); min-width: 4px; }
.bar .s1 { background: var(--two); } .bar .s2 { background: var(--three); }
.shares { display: flex; flex-wrap: wrap; gap: 0 16px; } .shares i { display: inline-block; width: 10px; height: 10px;
  border-radius: 5px; margin-right: 6px; background: var(--one); }
.shares .s1 { background: var(--two); } .shares .s2 { background: var(--three); }
.rows { padding: 0 16px; } .row { display: grid; grid-template-columns: 1fr 1fr 136px; gap: 0 16px; padding: 8px 0; }
.row + .row { border-top: 1px solid var(--line); } .row > * { min-width: 0; overflow-wrap: anywhere; }
.row, .call { align-items: baseline; }
.row .number { text-align: right; overflow-wrap: normal; } .gone { text-decoration: line-through; }
.tiles { display: flex; flex-wrap: wrap; gap: 8px 32px; }
.tiles b { display: block; font-size: 20px; line-height: 1.2; }
footer { padding-top: 32px; padding-bottom: 32px; } a { color: inherit; } nav a { margin-right: 16px; }
#news { color: var(--bad); font-weight: 600; } #news:empty { display: none; } .stale main { opacity: .5; }
@media (max-width: 560px) { body > * { padding-left: 16px; padding-right: 16px; } header { padding-top: 16px; }
  h1 { font-size: 24px; } .units { grid-column: 1 / -1; text-align: left; }
  .row { grid-template-columns: 1fr auto; } .row .second { grid-column: 1 / -1; grid-row: 2; } }
"""

SCRIPT = """'use strict';
// Fetches the page anew and puts its <main> in the place of the old one, unless somebody is selecting text in it.
const refresh = async () => {
  const news = document.getElementById('news');
  try {
    const answer = await fetch(location.href, {signal: AbortSignal.timeout(3000)});
    if (!answer.ok) {
      throw new Error(answer.statusText);
    }
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
    if (String(getSelection()) === '') {
      for (const part of ['header', 'main']) {
        document.querySelector(part).replaceWith(fresh.querySelector(part));
      }
    }
    news.textContent = '';
    document.body.classList.remove('stale');
  } catch (error) {
    news.textContent = 'This server does not answer; trying again. What you see is what it told last.';
    document.body.classList.add('stale');
  }
  setTimeout(refresh, 1000);
};
setTimeout(refresh, 1000);
"""


def render(board: Board) -> str:
    status = board.status
    trouble = ""
    if status["store"] != "ok":
        trouble = f'<p class="dead">The store does not work: {_text(status["store"])}</p>'
    header = (
        f'<h1>{_text(status["name"])}</h1><p class="small">listens on {_text(status["address"])}, '
        f"up for {_duration(int(status['uptime']))}</p>{trouble}"
    )
    colours = {member["name"]: index % 3 for index, member in enumerate(board.members["members"])}
    main = "".join([
        "<h2>Calls</h2>", _calls(board.calls, colours),
        "<h2>Who can be reached</h2>", _bindings(board.bindings),
        "<h2>Servers of this cluster</h2>", _members(board.members, status["name"]),
        "<h2>What this server handled</h2>", _handled(status),
    ])  # fmt: skip
    return _document(str(status["name"]), header, main)


def trouble(sentence: str) -> str:
    """The page of a server that cannot tell more than why."""
    return _document("no answer", f"<h1>No answer from the server</h1><p>{_text(sentence)}</p>", "")


def _document(title: str, header: str, main: str) -> str:
    links = "".join(
        f'<a href="/{name}">{name}</a>' for name in ("calls", "bindings", "members", "status", "metrics")
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)} - calls and bills</title><link rel="icon" href="data:,"><style>{STYLE}</style>
<script src="/page.js" defer></script></head>
<body><header>{header}</header><p id="news" role="status"></p><main>{main}</main>
<footer class="small"><nav aria-label="The same as data">{links}</nav></footer></body></html>
"""


def _calls(calls: Mapping[str, Any], colours: Mapping[str, int]) -> str:
    if not calls["calls"]:
        return '<p class="card small">No calls yet. The bill of each call will stand here.</p>'
    return "".join(_call(call, colours) for call in calls["calls"])


def _call(call: Mapping[str, Any], colours: Mapping[str, int]) -> str:
    length = bill = shares = ""
    free = " free" if call["answered"] is None else ""
    if not free:
        length = _duration(call["seconds"])
        bill = f'{call["units"]} {"unit" if call["units"] == 1 else "units"}, tariff {_text(call["tariff"])}'
        shares = _shares(call["carried"], colours)
    return f"""<article class="card call">
<p class="who">{_text(call["caller"])} <span class="to">to</span> {_text(call["callee"])}</p>
<p class="total number{free}">{_text(call["total"])} {_text(call["currency"])}</p>
<p><span class="state {call["state"]}">{call["state"]}</span> <span class="small">{_text(call["why"])}</span></p>
<p class="length number">{length}</p>
<p class="small number">{_clock(call["offered"])}</p><p class="small length units">{bill}</p>{shares}</article>"""


def _shares(carried: Iterable[Mapping[str, Any]], colours: Mapping[str, int]) -> str:
    parts = [(share["server"], share["seconds"], colours.get(share["server"], 0)) for share in carried]
    bar = "".join(f'<i class="s{colour}" style="flex:{seconds}"></i>' for _, seconds, colour in parts if seconds)
    words = "".join(
        f'<span><i class="s{colour}"></i>{_text(server)} <span class="number">{seconds} s</span></span>'
        for server, seconds, colour in parts
    )
    return f'<div class="wide"><div class="bar" aria-hidden="true">{bar}</div><p class="shares small">{words}</p></div>'


def _bindings(bindings: Mapping[str, Any]) -> str:
    users, shown = bindings["users"], bindings["shown"]
    more = f'<p class="small">The newest {shown:,} of {users:,} users</p>' if users > shown else ""
    if not bindings["bindings"]:
        return f'{more}<p class="card small">Nobody is registered now.</p>'
    rows = "".join(
        f'<div class="row"><span><span class="who">{_text(each["name"] or each["aor"])}</span>'
        f' <span class="small">{_text(each["aor"]) if each["name"] else ""}</span></span>'
        f'<span class="second small">{_text(each["contact"])}'
        f' <span class="whole">through {_text(each["server"])}</span></span>'
        f'<span class="number small">{_duration(each["expires"])} left</span></div>'
        for each in bindings["bindings"]
    )
    return f'{more}<div class="card rows">{rows}</div>'


def _members(members: Mapping[str, Any], own_name: str) -> str:
    rows = []
    for each in members["members"]:
        silent = max(0, int(members["now"] - each["last_seen"]))
        state, words = ("alive", "alive") if each["alive"] else ("dead", f"silent for {_duration(silent)}")
        if each["stopped"]:
            state, words = "ended", "stopped"
        own = ' <span class="small">this one</span>' if each["name"] == own_name else ""
        name = _text(each["name"])
        if each["management"] and not own:
            name = f'<a href="{html.escape(each["management"])}">{name}</a>'
        rows.append(
            f'<div class="row"><span><span class="who{"" if each["alive"] else " gone"}">{name}</span>{own}</span>'
            f'<span class="second small">{_text(each["address"])}</span>'
            f'<span class="number {state}">{words}</span></div>'
        )
    return f'<div class="card rows">{"".join(rows)}</div>'


def _handled(status: Mapping[str, Any]) -> str:
    counts = {**status["handled"], **{name.replace("_", " "): count for name, count in status["dropped"].items()}}
    tiles = "".join(f'<span class="small"><b class="number">{n}</b>{_text(name)}</span>' for name, n in counts.items())
    return f'<div class="card tiles">{tiles or "Nothing yet."}</div>'


def _text(value: object) -> str:
    """Escaped, and kept apart from its neighbours' writing direction."""
    return f"<bdi>{html.escape(str(value))}</bdi>" if str(value) else ""


def _duration(seconds: int) -> str:
    minutes, rest = divmod(max(0, seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def _clock(wall: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))
