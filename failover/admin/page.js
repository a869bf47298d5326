'use strict';
// Reads /status into the page once a second. Texts go in as text, never as HTML. A server's card
// stays the same element for as long as the server is listed, so that a button keeps its focus
// while the figures around it change.

const SAMPLES = 300;  // one a second: five minutes of the curve
const OPEN_RECORDS = 3;  // of the flight recorder; one opens the earlier ones with a click
const LOOKS = {UP: 'good', FAILING: 'wait', RECOVERING: 'wait', DOWN: 'bad', EJECTED: 'bad'};
// HAProxy's word for what the operator wants, and ours
const WISHES = {ENABLED: '', DRAINING: 'DRAIN: no new calls', DISABLED: 'MAINT: disabled'};
const VERBS = {ENABLED: ['drain', 'disable'], DRAINING: ['enable', 'disable'], DISABLED: ['enable', 'drain']};
const LABELS = {drain: 'Drain', disable: 'Disable', enable: 'Enable'};
// docs/operations.txt, section 5, says more of each.
const COUNTERS = {
  'passed.requests': 'Requests forwarded',
  'passed.responses': 'Responses forwarded',
  'keepalives': 'Keep-alives of phones',
  'replayed': 'Messages sent again to another server after a failover',
  'failovers': 'Failovers',
  'ejections': 'Servers ejected: they answered heartbeats only',
  'hedged': 'Requests sent to a second server because the first was slow',
  'takeovers': 'Takeovers of the address by this forwarder',
  'refused': 'Messages that a phone\'s computer refused',
  'answered': 'Requests answered by the forwarder with',
  'dropped.malformed': 'Dropped: not valid SIP',
  'dropped.too-many-hops': 'Dropped: too many hops (Max-Forwards was 0)',
  'dropped.no-server': 'Dropped: no server was up',
  'dropped.answered': 'INVITEs to a phone that had answered',
  'dropped.grace': 'Dropped: no server seen while the address may move',
  'dropped.closed': 'Dropped: the server was removed or unreachable',
  'dropped.no-target': 'Dropped: addressed to a name, not to an IP address',
  'dropped.loop': 'Dropped: a loop',
  'dropped.extension': 'Dropped: requires an unknown extension',
  'dropped.limited': 'Dropped: the source sent too fast',
  'dropped.not-ours': 'Dropped: responses to nothing that passed here',
  'dropped.own-ack': 'ACKs to the forwarder\'s own answers',
  'dropped.fenced': 'Dropped: a server spoke while it was down',
  'limit.forgotten': 'Senders forgotten by the rate limit',
  'inflight.expired': 'Requests that no server answered in 32 s',
  'inflight.overflow': 'Requests not remembered: too many were unanswered',
  'orphans.ended': 'Ringing calls of a dead server that were ended',
  'kept': 'Messages kept while no server was up',
  'kept.expired': 'Kept messages given up after 32 s',
  'kept.overflow': 'Kept messages given up: too many',
  'registration.arrived': 'Registrations: a new server',
  'registration.beat': 'Registrations: a heartbeat',
  'registration.leaving': 'Registrations: a server takes leave',
  'registration.back': 'Registrations: a server is back',
  'registration.static': 'Registrations: of a server of the file',
  'registration.repeated': 'Registrations: a heartbeat came twice',
  'registration.outside': 'Registrations refused: the sender is not allowed',
  'registration.foreign': 'Registrations refused: not the sender\'s address',
  'registration.own': 'Registrations refused: the forwarder\'s own address',
  'registration.malformed': 'Registrations refused: not a heartbeat',
  'registration.replayed': 'Registrations refused: an old heartbeat',
  'registration.full': 'Registrations refused: too many servers',
  'registration.displaced': 'Registered servers that gave way to others',
  'registration.unlisted': 'Registrations: leave taken by an unknown server',
  'registration.unreachable': 'Registrations: of another address family',
  'registration.left': 'Registered servers that left',
  'registration.expired': 'Registered servers forgotten in silence',
  'trouble.receive': 'System errors: receiving',
  'trouble.send': 'System errors: sending',
  'trouble.open': 'System errors: opening a socket',
  'trouble.track': 'System errors: writing forwarder.track.file',
  'trouble.look': 'System errors: looking up an address',
  'trouble.heartbeat': 'System errors: heartbeats',
  'events.lost': 'Events lost by slow readers',
};

