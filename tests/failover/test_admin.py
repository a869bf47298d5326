"""The forwarder's pages, as a person and a program read them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import prometheus_kit
import pytest
from forwarder_kit import ask, fake_servers, field, plain_phone, request

from failover.admin.http_api import Admin
from failover.config.settings import read
from failover.forwarder import Forwarder

LINK = "admin.links=server1 http://127.0.0.1:8071/"


@pytest.fixture
def scene(free_port, eventually):
    """(base of the pages' addresses, the forwarder's SIP address, [server1, server2], a phone)."""
    with fake_servers(free_port) as servers, plain_phone() as phone:
        port = free_port()
        named = [f"{server.name}=127.0.0.1:{server.address[1]}" for server in servers]
        forwarder = Forwarder(
            read("\n".join([f"forwarder.listen=127.0.0.1:{port}", LINK, *named]), "test")
        )
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


def post(url, **headers):
    """(status, object) of an empty POST."""
    try:
        with urlopen(Request(url, data=b"", headers=headers, method="POST"), timeout=2.0) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def server(base, name):
    return next(
        each for each in json.loads(get(f"{base}/status"))["servers"] if each["name"] == name
    )


@contextmanager
def events(base, query=""):
    """An iterator of (name, object) read from /events."""
    with urlopen(f"{base}/events{query}", timeout=3.0) as stream:

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
    told = {"name", "address", "state", "wish", "hot", "for", "why", "requests", "responses"}
    assert set(first) == told | {"misses", "falls", "ejections", "down", "heartbeat_ms", "page"}
    assert [each["page"] for each in status["servers"]] == ["http://127.0.0.1:8071/", None]
    assert (first["name"], first["state"], first["wish"], first["hot"]) == (
        "server1",
        "UP",
        "ENABLED",
        True,
    )


def test_events_begin_with_the_status_and_tell_messages_states_and_failovers(scene):
    base, address, servers, phone = scene
    with events(base) as told:
        name, hello = next(told)
        assert name == "hello" and hello["hot"] == "server1"
        ask(phone, address, "z9hG4bK1")
        name, asked = next(told)
        assert name == "message"
        assert (asked["from"], asked["to"], asked["method"], asked["status"]) == (
            "phones",
            "server1",
            "OPTIONS",
            None,
        )
        assert (
            asked["target"] == f"127.0.0.1:{servers[0].address[1]}" and asked["call_id"] == "call-1"
        )
        name, answered = next(told)
        assert (answered["from"], answered["to"], answered["status"]) == ("server1", "phones", 200)
        assert answered["at"] >= asked["at"] and not answered["replayed"]
        servers[0].kill()
        name, state = next(told)
        assert (name, state["server"], state["state"], state["hot"]) == (
            "state",
            "server1",
            "DOWN",
            "server2",
        )
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
    assert prometheus_kit.read(get(f"{base}/metrics"))


# -- what an operator asks for ---------------------------------------------------------------------


def test_a_drained_server_gets_no_new_calls_until_it_is_enabled(scene):
    base, address, _servers, phone = scene
    assert post(f"{base}/servers/server1/drain") == (200, {"server": "server1", "wish": "DRAINING"})
    assert field(ask(phone, address, "z9hG4bK1"), "X-Server") == "server2"
    drained = server(base, "server1")
    assert (drained["state"], drained["wish"], drained["hot"]) == ("UP", "DRAINING", False)
    assert drained["why"].startswith("drained by the operator: keeps its calls, gets no new ones")
    assert post(f"{base}/servers/server1/drain")[0] == 200, "twice is fine"
    assert post(f"{base}/servers/server1/enable") == (200, {"server": "server1", "wish": "ENABLED"})
    assert field(ask(phone, address, "z9hG4bK2"), "X-Server") == "server1"
    assert json.loads(get(f"{base}/failovers")) == [], "as wished, so no failover"


def test_a_disabled_server_gets_nothing_even_if_it_is_the_last(scene):
    base, address, servers, phone = scene
    for name in ("server1", "server2"):
        assert post(f"{base}/servers/{name}/disable")[0] == 200
    assert ask(phone, address, "z9hG4bK1").startswith(b"SIP/2.0 503 ")
    assert servers[0].heard == servers[1].heard == []
    assert json.loads(get(f"{base}/status"))["hot"] is None


def test_a_change_of_wish_is_told_to_readers_of_events(scene):
    base, *_ = scene
    with events(base) as told:
        next(told)
        post(f"{base}/servers/server1/drain")
        name, state = next(told)
        assert (name, state["server"], state["hot"]) == ("state", "server1", "server2")


@pytest.mark.parametrize(
    "path, status, said",
    [
        ("servers/server9/drain", 404, "there is no server 'server9'"),
        ("servers/server1/explode", 404, "'explode' is none of disable, drain, enable"),
        ("servers/server1", 404, "'server1' is none of disable, drain, enable"),
        ("servers/", 404, "'' is none of disable, drain, enable"),
        ("status", 405, "POST is not for /status"),
    ],
)
def test_what_cannot_be_asked_for_is_a_sentence(scene, path, status, said):
    assert post(f"{scene[0]}/{path}") == (status, {"error": said})
    assert server(scene[0], "server1")["wish"] == "ENABLED"


def test_nothing_changes_by_get_nor_for_the_page_of_another_site(scene):
    base = scene[0]
    with pytest.raises(HTTPError) as refused:
        get(f"{base}/servers/server1/drain")
    with refused.value as answer:
        assert answer.code == 405
    assert post(f"{base}/servers/server1/drain", Origin="http://evil.example")[0] == 403
    assert post(f"{base}/servers/server1/drain", Origin="null")[0] == 403, "a sandboxed frame"
    assert post(f"{base}/servers/server1/drain", Host="evil.example")[0] == 403, (
        "a name that somebody points at us"
    )
    assert server(base, "server1")["wish"] == "ENABLED"
    assert post(f"{base}/servers/server1/drain", Origin=base)[0] == 200, "its own page may"


def test_a_server_without_a_name_is_asked_for_by_its_address(free_port):
    with fake_servers(free_port, 1) as servers:
        where = f"127.0.0.1:{servers[0].address[1]}"
        forwarder = Forwarder(read(f"{where}\nforwarder.listen=127.0.0.1:{free_port()}", "test"))
        admin = Admin(("127.0.0.1", free_port()), forwarder)
        forwarder.start()
        admin.start()
        try:
            base = f"http://127.0.0.1:{admin.address[1]}"
            for name in (where, where.replace(":", "%3A")):
                assert post(f"{base}/servers/{name}/drain") == (
                    200,
                    {"server": where, "wish": "DRAINING"},
                )
        finally:
            admin.stop()
            forwarder.stop()


# -- the flight recorder ---------------------------------------------------------------------------


def test_failovers_tell_what_was_noticed_and_what_it_cost(scene, eventually):
    base, address, servers, phone = scene
    assert json.loads(get(f"{base}/failovers")) == []
    ask(phone, address, "z9hG4bK1")
    servers[0].freeze()
    phone.sendto(request("INVITE", source=phone.getsockname(), branch="z9hG4bK2"), address)
    phone.recv(65_535)
    eventually(lambda: json.loads(get(f"{base}/failovers"))[0]["first_answer"])
    (told,) = json.loads(get(f"{base}/failovers"))
    assert (told["from"], told["to"], told["noticed"]) == (
        "server1",
        "server2",
        "no answer to heartbeats",
    )
    assert (told["in_flight"], told["replayed"], told["lost"]) == (1, 1, 0)
    assert told["last_answer"] < told["at"] <= told["first_answer"]
    assert told["silence_ms"] == pytest.approx(
        (told["first_answer"] - told["last_answer"]) * 1000, abs=2
    )
    assert 0 < told["gap_ms"] < 5_000
    assert json.loads(get(f"{base}/status"))["failovers"][0]["monotonic"] == told["monotonic"]


def test_the_first_answer_after_a_failover_is_an_event_too(scene):
    base, address, servers, phone = scene
    with events(base) as told:
        next(told)
        servers[0].kill()
        ask(phone, address, "z9hG4bK1")
        resumed = next(each for name, each in told if name == "resumed")
        assert resumed["to"] == "server2" and resumed["gap_ms"] > 0


# -- the page --------------------------------------------------------------------------------------


def test_the_page_for_people_has_its_script_beside_it_as_the_content_policy_demands(scene):
    page = get(scene[0])
    assert "<h2>Servers</h2>" in page
    assert 'src="/page.js"' in page and 'href="/page.css"' in page
    assert "fetch('/status'" in get(f"{scene[0]}/page.js")
    assert "prefers-color-scheme" in get(f"{scene[0]}/page.css")


def test_a_reader_that_leaves_or_lags_does_not_hold_the_forwarder_up(
    scene, eventually, monkeypatch
):
    base, address, _servers, phone = scene
    monkeypatch.setattr("failover.admin.http_api.MAX_EVENTS_BEHIND", 1)
    with events(base) as told:
        next(told)
        for n in range(50):
            ask(phone, address, f"z9hG4bK{n}")
    assert json.loads(get(f"{base}/status"))["counters"]["passed.requests"] == 50


def test_events_have_the_text_of_messages_where_it_is_asked_for(scene):
    base, address, _servers, phone = scene
    with events(base, "?text=1") as told, events(base) as without:
        assert (next(told)[0], next(without)[0]) == ("hello", "hello")
        asked = request("OPTIONS", source=phone.getsockname(), branch="z9hG4bK1")
        phone.sendto(asked.replace(b"Max-Forwards", b"X-Octet: \xff\r\nMax-Forwards"), address)
        assert phone.recv(65_535)
        text = next(told)[1]["text"]
        assert text.startswith("OPTIONS sip:") and "z9hG4bK1" in text and "X-Octet: \ufffd" in text
        assert text.endswith("\r\n\r\n")
        assert next(told)[1]["text"].startswith("SIP/2.0 200")
        assert "text" not in next(without)[1]
