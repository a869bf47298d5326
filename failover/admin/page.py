"""The forwarder's page for people: a small document, and a script that reads /status into it every
second.

Texts go in as text, never as HTML. A server's card stays the same element for as long as the server
is listed, so that a button keeps its focus while the figures around it change.
"""

STYLE = """
:root { color-scheme: light dark; --paper: #fbfbf9; --card: #fff; --ink: #1a1c1e; --faint: #5b6067; --line: #dcdedf;
  --good: #00664b; --wait: #8a4b00; --bad: #a23b00; --focus: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1e2125; --ink: #eceef0; --faint: #a3a9b1;
  --line: #363b41; --good: #4fd1a8; --wait: #f0b64a; --bad: #ff9a62; --focus: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
body > * { max-width: 960px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; } h1 { font-size: 14px; font-weight: 400; color: var(--faint); margin: 0; }
h2 { font-size: 16px; margin: 32px 0 8px; } p { margin: 0; } .small { font-size: 14px; color: var(--faint); }
#summary { font-size: 28px; font-weight: 600; line-height: 1.2; overflow-wrap: anywhere; }
#summary.bad { color: var(--bad); } #summary.wait { color: var(--wait); } #role { overflow-wrap: anywhere; }
#news { color: var(--bad); font-weight: 600; } #news:empty { display: none; }
.stale main { opacity: .5; }
#servers { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); gap: 8px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 16px; min-width: 0; }
.server { display: flex; flex-direction: column; gap: 8px; border-left: 4px solid var(--line); }
.server.hot { border-left-color: var(--good); }
.head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 12px; }
.name { font-size: 20px; font-weight: 600; overflow-wrap: anywhere; } .dead .name { text-decoration: line-through; }
.state { font-weight: 600; } .good { color: var(--good); } .wait { color: var(--wait); } .bad { color: var(--bad); }
.tag { font-size: 14px; border: 1px solid currentColor; border-radius: 4px; padding: 0 6px; }
.why { overflow-wrap: anywhere; flex: 1; } .address { font-size: 14px; color: var(--faint); overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 24px; margin: 0; font-variant-numeric: tabular-nums; }
.facts div { display: flex; flex-direction: column-reverse; } dt { font-size: 14px; color: var(--faint); }
dd { margin: 0; font-weight: 600; white-space: nowrap; }
.buttons { display: flex; gap: 8px; margin-top: 8px; }
button { font: inherit; color: inherit; background: transparent; border: 1px solid var(--faint); border-radius: 6px;
  min-height: 44px; padding: 8px 16px; cursor: pointer; flex: 1; max-width: 160px; }
button:hover { border-color: currentColor; } button[aria-busy=true] { opacity: .5; cursor: progress; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.failover + .failover { margin-top: 8px; } .failover > * + * { margin-top: 8px; }
.failover .head { justify-content: space-between; } .title { font-weight: 600; overflow-wrap: anywhere; }
.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
summary { cursor: pointer; padding: 8px 0; } summary h2 { display: inline; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td { padding: 8px 0; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
td:last-child { text-align: right; padding-left: 16px; white-space: nowrap; } tr:first-child td { border-top: 0; }
#counters, #refused { padding: 8px 16px; } a { color: inherit; } nav a { margin-right: 16px; }
[hidden] { display: none !important; }
footer { padding-top: 32px; padding-bottom: 32px; }
@media (max-width: 560px) { body > * { padding-left: 16px; padding-right: 16px; } header { padding-top: 16px; }
  #summary { font-size: 24px; } button { max-width: none; }
  .facts { display: grid; grid-template-columns: 1fr 1fr; } nav a { display: inline-block; padding: 8px 0; } }
"""

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Forwarder</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Forwarder</h1>
<p id="summary" role="status">Reading the status ...</p>
<p id="role"></p>
<p id="about" class="small"></p>
<p id="news" role="alert"></p>
</header>
<main>
<h2>Servers</h2>
<div id="servers"></div>
<h2>Failovers and takeovers</h2>
<div id="failovers"></div>
<section id="registration" hidden>
<h2>Registrations refused</h2>
<div id="refused" class="card"></div>
</section>
<details>
<summary><h2>Counted since the start</h2></summary>
<div id="counters" class="card"></div>
</details>
</main>
<footer>
<p class="small">Drain: a server keeps its calls and gets no new ones. Disable: it gets nothing more. Both last until
Enable, or until the forwarder starts again.</p>
<nav class="small"><a href="/status">/status</a> <a href="/failovers">/failovers</a> <a href="/metrics">/metrics</a>
<a href="/events">/events</a></nav>
</footer>
<script src="/page.js"></script>
</body>
</html>
"""

SCRIPT = """'use strict';
const find = id => document.getElementById(id);
const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const make = (tag, style, ...inside) => {
  const node = document.createElement(tag);
  node.className = style; node.append(...inside);
  return node;
};
const facts = list => make('dl', 'facts',
  ...list.map(([name, value, style]) => make('div', '', make('dt', '', name), make('dd', style || '', String(value)))));