const find = id => document.getElementById(id);
const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };
function make(tag, style, ...inside) {
  const node = document.createElement(tag);
  node.className = style;
  node.append(...inside);
  return node;
}
const fact = ([name, value, style, of]) =>
  make('div', of || '', make('dt', '', name), make('dd', style || '', String(value)));
const count = (n, one, many) => n + ' ' + (n === 1 ? one : many);
const span = s => s < 120 ? Math.round(s) + ' s' : s < 7200 ? Math.round(s / 60) + ' min'
  : s < 172800 ? (s / 3600).toFixed(1) + ' h' : Math.round(s / 86400) + ' days';
const milliseconds = n => n === null ? 'none yet' : n < 10000 ? n.toFixed(1) + ' ms' : span(n / 1000);
const rate = n => n === undefined ? '\u2013' : n < 10 ? n.toFixed(1) : String(Math.round(n));
function clock(wall) {
  const when = new Date(wall * 1000), today = when.toDateString() === new Date().toDateString();
  return (today ? '' : when.toLocaleDateString() + ' ') + when.toLocaleTimeString('en-GB');
}
const precise = wall => clock(wall) + '.' + String(Math.floor(wall * 1000) % 1000).padStart(3, '0');
const sentence = text => text.charAt(0).toUpperCase() + text.slice(1);
const isUp = server => server.state === 'UP' || server.state === 'FAILING';

let last = null;  // the status shown

// -- requests per second --------------------------------------------------------------------------

let samples = [];  // {uptime, seconds, rates by server}; the oldest first
const highest = new Map();  // by server, since the page was opened

function sample(status) {
  if (last && (status.uptime < last.uptime || status.listen !== last.listen)) {
    samples = [];  // it has started again
    highest.clear();
    return;
  }
  const seconds = last ? status.uptime - last.uptime : 0;
  if (seconds < 0.2) return;
  const before = new Map(last.servers.map(x => [x.name, x.requests])), rates = {};
  for (const x of status.servers) {
    if (!before.has(x.name)) continue;
    rates[x.name] = Math.max(0, x.requests - before.get(x.name)) / seconds;
    highest.set(x.name, Math.max(highest.get(x.name) || 0, rates[x.name]));
  }
  samples.push({uptime: status.uptime, rates});
  while (samples[0].uptime < status.uptime - SAMPLES) samples.shift();
}
function showRates(status) {
  const now = samples.length ? samples[samples.length - 1].rates : {};
  const sum = Object.values(now).reduce((a, b) => a + b, 0);
  find('rates').replaceChildren(...[
    ['all servers', rate(samples.length ? sum : undefined)],
    ...status.servers.map((x, i) => [x.name, rate(now[x.name]), '', 'of' + i % 3])].map(fact));
  const most = Math.max(1, ...samples.flatMap(each => Object.values(each.rates)));
  const length = samples.length ? Math.max(30, status.uptime - samples[0].uptime) : 30;
  const across = uptime => (300 - (status.uptime - uptime) / length * 300).toFixed(1);
  const draw = (tag, attributes) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const curves = status.servers.map((x, i) => draw('polyline', {class: 'of' + i % 3, points:
    samples.filter(each => x.name in each.rates)
      .map(each => across(each.uptime) + ',' + (58 - each.rates[x.name] / most * 54).toFixed(1)).join(' ')}));
  const now_wall = Date.now() / 1000;
  const marks = [...status.failovers, ...status.takeovers].filter(each => now_wall - each.at < length)
    .map(each => (300 - (now_wall - each.at) / length * 300).toFixed(1))
    .map(x => draw('line', {x1: x, x2: x, y1: 0, y2: 60}));
  find('curve').replaceChildren(...curves, ...marks);
  set(find('begin'), span(length) + ' ago; the top is ' + rate(most) + '/s');
}

// -- servers --------------------------------------------------------------------------------------

