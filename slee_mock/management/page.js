'use strict';
// Shows what /snapshot tells, asked once a second. Between two answers running bills tick by the
// sums that the server has forecast. Nothing moves while somebody is selecting text.
//
// All texts are set as texts (textContent), never as HTML: names come from the network.

const MOST_ROWS = 20; // finished bills and contacts here; the links lead to all of them
const MOST_CARDS = 50; // running calls, the newest
const ROLES = {
  hot: 'hot: new calls come here',
  live: 'live: takes its share of the new calls',
  replica: 'replica: takes over when others die',
};

let latest = null; // the last snapshot
let ahead = -Infinity; // how far the server's clock is ahead of ours, ms
let shown = null; // the seconds of the running calls, as they are shown

const find = selector => document.querySelector(selector);
const selecting = () => String(getSelection()) !== '';

// -- texts ----------------------------------------------------------------------------------------

const two = number => String(number).padStart(2, '0');

const duration = seconds => {
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return `${hours ? `${hours}:${two(minutes)}` : two(minutes)}:${two(whole % 60)}`;
};

// The Swedish way to write a date is ISO 8601's.
const clock = seconds => seconds === null ? '' : new Date(seconds * 1000).toLocaleString('sv');
const units = count => `${count} ${count === 1 ? 'unit' : 'units'}`;
const grouped = count => count.toLocaleString('en');

// -- elements -------------------------------------------------------------------------------------

// A copy of the template, with `values` in its elements that have data-of.
const made = (name, values = {}) => {
  const copy = find(`template#${name}`).content.firstElementChild.cloneNode(true);
  for (const place of copy.querySelectorAll('[data-of]')) {
    place.textContent = values[place.dataset.of] ?? '';
  }
  return copy;
};

// Makes `old` equal to `fresh`, touching only what differs: focus and scroll stay where they are.
const patch = (old, fresh) => {
  if (old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
  } else if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
  } else {
    for (const name of old.getAttributeNames()) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const {name, value} of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    fill(old, [...fresh.childNodes]);
  }
};

const fill = (parent, nodes) => {
  const before = [...parent.childNodes];
  before.slice(nodes.length).forEach(node => node.remove());
  nodes.forEach((node, at) => at < before.length ? patch(before[at], node) : parent.append(node));
};

const write = (selector, text) => fill(find(selector), text ? [new Text(text)] : []);

const section = (id, nodes, empty) =>
  fill(find(`#${id} > div`), nodes.length ? nodes : [made('empty', {sentence: empty})]);

// A card with a row for each of the first items; `name` is the path under which all are.
const rows = (items, row, name) => {
  if (!items.length) return [];
  const card = made('rows'), rest = items.length - MOST_ROWS;
  card.append(...items.slice(0, MOST_ROWS).map(row));
  if (rest > 0) {
    const more = made('more', {rest, name});
    more.querySelector('a').setAttribute('href', `/${name}`);
    card.append(more);
  }
  return [card];
};

// -- the sections ---------------------------------------------------------------------------------

const share = ({server, seconds}, colour) => {
  const copy = made('share', {server, length: `${seconds} s`});
  copy.querySelector('i').className = colour;
  return copy;
};

const runningCall = (call, colours) => {
  const isAnswered = call.answered !== null;
  const card = made('running-call', {
    ...call,
    began: clock(call.offered),
    length: isAnswered ? duration(call.seconds) : '',
    units: units(call.units),
  });
  card.querySelector('.state').classList.add(call.state);
  if (!isAnswered) {
    card.querySelector('.total').classList.add('free');
    card.querySelector('.units').remove();
    card.querySelector('.wide').remove();
    return card;
  }
  const bar = card.querySelector('.bar');
  for (const each of call.carried) {
    const colour = `s${colours.get(each.server) ?? 0}`;
    card.querySelector('.shares').append(share(each, colour));
    if (!each.seconds) continue;
    const part = document.createElement('i');
    part.className = colour;
    part.style.flex = each.seconds;
    bar.append(part);
  }
  return card;
};

const finishedCall = call => {
  const row = made('finished-call', {
    ...call,
    began: clock(call.offered),
    length: duration(call.seconds),
    units: units(call.units),
  });
  if (call.units) {
    row.querySelector('.shares').append(...call.carried.map(each => share(each, 's0')));
  } else {
    row.querySelector('.total').classList.add('free');
    row.querySelector('.length').replaceChildren();
  }
  return row;
};

const member = (each, now, own) => {
  const state = each.stopped ? 'ended' : each.alive ? 'alive' : 'dead';
  const silent = `silent for ${duration(now - each.last_seen)}`;
  const words = {ended: 'stopped', alive: 'alive', dead: silent};
  const row = made('member', {...each, state: words[state]});
  const who = row.querySelector('.who');
  who.classList.toggle('gone', !each.alive);
  row.querySelector('.state').classList.add(state);
  row.querySelector('.role').className = `role ${each.role}`;
  if (each.name === own) {
    who.parentElement.append(made('own'));
  } else if (each.management.startsWith('http://')) {
    const link = document.createElement('a');
    link.href = each.management;
    link.append(...who.childNodes);
    who.append(link);
  }
  return row;
};