const count = (n, one, many) => n + ' ' + (n === 1 ? one : many);
const span = s => s < 120 ? Math.round(s) + ' s' : s < 7200 ? Math.round(s / 60) + ' min'
  : s < 172800 ? (s / 3600).toFixed(1) + ' h' : Math.round(s / 86400) + ' days';
const ms = n => n === null ? 'none yet' : n < 10000 ? n.toFixed(1) + ' ms' : span(n / 1000);
const clock = wall => {
  const when = new Date(wall * 1000), today = when.toDateString() === new Date().toDateString();
  return (today ? '' : when.toLocaleDateString() + ' ') + when.toLocaleTimeString('en-GB');
};
const sentence = text => text.charAt(0).toUpperCase() + text.slice(1);
const precise = wall => clock(wall) + '.' + String(Math.floor(wall * 1000) % 1000).padStart(3, '0');

const LOOKS = {UP: 'good', FAILING: 'wait', RECOVERING: 'wait', DOWN: 'bad', EJECTED: 'bad'};
const WORDS = {UP: 'up', FAILING: 'failing', RECOVERING: 'recovering', DOWN: 'down', EJECTED: 'ejected'};
const WISHES = {ENABLED: '', DRAINING: 'draining', DISABLED: 'disabled'};
const OFFERS = {ENABLED: ['drain', 'disable'], DRAINING: ['enable', 'disable'], DISABLED: ['enable', 'drain']};
const NAMES = {drain: 'Drain', disable: 'Disable', enable: 'Enable'};
let last = null, shown = '';

async function ask(server, verb, button) {
  const others = last.servers.filter(x => x.name !== server && (x.state === 'UP' || x.state === 'FAILING')
    && x.wish === 'ENABLED');
  if (verb !== 'enable' && !others.length && !confirm('No other server takes new calls. ' + NAMES[verb] + ' ' + server
    + ' all the same?')) return;
  if (button.ariaBusy === 'true') return;
  button.ariaBusy = 'true';  // not disabled: that would take the focus away
  try {
    const answer = await fetch('/servers/' + encodeURIComponent(server) + '/' + verb, {method: 'POST'});
    set(find('news'), answer.ok ? '' : (await answer.json()).error);
    await read();
  } catch (error) { set(find('news'), 'The forwarder did not answer; ' + server + ' is as it was.'); }
  button.ariaBusy = 'false';
}

