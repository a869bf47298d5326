"""The forwarder's page for people: a small document, and a script that reads /status into it every second."""

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Forwarder</title>
<style>
  :root { color-scheme: light dark; --text: #1a1a1a; --soft: #5a5a5a; --line: #d5d5d5; --paper: #ffffff;
          --alive: #00664a; --warn: #8a4b00; --dead: #5a5a5a; }
  @media (prefers-color-scheme: dark) {
    :root { --text: #ececec; --soft: #b0b0b0; --line: #444444; --paper: #1b1b1b;
            --alive: #4fd3a6; --warn: #f0b040; --dead: #a8a8a8; } }
  body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--paper);
         max-width: 60rem; margin: 32px auto; padding: 0 16px; }
  h1 { font-size: 24px; margin: 0; } h2 { font-size: 16px; margin: 32px 0 8px; }
  p { margin: 8px 0; color: var(--soft); }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
  th, td { text-align: left; padding: 8px 16px 8px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
  th { font-size: 13px; font-weight: normal; color: var(--soft); }
  .UP { color: var(--alive); } .FAILING, .RECOVERING { color: var(--warn); }
  .DOWN { color: var(--dead); text-decoration: line-through; }
  .number { text-align: right; }
</style>
<h1>Forwarder</h1>
<p id="summary" role="status">Reading the status ...</p>
<h2>Servers</h2>
<table><thead><tr><th>Server<th>Address<th>State<th>Why<th class="number">Requests<th class="number">Responses</thead>
<tbody id="servers"></tbody></table>
<h2>Failovers</h2>
<table><thead><tr><th>When<th>From<th>To<th>Noticed<th class="number">Sent on<th class="number">First answer</thead>
<tbody id="failovers"></tbody></table>
<h2>Counted</h2>
<table><tbody id="counters"></tbody></table>
<p>For programs: <a href="/status">/status</a>, <a href="/events">/events</a>, <a href="/metrics">/metrics</a></p>
<script src="/page.js"></script>
</html>
"""

SCRIPT = """const find = id => document.getElementById(id);
function rows(id, list, none) {
  find(id).replaceChildren(...(list.length ? list : [[none]]).map(cells => {
    const row = document.createElement("tr");
    cells.forEach(cell => {
      const [text, style] = Array.isArray(cell) ? cell : [cell, ""];
      const td = document.createElement("td");
      td.textContent = text; td.className = style; row.append(td);
    });
    return row;
  }));
}
function show(s) {
  find("summary").textContent = (s.hot ? s.hot + " is hot" : "No server lives") + "; policy " + s.policy +
    "; listening on " + s.listen + " for " + Math.round(s.uptime) + " s; version " + s.version;
  rows("servers", s.servers.map(x => [x.name + (x.hot ? " (hot)" : ""), x.address,
    [x.state + (x.wish === "ENABLED" ? "" : ", " + x.wish), x.state], x.why,
    [x.requests, "number"], [x.responses, "number"]]), "none");
  rows("failovers", s.failovers.slice().reverse().map(f => [new Date(f.at * 1000).toLocaleTimeString(), f.from,
    f.to || "nobody", f.noticed, [f.replayed, "number"],
    [f.gap_ms === null ? "none yet" : "after " + f.gap_ms.toFixed(1) + " ms", "number"]]), "None yet.");
  rows("counters", Object.entries(s.counters).map(([name, n]) => [name, [n, "number"]]), "Nothing yet.");
}
async function read() {
  try { show(await (await fetch("/status")).json()); }
  catch (error) { find("summary").textContent = "The forwarder does not answer; trying again."; }
  setTimeout(read, 1000);
}
read();
"""