const binding = each => made('binding', {
  ...each,
  name: each.name || each.aor.replace(/^sip:/, ''),
  aor: each.name ? each.aor : '',
  expires: duration(each.expires),
});

// What a service tells is an object, as a rule with an object for each of its entries. What is in
// that is shown as JSON where it is neither text nor a number.
const service = ([name, told]) => {
  const entries = Object(told) === told ? Object.entries(told) : [['', told]];
  const plain = value => typeof value === 'string' ? value : JSON.stringify(value);
  const facts = value => value?.constructor === Object
    ? Object.entries(value).map(
      ([key, one]) => `${key.replaceAll('_', ' ')} ${plain(one)}`).join(', ')
    : plain(value);
  const copy = made('service', {name});
  copy.append(...rows(
    entries, ([key, value]) => made('entry', {name: key, facts: facts(value)}), 'status'));
  return copy;
};

const showRunning = () => {
  const {calls, members, forecast, running} = latest;
  const second = call => Math.floor((performance.now() + ahead) / 1000 - call.answered);
  const ticked = call => {
    const sums = forecast[call.call_id];
    if (!sums?.length) return call;
    const at = Math.max(0, Math.min(sums.length - 1, second(call) - sums[0].seconds));
    return {...call, ...sums[at]};
  };
  const open = calls.calls.filter(call => !call.final).slice(0, MOST_CARDS).map(ticked);
  const now = open.map(call => `${call.call_id} ${call.state} ${call.seconds}`).join();
  if (now === shown) return;
  shown = now;
  const colours = new Map(members.members.map((each, at) => [each.name, at % 3]));
  section('running', open.map(call => runningCall(call, colours)), 'Nobody is talking now.');
  write('#running .note', open.length === running ? String(running || '')
    : `${open.length} of ${running}`);
};

const showStatus = (status, role) => {
  document.title = `${status.name} - calls and bills`;
  write('#name', status.name);
  write('#address', status.address);
  write('#uptime', duration(status.uptime));
  find('#facts').hidden = false;
  write('#role', role === null ? '' : ROLES[role] ?? 'No forwarder has been heard');
  find('#role').className = `role ${role ?? ''}`;
  const isLinked = /^https?:/.test(status.forwarder_page ?? '');
  find('#up').hidden = !isLinked;
  if (isLinked) find('#up a').setAttribute('href', status.forwarder_page);
  write('#trouble', status.store === 'ok' ? status.warning
    : `The store does not work: ${status.store}`);
  const counts = Object.entries({...status.handled, ...status.dropped});
  const tiles = made('tiles');
  tiles.append(...counts.map(
    ([name, count]) => made('count', {count, name: name.replaceAll('_', ' ')})));
  section('handled', counts.length ? [tiles] : [], 'Nothing yet.');
};

const show = () => {
  const {calls, bindings, members, status} = latest;
  const done = calls.calls.filter(call => call.final);
  const own = members.members.find(each => each.name === status.name);
  showStatus(status, own?.role ?? '');
  shown = null;
  showRunning();
  section('members', rows(
    members.members, each => member(each, members.now, status.name), 'members'), '');
  section('finished', rows(done, finishedCall, 'calls'),
    'No bills yet. Each call that ends leaves one here.');
  find('#finished .note').hidden = !done.length;
  section('bindings', rows(bindings.bindings, binding, 'bindings'), 'Nobody is registered now.');
  const visible = Math.min(bindings.shown, MOST_ROWS);
  write('#bindings .note', bindings.users > visible
    ? `The newest ${grouped(visible)} of ${grouped(bindings.users)} users` : '');
  fill(find('#services'), Object.entries(status.services).map(service));
  find('main').dataset.now = calls.now;
};

// -- once a second --------------------------------------------------------------------------------

// The quickest answer tells the time best. One that is far off means that a clock was set.
const learnTime = now => {
  const told = now * 1000 - performance.now();
  ahead = Math.abs(told - ahead) > 5000 ? told : Math.max(told, ahead);
};

const refresh = async () => {
  let why = 'This server does not answer.';
  try {
    const answer = await fetch('/snapshot', {signal: AbortSignal.timeout(3000)});
    const told = await answer.json();
    if (!answer.ok) {
      why = `${told.status ? 'The store cannot be read: ' : 'No answer: '}${told.error}.`;
      if (told.status && !latest) showStatus(told.status, null);
      throw new Error(why);
    }
    learnTime(told.calls.now);
    latest = told;
    if (!selecting()) show();
    write('#news', '');
    document.body.classList.remove('stale');
  } catch {
    write('#news', `${why} Trying again${latest ? '; what you see is what was told last' : ''}.`);
    document.body.classList.add('stale');
  }
  setTimeout(refresh, 1000);
};

setInterval(() => {
  if (latest && !selecting()) showRunning();
}, 100);
refresh();