async function command(server, verb, button) {
  const others = last.servers.filter(x => x.name !== server && isUp(x) && x.wish === 'ENABLED');
  if (verb !== 'enable' && !others.length && !confirm('No other server takes new calls. '
    + LABELS[verb] + ' ' + server + ' all the same?')) return;
  if (button.ariaBusy === 'true') return;
  button.ariaBusy = 'true';  // not disabled: that would take the focus away
  try {
    const answer = await fetch('/servers/' + encodeURIComponent(server) + '/' + verb, {method: 'POST'});
    set(find('news'), answer.ok ? '' : (await answer.json()).error);
    await read();
  } catch (error) {
    set(find('news'), 'The forwarder did not answer; ' + server + ' is as it was.');
  }
  button.ariaBusy = 'false';
}

const cards = new Map();
function card(name) {
  if (!cards.has(name)) {
    const parts = {head: make('p', 'head'), address: make('p', 'address'), why: make('p', 'why'),
      facts: make('dl', 'facts'), buttons: [make('button', ''), make('button', '')]};
    parts.node = make('section', '', parts.head, parts.address, parts.why, parts.facts,
      make('div', 'buttons', ...parts.buttons));
    for (const button of parts.buttons)
      button.addEventListener('click', () => command(name, button.dataset.verb, button));
    cards.set(name, parts);
  }
  return cards.get(name);
}
function showServer(x, i) {
  const parts = card(x.name), wish = WISHES[x.wish];
  const now = samples.length ? samples[samples.length - 1].rates[x.name] : undefined;
  parts.node.className = 'card server ' + x.state + ' of' + i % 3;
  parts.head.replaceChildren(make('span', 'name', x.name),
    make('span', 'state ' + LOOKS[x.state], x.state + (x.state === 'EJECTED' ? '' : ' ' + span(x.for))),
    ...(x.hot ? [make('span', 'tag', 'hot')] : []), ...(wish ? [make('span', 'tag wait', wish)] : []));
  if (parts.page !== x.page || !parts.address.childNodes.length) {
    parts.page = x.page;
    const link = x.page ? make('a', '', 'page of ' + x.name) : null;
    if (link) link.href = x.page;
    parts.address.replaceChildren(x.address, ...(link ? [', ', link] : []));
  }
  set(parts.why, sentence(x.why));
  parts.facts.replaceChildren(...[
    ['requests/s (max)', rate(now) + ' (' + rate(highest.get(x.name)) + ')'],
    ['requests', x.requests], ['responses', x.responses],
    ['last check', x.heartbeat_ms === null ? 'none yet' : x.heartbeat_ms.toFixed(1) + ' ms'],
    ['failed checks', x.misses],
    ['times down', x.falls + (x.down >= 1 ? ' (' + span(x.down) + ')' : '')]].map(fact));
  parts.buttons.forEach((button, n) => {
    const verb = VERBS[x.wish][n];
    button.dataset.verb = verb;
    button.setAttribute('aria-label', LABELS[verb] + ' ' + x.name);
    set(button, LABELS[verb]);
  });
  return parts.node;
}
function showServers(list) {
  const names = new Set(list.map(x => x.name));
  for (const name of cards.keys()) if (!names.has(name)) cards.delete(name);
  const nodes = list.map(showServer), box = find('servers');
  if (nodes.length !== box.children.length || nodes.some((node, i) => box.children[i] !== node))
    box.replaceChildren(...(nodes.length ? nodes
      : [make('p', 'small', 'None is listed, and none has registered.')]));
}

// -- the flight recorder ---------------------------------------------------------------------------

