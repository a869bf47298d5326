"""How the management page looks, and the script that keeps it up to date. Texts only."""

from __future__ import annotations

# Okabe-Ito hues, darkened or lightened until text in them reaches 4.5 : 1.
STYLE = """
:root { color-scheme: light dark; --paper: #fbfbf9; --card: #fff; --ink: #1a1c1e; --faint: #5b6067; --line: #dcdedf;
  --good: #00664b; --wait: #8a4b00; --done: #5b6067; --bad: #a23b00; --one: #0072b2; --two: #e69f00; --three: #009e73; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1e2125; --ink: #eceef0; --faint: #a3a9b1;
  --line: #363b41; --good: #4fd1a8; --wait: #f0b64a; --done: #a3a9b1; --bad: #ff9a62; --one: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
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
.rows { padding: 0 16px; } .row { display: grid; grid-template-columns: 1fr 1fr 144px; gap: 0 16px; padding: 8px 0; }
.row + .row { border-top: 1px solid var(--line); } .row > * { min-width: 0; overflow-wrap: anywhere; }
.row, .call { align-items: baseline; } .more { padding: 8px 0; border-top: 1px solid var(--line); }
.row-call { padding: 12px 0; } .row-call + .row-call { border-top: 1px solid var(--line); }
.row-call .total { font-size: 16px; } .row-call .shares { justify-content: flex-end; } .row-call .shares .s0,
.row-call .shares i { display: none; }
.row .number { text-align: right; overflow-wrap: normal; } .gone { text-decoration: line-through; color: var(--faint); }
.tiles { display: flex; flex-wrap: wrap; gap: 8px 32px; }
.tiles b { display: block; color: var(--ink); font-size: 20px; line-height: 1.2; }
footer { padding-top: 32px; padding-bottom: 32px; } a { color: inherit; }
nav { display: flex; flex-wrap: wrap; gap: 0 16px; }
nav a { padding: 8px 0; }
#news { margin: 8px auto; color: var(--bad); font-weight: 600; } #news:empty { display: none; }
.stale main { filter: grayscale(1); } .stale .card { border-style: dashed; }
.alarm { color: var(--bad); font-weight: 600; overflow-wrap: anywhere; }
.role { font-size: 14px; font-weight: 600; color: var(--faint); } .role.hot, .role.live { color: var(--good); }
span.role { border: 1px solid currentColor; border-radius: 4px; padding: 0 6px; white-space: nowrap; }
.note { font-size: 14px; font-weight: 400; color: var(--faint); margin-left: 8px; }
:focus-visible { outline: 3px solid var(--one); outline-offset: 2px; border-radius: 2px; }
@media (min-width: 720px) { .row-call { grid-template-columns: 1fr 1fr 144px; }
  .row-call > .total, .row-call > .length { grid-column: 3; } .row-call > .when, .row-call > .shares { grid-column: 2; }
  .row-call > .total, .row-call > .when { grid-row: 1; } .row-call > .shares, .row-call > .length { grid-row: 2; }
  .row-call .shares { justify-content: flex-start; } }
@media (max-width: 560px) { body > * { padding-left: 16px; padding-right: 16px; } header { padding-top: 16px; }
  h1 { font-size: 24px; } .units, .says { grid-column: 1 / -1; text-align: left; }
  .call { grid-auto-flow: dense; } .length.number { grid-column: 2; }
  .row-call .shares { grid-column: 1 / -1; justify-content: flex-start; }
  .row { grid-template-columns: 1fr auto; } .row .second { grid-column: 1 / -1; grid-row: 2; } }
"""

SCRIPT = """'use strict';
// Brings the page up to date each second, touching only what has changed: focus and scroll stay where they are.
// Between, running bills tick by what the server has foretold. Nothing moves while somebody is selecting text.
let ahead = -Infinity; // how far the server's clock is ahead of ours, ms
const find = name => document.querySelector(name);
const selecting = () => String(getSelection()) !== '';

// The quickest answer tells the time best. One that is far off means that a clock was set.
const learn = () => {
  const told = Number(find('main').dataset.now) * 1000 - performance.now();
  ahead = Math.abs(told - ahead) > 5000 ? told : Math.max(told, ahead);
};

const tick = () => {
  if (selecting()) return;
  for (const call of document.querySelectorAll('[data-ticks]')) {
    const second = Math.floor((performance.now() + ahead) / 1000 - Number(call.dataset.answered));
    const known = JSON.parse(call.dataset.ticks);
    const [, ...texts] = known[Math.max(0, Math.min(known.length - 1, second - known[0][0]))];
    const places = call.querySelectorAll('.tick');
    texts.forEach((text, at) => { if (places[at].textContent !== text) places[at].textContent = text; });
  }
};

const become = (old, fresh) => {
  if (old.nodeName !== fresh.nodeName) { old.replaceWith(fresh); return; }
  if (old.nodeType === Node.TEXT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
  for (const name of old.getAttributeNames()) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const {name, value} of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const before = [...old.childNodes], after = [...fresh.childNodes];
  before.slice(after.length).forEach(node => node.remove());
  after.forEach((node, at) => at < before.length ? become(before[at], node) : old.append(node));
};

const refresh = async () => {
  const news = find('#news');
  let why = 'This server does not answer.';
  try {
    const answer = await fetch(location.href, {signal: AbortSignal.timeout(3000)});
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
    if (!answer.ok) {
      why = fresh.querySelector('#trouble').textContent + '.';
      find('#trouble')?.remove();
      throw new Error(why);
    }
    if (!selecting()) for (const part of ['header', 'main']) become(find(part), fresh.querySelector(part));
    learn();
    tick();
    news.textContent = '';
    document.body.classList.remove('stale');
  } catch (error) {
    news.textContent = why + ' Trying again; what you see is what was told last.';
    document.body.classList.add('stale');
  }
  setTimeout(refresh, 1000);
};
learn();
tick();
setInterval(tick, 100);
setTimeout(refresh, 1000);
"""
