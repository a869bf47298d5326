"""The forwarder's pages, as a person and a program read them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from urllib.request import urlopen

import pytest
from forwarder_kit import ask, fake_servers, plain_phone

from failover.admin import Admin
from failover.service import Forwarder
from failover.settings import read


@pytest.fixture
def scene(free_port, eventually):
    """(base of the pages' addresses, the forwarder's SIP address, [server1, server2], a phone)."""
    with fake_servers(free_port) as servers, plain_phone() as phone:
        port = free_port()
        named = [f"{server.name}=127.0.0.1:{server.address[1]}" for server in servers]
        forwarder = Forwarder(read("\n".join([f"forwarder.listen=127.0.0.1:{port}", *named]), "test"))
        forwarder.start()
        admin = Admin(("127.0.0.1", free_port()), forwarder)
        admin.start()
        eventually(lambda: {server["state"] for server in forwarder.status()["servers"]} == {"UP"})
        try:
            yield f"http://127.0.0.1:{admin.address[1]}", ("127.0.0.1", port), servers, phone
        finally:
            admin.stop()
            forwarder.stop()


def get(url):
    with urlopen(url, timeout=2.0) as answer:
        return answer.read().decode()


@contextmanager
def events(base):
    """An iterator of (name, object) read from /events."""
    with urlopen(f"{base}/events", timeout=3.0) as stream:

        def each():
            name = ""
            for line in stream:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    yield name, json.loads(value)

        yield each()


def test_status_has_what_its_readers_rely_on(scene):
    base, address, _servers, phone = scene
    ask(phone, address, "z9hG4bK1")
    status = json.loads(get(f"{base}/status"))
    assert status["listen"] == f"127.0.0.1:{address[1]}"
    assert (status["policy"], status["hot"], status["failovers"]) == ("first-live", "server1", [])
    assert status["uptime"] > 0 and status["counters"]["passed.requests"] == 1
    first = status["servers"][0]
    assert set(first) == {"name", "address", "state", "wish", "hot", "for", "why", "requests", "responses"}
    assert (first["name"], first["state"], first["wish"], first["hot"]) == ("server1", "UP", "ENABLED", True)


def test_events_begin_with_the_status_and_tell_messages_states_and_failovers(scene):
    base, address, servers, phone = scene
    with events(base) as told:
        name, hello = next(told)
        assert name == "hello" and hello["hot"] == "server1"
        ask(phone, address, "z9hG4bK1")
        name, asked = next(told)
        assert name == "message"
        assert (asked["from"], asked["to"], asked["method"], asked["status"]) == ("phones", "server1", "OPTIONS", None)
        assert asked["target"] == f"127.0.0.1:{servers[0].address[1]}" and asked["call_id"] == "call-1"
        name, answered = next(told)
        assert (answered["from"], answered["to"], answered["status"]) == ("server1", "phones", 200)
        assert answered["at"] >= asked["at"] and not answered["replayed"]
        servers[0].kill()
        name, state = next(told)
        assert (name, state["server"], state["state"], state["hot"]) == ("state", "server1", "DOWN", "server2")
        name, failover = next(told)
        assert (name, failover["from"], failover["to"]) == ("failover", "server1", "server2")


def test_metrics_are_in_prometheus_form(scene):
    base, address, _servers, phone = scene
    ask(phone, address, "z9hG4bK1")
    lines = get(f"{base}/metrics").splitlines()
    assert 'forwarder_server_status{server="server1",state="UP"} 1' in lines
    assert 'forwarder_server_status{server="server1",state="DOWN"} 0' in lines
    assert 'forwarder_server_requests_total{server="server1"} 1' in lines
    assert 'forwarder_events_total{what="passed.requests"} 1' in lines
    samples = [line for line in lines if not line.startswith("#")]
    assert all(line.startswith("forwarder_") and float(line.rpartition(" ")[2]) >= 0 for line in samples)
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == {
        line.partition("{")[0].split()[0] for line in samples
    }


def test_the_page_for_people_has_its_script_beside_it_as_the_content_policy_demands(scene):
    page = get(scene[0])
    assert "<h2>Servers</h2>" in page and '<script src="/page.js"></script>' in page
    assert "/status" in get(f"{scene[0]}/page.js")


def test_a_reader_that_leaves_or_lags_does_not_hold_the_forwarder_up(scene, eventually, monkeypatch):
    base, address, _servers, phone = scene
    monkeypatch.setattr("failover.admin.BACKLOG", 1)
    with events(base) as told:
        next(told)
        for n in range(50):
            ask(phone, address, f"z9hG4bK{n}")
    assert json.loads(get(f"{base}/status"))["counters"]["passed.requests"] == 50