function showFailover(f) {
  const seen = [
    f.last_answer === null ? f.from + ' had never answered'
      : 'last answer of ' + f.from + ' at ' + precise(f.last_answer),
    f.first_answer === null ? 'no answer' + (f.to ? ' of ' + f.to : '') + ' since'
      : 'first of ' + f.to + ' at ' + precise(f.first_answer)];
  return make('section', 'card failover',
    make('p', 'head', make('span', 'title', f.from + ' \u2192 ' + (f.to || 'nobody')),
      make('span', 'small number', precise(f.at))),
    make('p', '', 'Noticed: ' + f.noticed),
    make('dl', 'facts', ...[
      ['longest wait', milliseconds(f.gap_ms)],
      ['between two answers', milliseconds(f.silence_ms)],
      ['unanswered, sent again', f.replayed + ' of ' + f.in_flight],
      ...(f.kept ? [['kept for a server', f.kept]] : []),
      ['lost', f.lost, f.lost ? 'bad' : 'good']].map(fact)),
    make('p', 'small', sentence(seen.join(', '))));
}
function showTakeover(t) {
  return make('section', 'card failover',
    make('p', 'head', make('span', 'title', 'This forwarder: ' + t.from + ' \u2192 ' + t.to),
      make('span', 'small number', precise(t.at))),
    make('p', '', sentence(t.noticed)),
    make('dl', 'facts', fact([(t.from === 'standby' ? 'on standby' : 'active') + ' before', span(t.waited)])));
}
let shown = '';
function showRecorder(recorded) {
  const newest = [...recorded].sort((a, b) => b.monotonic - a.monotonic);
  if (JSON.stringify(newest) === shown) return;
  shown = JSON.stringify(newest);
  const nodes = newest.map(each => each.kind === 'takeover' ? showTakeover(each) : showFailover(each));
  const earlier = nodes.splice(OPEN_RECORDS), before = find('earlier');
  if (earlier.length) {  // a hundred of them would hide the servers on a telephone
    nodes.push(make('details', '', make('summary', '', count(earlier.length, 'earlier one', 'earlier ones')),
      ...earlier));
    nodes[OPEN_RECORDS].id = 'earlier';
    nodes[OPEN_RECORDS].open = before !== null && before.open;
  }
  find('failovers').replaceChildren(...(nodes.length ? nodes : [make('p', 'small', 'None since the start.')]));
}

// -- the whole -------------------------------------------------------------------------------------

function words(name) {
  const [group, rest] = [name.slice(0, name.indexOf('.')), name.slice(name.indexOf('.') + 1)];
  return COUNTERS[name] || (COUNTERS[group] ? COUNTERS[group] + ' ' + rest : name);
}
function table(id, rows, none) {
  const lines = rows.map(row => make('tr', '', ...row.map(cell => make('td', '', ...[cell].flat()))));
  find(id).replaceChildren(lines.length ? make('table', '', make('tbody', '', ...lines))
    : make('p', 'small', none));
}
function show(s) {
  const up = s.servers.filter(isUp).length, standby = s.role === 'standby';
  sample(s);
  last = s;
  find('summary').className = standby ? 'wait' : s.hot ? '' : 'bad';
  set(find('summary'), standby ? 'On standby' : s.hot ? s.hot + ' is hot'
    : (up ? 'No server takes new calls: callers hear 503' : 'No server lives: callers hear 503')
      + (s.kept ? ', ' + count(s.kept, 'message', 'messages') + ' kept' : ''));
  set(find('role'), (standby ? 'Standby' : 'Active') + ' since ' + clock(s.role_since) + ': ' + s.role_why
    + (standby ? '; it takes over when it can, and watches the servers meanwhile' : ''));
  set(find('about'), up + ' of ' + count(s.servers.length, 'server', 'servers') + ' up \u00b7 policy '
    + s.policy + (standby ? ' \u00b7 to listen on ' : ' \u00b7 listening on ') + s.listen
    + ' \u00b7 running for ' + span(s.uptime) + ' \u00b7 ' + s.in_flight + ' unanswered now');
  set(find('build'), 'Version ' + s.version + ', fingerprint of the secret ' + s.secret);
  document.title = (standby ? 'standby' : s.hot ? s.hot + ' is hot' : 'NOBODY IS HOT') + ' \u2013 forwarder';
  showRates(s);
  showServers(s.servers);
  showRecorder([...s.failovers, ...s.takeovers]);
  const refused = (s.registration || {}).refused || [];
  find('registration').hidden = !refused.length;
  table('refused', refused.map(r => [
    r.source + ': ' + r.note + (r.times > 1 ? ' (' + r.times + ' times)' : ''), clock(r.at)]), '');
  table('counters', Object.entries(s.counters).map(([name, n]) =>
    [[words(name), make('span', 'small', name)], String(n)]), 'Nothing yet.');
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
