"""The forwarder's page in a real browser, on a telephone: what happened last, and the servers."""

from __future__ import annotations

import pytest
from browser_kit import Browser
from process_kit import wait_until

from failover.admin.http_api import Admin
from failover.config.settings import read
from failover.forwarder import Forwarder

pytestmark = pytest.mark.long

# What the page's own function is given: takeovers at these times.
RECORDER = """showRecorder(Array.from({length: arguments[0]}, (_, at) => ({kind: 'takeover', from: 'standby',
  to: 'active', noticed: 'number ' + at, at, monotonic: at, waited: 1})));"""


@pytest.fixture
def page(tmp_path, free_port):
    forwarder = Forwarder(
        read(f"server1=127.0.0.1:{free_port()}\nforwarder.listen=127.0.0.1:{free_port()}", "test")
    )
    forwarder.start()
    admin = Admin(("127.0.0.1", free_port()), forwarder)
    admin.start()
    browser = Browser(free_port(), tmp_path)
    try:
        browser.phone()
        browser.open(f"http://127.0.0.1:{admin.address[1]}/")
        wait_until(lambda: "No server lives" in browser.text("#summary"))
        browser.run("window.fetch = () => new Promise(() => {})")  # it reads nothing more
        yield browser
        assert browser.complaints() == []
    finally:
        browser.close()
        admin.stop()
        forwarder.stop()


def test_a_hundred_failovers_do_not_hide_the_servers_on_a_telephone(page):
    page.run(RECORDER, 100)
    recorder = page.text("#failovers")
    assert (
        all(f"Number {at}\n" in recorder for at in (99, 98, 97)) and "97 earlier ones" in recorder
    )
    assert "Number 96" not in recorder
    screens = page.run("return find('servers').getBoundingClientRect().top / innerHeight")
    assert screens < 2.5, screens


def test_earlier_failovers_that_were_opened_stay_open_when_another_one_is_added(page):
    page.run(RECORDER, 4)
    assert "1 earlier one" in page.text("#failovers")
    page.click("#earlier summary")
    assert "Number 0" in page.text("#failovers")
    page.run(RECORDER, 5)
    assert "2 earlier ones" in page.text("#failovers") and "Number 0" in page.text("#failovers")