const cards = new Map();
function card(name) {
  if (!cards.has(name)) {
    const parts = {head: make('p', 'head'), address: make('p', 'address'), why: make('p', 'why'),
      facts: make('div', ''), buttons: [make('button', ''), make('button', '')]};
    parts.node = make('section', 'card server', parts.head, parts.address, parts.why, parts.facts,
      make('div', 'buttons', ...parts.buttons));
    parts.buttons.forEach(button => button.addEventListener('click', () => ask(name, button.dataset.verb, button)));
    cards.set(name, parts);
  }
  return cards.get(name);
}
function showServer(x) {
  const parts = card(x.name), wish = WISHES[x.wish];
  parts.node.className = 'card server' + (x.hot ? ' hot' : '') + (x.state === 'DOWN' ? ' dead' : '');
  parts.head.replaceChildren(make('span', 'name', x.name),
    make('span', 'state ' + LOOKS[x.state], WORDS[x.state] + (x.state === 'EJECTED' ? '' : ' for ' + span(x.for))),
    ...(x.hot ? [make('span', 'tag good', 'hot')] : []), ...(wish ? [make('span', 'tag wait', wish)] : []));
  set(parts.address, x.address);
  set(parts.why, sentence(x.why));
  parts.facts.replaceChildren(facts([['requests', x.requests], ['responses', x.responses],
    ['heartbeat', x.heartbeat_ms === null ? 'none yet' : x.heartbeat_ms.toFixed(1) + ' ms'],
    ['times down', x.falls + (x.down >= 1 ? ' (' + span(x.down) + ')' : '')]]));
  parts.buttons.forEach((button, i) => {
    const verb = OFFERS[x.wish][i];
    button.dataset.verb = verb;
    button.setAttribute('aria-label', NAMES[verb] + ' ' + x.name);
    set(button, NAMES[verb]);
  });
  return parts.node;
}
function showServers(list) {
  const names = new Set(list.map(x => x.name));
  for (const name of cards.keys()) if (!names.has(name)) cards.delete(name);
  const nodes = list.map(showServer), box = find('servers');
  if (nodes.length !== box.children.length || nodes.some((node, i) => box.children[i] !== node))
    box.replaceChildren(...(nodes.length ? nodes : [make('p', 'small', 'None is listed, and none has registered.')]));
}
function showFailover(f) {
  const seen = [f.last_answer === null ? f.from + ' had never answered' : 'last answer of ' + f.from + ' at '
    + precise(f.last_answer), f.first_answer === null ? 'no answer' + (f.to ? ' of ' + f.to : '') + ' since'
    : 'first of ' + f.to + ' at ' + precise(f.first_answer)];
  return make('section', 'card failover',
    make('p', 'head', make('span', 'title', f.from + ' \\u2192 ' + (f.to || 'nobody')),
      make('span', 'small number', precise(f.at))),
    make('p', '', 'Noticed: ' + f.noticed),
    facts([['without answers', ms(f.silence_ms)], ['first answer took', ms(f.gap_ms)],
      ['in flight, sent on', f.replayed + ' of ' + f.in_flight],
      ...(f.kept ? [['kept for a server', f.kept]] : []), ['lost', f.lost, f.lost ? 'bad' : 'good']]),
    make('p', 'small', seen.join(', ')));
}
function showTakeover(t) {
  return make('section', 'card failover',
    make('p', 'head', make('span', 'title', 'This forwarder: ' + t.from + ' \\u2192 ' + t.to),
      make('span', 'small number', precise(t.at))),
    make('p', '', sentence(t.noticed)),
    facts([[(t.from === 'standby' ? 'on standby' : 'active') + ' before', span(t.waited)]]));
}
function table(id, rows, none) {
  const lines = rows.map(row => make('tr', '', ...row.map(text => make('td', '', text))));
  find(id).replaceChildren(lines.length ? make('table', '', make('tbody', '', ...lines)) : make('p', 'small', none));
}
function show(s) {
  const live = s.servers.filter(x => x.state === 'UP' || x.state === 'FAILING').length;
  const standby = s.role === 'standby';
  find('summary').className = standby ? 'wait' : s.hot ? '' : 'bad';
  set(find('summary'), standby ? 'On standby' : s.hot ? s.hot + ' is hot'
    : (live ? 'No server takes new calls: callers hear 503' : 'No server lives: callers hear 503')
      + (s.kept ? ', ' + count(s.kept, 'message', 'messages') + ' kept' : ''));
  set(find('role'), (standby ? 'Standby' : 'Active') + ' since ' + clock(s.role_since) + ': ' + s.role_why
    + (standby ? '; it takes over when it can, and watches the servers meanwhile' : ''));
  set(find('about'), live + ' of ' + count(s.servers.length, 'server', 'servers') + ' live \\u00b7 policy ' + s.policy
    + (standby ? ' \\u00b7 to listen on ' : ' \\u00b7 listening on ') + s.listen + ' \\u00b7 up ' + span(s.uptime)
    + ' \\u00b7 secret ' + s.secret + ' \\u00b7 version ' + s.version);
  document.title = (standby ? 'standby' : s.hot ? s.hot + ' is hot' : 'NOBODY IS HOT') + ' \\u2013 forwarder';
  showServers(s.servers);
  const recorded = [...s.failovers, ...s.takeovers].sort((a, b) => b.monotonic - a.monotonic);
  if (JSON.stringify(recorded) !== shown) {
    find('failovers').replaceChildren(...(recorded.length
      ? recorded.map(each => each.kind === 'takeover' ? showTakeover(each) : showFailover(each))
      : [make('p', 'small', 'None since the start.')]));
    shown = JSON.stringify(recorded);
  }
  const refused = (s.registration || {}).refused || [];
  find('registration').hidden = !refused.length;
  table('refused', refused.map(r => [r.source + ': ' + r.note + (r.times > 1 ? ' (' + r.times + ' times)' : ''),
    clock(r.at)]), '');
  table('counters', Object.entries(s.counters).map(([name, n]) => [name, String(n)]), 'Nothing yet.');
  last = s;
}
let failed = 0;
async function read() {
  try {
    const answer = await fetch('/status', {signal: AbortSignal.timeout(3000)});
    if (!answer.ok) throw new Error(answer.status);
    show(await answer.json());
    if (failed) set(find('news'), '');
    failed = 0;
  } catch (error) {
    failed += 1;
    if (failed > 1) set(find('news'), 'The forwarder does not answer; what stands here is old. Trying again.');
  }
  document.body.classList.toggle('stale', failed > 1);
}
async function again() {
  if (!document.hidden || !last) await read();
  setTimeout(again, 1000);
}
document.addEventListener('visibilitychange', () => { if (!document.hidden) read(); });
again();
"""
