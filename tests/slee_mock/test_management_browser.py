"""The management page in a real browser: it ticks, runs nothing that strangers wrote, and can be
read everywhere."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
from browser_kit import Browser
from process_kit import free_port, wait_until
from slee_kit import answer, in_dialog, invite, phone_request, register

from sip.message import parse
from slee_mock.services.bill_record import Bill, ServedBy
from slee_mock.services.bindings_record import Binding, Bindings
from slee_mock.store.interface import StoreDown
from slee_mock.store.records import Member

pytestmark = pytest.mark.long

EVIL = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'><svg onload=window.hacked=1>"
LONG = "Wolfeschlegelsteinhausenbergerdorff-Maximilianstochter-Hohen"
RIGHT_TO_LEFT = "\u05de\u05e9\u05d4 \u05db\u05d4\u05df"

# Every visible text with its contrast to what is behind it (WCAG 2.1, 1.4.3).
CONTRASTS = """
const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = rgb => rgb.slice(0, 3).map(v => linear(v / 255))
  .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
const colour = text => text.match(/[0-9.]+/g).map(Number);
const behind = node => {
  for (let at = node; at; at = at.parentElement) {
    const found = colour(getComputedStyle(at).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
for (let node; (node = texts.nextNode());) {
  const box = node.parentElement.getBoundingClientRect();
  if (!node.data.trim() || !box.width) continue;
  const two = [colour(getComputedStyle(node.parentElement).color), behind(node.parentElement)].map(light).sort();
  found.push([node.data.trim().slice(0, 40), (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05)]);
}
return found;
"""

# Watches a running call's card: what it showed and when, in ms of the page; and where its
# neighbours stand.
WATCH = """
window.seen = [];
const look = () => {
  const card = document.querySelector('#running .call');
  const parts = ['.total', '.length', '.units > span', '.shares > span:last-child > .number'];
  const text = parts.map(name => card.querySelector(name).textContent).join(' ');
  const places = ['.who', '.state', '.bar'].map(name => card.querySelector(name).getBoundingClientRect().left);
  if (!seen.length || seen.at(-1)[1] !== text) seen.push([performance.now(), text, places.join()]);
};
new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
look();
"""


# Whether the page has shown an answer of the server.
FILLED = "return document.querySelector('main').dataset.now !== undefined"


def show(browser, site):
    """Opens the page and waits until it is filled."""
    browser.open(site.root)
    wait_until(lambda: browser.run(FILLED))


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    made = Browser(free_port(), tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture
def browser(window):
    window.screen(1280, 800)
    window.prefer(color_scheme="light")
    window.open("about:blank")
    window.complaints()
    return window


def bill(call_id, caller="Alice", callee="Bob", ago=60.0, ended=True, **more):
    wall = time.time()
    facts = {
        "caller_uri": "sip:alice@failover.test",
        "callee_uri": "sip:bob@failover.test",
        "tariff": "0.10+0.05/10s",
        "currency": "EUR",
        "offered": wall - ago,
        "answered": wall - ago + 2,
        "ended": wall - 5 if ended else None,
        "why": f"{caller} hung up",
        "carriers": (ServedBy("server1", wall - ago), ServedBy("server2", wall - ago / 2)),
    }
    return Bill(call_id, caller=caller, callee=callee, **{**facts, **more})


def bound(name, aor):
    wall = time.time()
    return Bindings(
        aor, name, (Binding(f"{aor};x={'y' * 80}", "r", 1, wall + 9000, wall, 1.0, "server2"),)
    )


def crowd(site):
    """All that may stand on the page, also what nobody would want there."""
    wall = time.time()
    site.ask(phone_request("OPTIONS", "sip:127.0.0.1:5070", fields=[("Failover-Role", "hot")]))
    site.keep(
        bill("run", ended=False),
        bill("ring", LONG, LONG, answered=None, rang=wall - 1, ended=False, ago=9.0),
        bill("offer", EVIL, RIGHT_TO_LEFT, answered=None, ended=False, ago=5.0),
        bill(EVIL, EVIL, EVIL),
        bill("rtl", RIGHT_TO_LEFT, "Y" * 120),
        *(bill(f"f{n}") for n in range(30)),
        bill("busy", answered=None, why="Bob is busy"),
        bound(EVIL, "sip:evil@failover.test"),
        bound(RIGHT_TO_LEFT, f"sip:{'x' * 60}@failover.test"),
        *(bound("", f"sip:user{n}@failover.test") for n in range(25)),
        Member(
            "server2",
            "127.0.0.1:5080",
            "http://127.0.0.1:9/",
            last_seen=wall + 3600,
            role="replica",
        ),
        Member("server3", "127.0.0.1:5090", last_seen=wall - 75),
        Member(EVIL, EVIL, "javascript:alert(1)", last_seen=1),
    )


def test_before_anything_happened_the_page_says_so(site, browser):
    show(browser, site)
    text = browser.text()
    for words in (
        "server1",
        "No forwarder has been heard",
        "Nobody is talking now",
        "No bills yet",
        "Nobody is registered now",
        "Nothing yet",
    ):
        assert words in text
    assert "undefined" not in text and "NaN" not in text


def test_the_page_tells_of_roles_users_counters_and_services(site, browser):
    for number in range(25):
        site.ask(register(user=f"user{number}"))
    crowd(site)
    site.server._queries._services_status = lambda transaction: {
        "prepaid": {"alice": {"paid_in": "1.00", "balance": "0.70", "currency": "EUR"}},
        "greeter": {"error": "KeyError: 'x'"},
    }
    show(browser, site)
    wait_until(
        lambda: browser.run("return document.getElementById('role').textContent.startsWith('hot')")
    )
    text = browser.text()
    for words in (
        "hot: new calls come here",
        "The newest 20 of 27 users",
        "and 13 more, as calls",
        "silent for 01:1",
        "Service prepaid",
        "paid in 1.00, balance 0.70, currency EUR",
        "KeyError: 'x'",
        "REGISTER",
    ):
        assert words in text
    assert "undefined" not in text and "NaN" not in text


def test_what_a_service_tells_can_be_read_however_deep_it_is(site, browser):
    site.server._queries._services_status = lambda transaction: {
        "mine": {"queue": {"of": {"a": 1}, "names": ["x"], "last": None}, "open": True, "all": [7]}
    }
    show(browser, site)
    text = browser.text()
    for words in ('of {"a":1}, names ["x"], last null', "true", "[7]"):
        assert words in text
    assert "[object" not in text


def test_the_page_leads_back_to_the_forwarders_if_it_is_told_where_that_is(site, browser):
    link = "const a = document.querySelector('#up a'); return a.checkVisibility() ? a.href : ''"
    show(browser, site)
    assert browser.run(link) == ""
    site.server._settings = replace(site.server._settings, forwarder_page="http://127.0.0.1:8060/")
    wait_until(lambda: browser.run(link))
    assert browser.run(link) == "http://127.0.0.1:8060/"
    assert "The forwarder's page" in browser.text()


def test_a_server_in_trouble_says_what_is_wrong(site, browser, monkeypatch):
    status = site.json("/status")
    monkeypatch.setattr(
        site.server._queries,
        "_own_status",
        lambda: {**status, "store": "the disk is full", "uptime": 3725.0},
    )
    show(browser, site)
    assert "The store does not work: the disk is full" in browser.text("header")
    assert "up for 1:02:05" in browser.text("header")


def test_a_page_opened_while_the_store_is_away_says_why_and_what_the_server_did(
    site, browser, monkeypatch
):
    site.ask(register())

    def unreadable(read):
        raise StoreDown("the store is on fire: put it out")

    monkeypatch.setattr(site.server._queries, "_read", unreadable)
    browser.open(site.root)
    wait_until(lambda: browser.run("return document.getElementById('news').textContent !== ''"))
    assert (
        "The store cannot be read: the store is on fire: put it out. Trying again."
        in browser.text()
    )
    assert "server1" in browser.text("header") and "REGISTER" in browser.text("#handled")
    monkeypatch.undo()
    wait_until(lambda: browser.run(FILLED))
    assert browser.run("return document.getElementById('news').textContent") == ""


def test_a_running_bill_ticks_each_second_as_the_server_does_and_its_neighbours_stand_still(
    site, browser
):
    site.ask(register())
    site.keep(bill("run", ago=8.5, ended=False))
    show(browser, site)
    browser.run(WATCH)
    wait_until(lambda: len(browser.run("return seen")) >= 7, 20.0)
    seen = browser.run("return seen")[1:]
    assert len(seen) >= 6
    lengths = [int(text.split()[2].partition(":")[2]) for _, text, _ in seen]
    assert lengths == list(range(lengths[0], lengths[0] + len(lengths))), (
        "each second once, in its order"
    )
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(seen)]
    assert all(600 < gap < 1400 for gap in gaps), gaps
    assert len({places for _, _, places in seen}) == 1, "nothing jumped"
    for _, text, _ in seen:
        total, _, length, units, _, share, _ = text.split()
        seconds = int(length.partition(":")[2])
        right = seconds // 10 + 1
        assert (int(units), total) == (right, f"{(10 + 5 * right) / 100:.2f}"), text
        assert seconds - 4 <= int(share) + 2 <= seconds, text
    assert browser.complaints() == []


def test_nothing_that_came_from_the_network_runs_or_breaks_out(site, browser):
    name = b'"' + EVIL.encode().replace(b'"', b'\\"') + b'" '
    site.ask(register())
    request = (
        invite()
        .to_bytes()
        .replace(b"From: ", b"From: " + name)
        .replace(b"Call-ID: c1", b"Call-ID: <b>c1</b>")
    )
    site.sock.sendto(
        request.replace(b"CSeq:", b"User-Agent: " + EVIL.encode() + b"\r\nCSeq:"), site.listen
    )
    site.sock.recv(65_535)
    crowd(site)
    show(browser, site)
    # a refresh must not let it in either
    browser.run("return new Promise(done => setTimeout(done, 1500))")
    assert browser.run("return window.hacked === undefined")
    assert (
        browser.run(
            "return document.querySelectorAll('script, img, svg, b:not(.number), iframe').length"
        )
        == 1
    )
    assert browser.run("return [...document.links].every(link => link.protocol === 'http:')")
    assert EVIL in browser.text("main")
    assert browser.complaints() == []


def test_the_policy_would_stop_what_escaping_let_through(site, browser):
    show(browser, site)
    browser.run("""
        document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror="window.hacked=1">');
        const script = document.createElement('script');
        script.textContent = 'window.hacked=1';
        document.body.append(script);
        return new Promise(done => setTimeout(done, 200));
    """)
    assert browser.run("return window.hacked === undefined")
    assert any("Content Security Policy" in words for words in browser.complaints())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("full", [False, True], ids=["empty", "full"])
def test_every_word_can_be_read_in_light_and_dark_and_on_a_phone(site, browser, scheme, full):
    if full:
        crowd(site)
    browser.prefer(color_scheme=scheme)
    for width in (1280, 360):
        if width == 360:
            browser.phone()
        show(browser, site)
        found = browser.run(CONTRASTS)
        assert len(found) > 12
        assert [each for each in found if each[1] < 4.5] == []
        assert browser.run("return document.documentElement.scrollWidth") <= width
    paper = browser.run(
        "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
    )
    assert (sum(paper) < 150) == (scheme == "dark")


def test_the_focus_is_seen_and_stays_where_it_is_while_the_page_refreshes(site, browser):
    crowd(site)
    show(browser, site)
    browser.press("Tab")
    assert browser.run("return document.activeElement.textContent") == "server2"
    browser.run("window.focused = document.activeElement")
    style = (
        "const s = getComputedStyle(focused); return [s.outlineStyle, parseFloat(s.outlineWidth)]"
    )
    kind, width = browser.run(style)
    assert kind == "solid" and width >= 2
    before = browser.run("return document.querySelector('main').dataset.now")
    changed = "return document.querySelector('main').dataset.now !== arguments[0]"
    wait_until(lambda: browser.run(changed, before))  # a refresh
    assert browser.run("return document.activeElement === focused")


def test_nothing_moves_for_those_who_asked_for_that(site, browser):
    crowd(site)
    browser.prefer(reduced_motion="reduce")
    show(browser, site)
    assert (
        browser.run(
            "return new Promise(done => setTimeout(() => done(document.getAnimations().length), "
            "1200))"
        )
        == 0
    )


def test_when_the_store_or_the_server_is_away_the_page_keeps_what_it_knows_and_says_why(
    site, browser
):
    crowd(site)
    show(browser, site)
    news = "return document.getElementById('news').textContent"

    def says(words):
        wait_until(lambda: words in browser.run(news), note=lambda: browser.run(news))

    def unreadable(read):
        raise StoreDown("the store is on fire: put it out")

    reading, site.server._queries._read = site.server._queries._read, unreadable
    says("The store cannot be read: the store is on fire: put it out. Trying again")
    assert "Alice" in browser.text("main")
    site.server._queries._read = reading
    wait_until(lambda: not browser.run(news))
    site.server.stop()
    says("This server does not answer. Trying again")
    assert "Alice" in browser.text("main")


def test_a_call_moves_from_running_to_finished_and_its_bill_stays_the_same(site, browser):
    site.ask(register())
    site.sock.sendto(invite().to_bytes(), site.listen)
    site.ask(answer(parse(site.sock.recv(65_535)), 200))
    site.ask(in_dialog("ACK", cseq=1))
    show(browser, site)
    assert "alice and bob are talking" in browser.text("main")
    site.ask(in_dialog("BYE"))
    wait_until(lambda: "alice hung up" in browser.text("main"))
    text = browser.text("main")
    assert "Nobody is talking now" in text
    assert "0.15 EUR" in text[text.index("Finished bills") :]
