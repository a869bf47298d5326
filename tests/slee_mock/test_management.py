"""The management pages of a server in this process: what an operator, a script and a scraper get to
see."""

from __future__ import annotations

import csv
import io
import json
import socket
import threading

import prometheus_kit
import pytest
from program_kit import Site
from slee_kit import answer, in_dialog, invite, phone_request, register

from plumbing.address import format_address
from slee_mock.services.bill_record import Bill
from slee_mock.store.interface import StoreDown

EVIL = "<script>alert(1)</script>\"&'"


def test_before_anything_happened_there_are_no_calls(site):
    assert site.json("/calls")["calls"] == []


def test_a_running_calls_bill_as_data(site):
    site.ask(register())
    site.ask(answer(site.ask(invite()), 200))
    site.ask(in_dialog("ACK", cseq=1))
    found = site.json("/calls")
    (call,) = found["calls"]
    assert found["server"] == "server1"
    names = ("call_id", "caller", "callee", "state", "ended", "why", "final", "currency")
    assert {name: call[name] for name in names} == {
        "call_id": "c1",
        "caller": "alice",
        "callee": "bob",
        "state": "answered",
        "ended": None,
        "why": "alice and bob are talking",
        "final": False,
        "currency": "EUR",
    }
    assert (call["seconds"], call["units"], call["total"]) == (0, 1, "0.15")
    assert call["carried"] == [{"server": "server1", "seconds": 0}]
    assert call["offered"] <= call["answered"] <= found["now"]


def test_bindings_members_and_status_as_data(site):
    site.ask(register())
    (binding,) = site.json("/bindings")["bindings"]
    assert (binding["aor"], binding["contact"], binding["server"]) == (
        "sip:bob@failover.test",
        "sip:bob@127.0.0.1:4100",
        "server1",
    )
    assert 295 <= binding["expires"] <= 300
    (member,) = site.json("/members")["members"]
    assert (member["name"], member["address"], member["management"], member["alive"]) == (
        "server1",
        format_address(site.listen),
        f"{site.root}/",
        True,
    )
    status = site.json("/status")
    assert (status["name"], status["store"], status["handled"]) == (
        "server1",
        "ok",
        {"REGISTER": 1},
    )
    assert status["uptime"] > 0


def test_a_scraper_gets_prometheus_text(site):
    site.ask(register())
    headers, text = site.get("/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    families = prometheus_kit.read(text)
    assert families["slee_handled_total"] == ("counter", {(("message", "REGISTER"),): 1})
    assert families["slee_member_alive"] == ("gauge", {(("member", "server1"),): 1})


def test_the_end_of_a_call_is_counted_once(site):
    site.ask(register())
    site.ask(answer(site.ask(invite()), 200))
    for _ in range(2):
        site.ask(in_dialog("BYE"))
    assert prometheus_kit.read(site.get("/metrics")[1])["slee_bills_closed_total"] == (
        "counter",
        {(): 1},
    )


def test_every_bill_there_is_comes_as_a_file_for_spreadsheets(site):
    site.ask(register())
    site.ask(answer(site.ask(invite()), 200))
    site.ask(in_dialog("BYE"))
    headers, text = site.get("/calls.csv")
    assert headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert headers["Content-Disposition"] == 'attachment; filename="calls.csv"'
    (row,) = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    (call,) = site.json("/calls")["calls"]
    for column, name in (
        ("call_id", "call_id"),
        ("why", "why"),
        ("total", "total"),
        ("talk_seconds", "seconds"),
    ):
        assert row[column] == str(call[name])
    assert 'href="/calls.csv"' in site.get("/")[1]


def test_the_file_is_whole_though_it_is_long_and_its_reader_knows_no_chunks(site):
    site.ask(register())
    site.keep(
        *(
            Bill(f"c{n}", "alice", "sip:a@x", "bob", "sip:b@x", "0.10+0.05/10s", "EUR", float(n))
            for n in range(350)
        )
    )
    assert site.get("/calls.csv")[1].count("\r\n") == 351
    with socket.create_connection(tuple(site.management), timeout=5) as plain:
        plain.sendall(b"GET /calls.csv HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        told = b"".join(iter(lambda: plain.recv(65_536), b""))
    head, _, body = told.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body.decode() == site.get("/calls.csv")[1]


def test_the_forwarders_word_makes_this_server_the_hot_one(site, eventually):
    site.ask(phone_request("OPTIONS", "sip:127.0.0.1:5070", fields=[("Failover-Role", "hot")]))
    eventually(lambda: site.json("/members")["hot"] == "server1")
    assert 'slee_member_role{member="server1",role="hot"} 1' in site.get("/metrics")[1]


def test_of_many_users_the_newest_are_shown_and_all_are_counted(site, monkeypatch):
    monkeypatch.setattr("slee_mock.management.snapshot.MOST_USERS", 3)
    for number in range(5):
        site.ask(register(user=f"user{number}"))
    found = site.json("/bindings")
    assert (found["users"], found["shown"], len(found["bindings"])) == (5, 3, 3)
    assert "slee_users 5\n" in site.get("/metrics")[1]


def test_the_front_page_is_static_and_its_policy_allows_no_other_script(site):
    headers, text = site.get("/")
    assert '<script src="/page.js" defer></script>' in text
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    for path, kind, part in (
        ("/page.js", "text/javascript", "fetch('/snapshot'"),
        ("/page.css", "text/css", ":root"),
    ):
        headers, text = site.get(path)
        assert headers["Content-Type"] == f"{kind}; charset=utf-8" and part in text


def test_one_answer_has_all_that_the_page_shows(site):
    evil = b'"' + EVIL.replace('"', '\\"').encode() + b'" '
    site.ask(register().to_bytes().replace(b"To: ", b"To: " + evil))
    call = invite().to_bytes().replace(b"From: ", b"From: " + evil)
    site.ask(answer(site.ask(call), 200))
    site.ask(in_dialog("ACK", cseq=1))
    shown = site.json("/snapshot")
    for name in ("calls", "bindings", "members"):
        assert shown[name][name] and shown[name].keys() == site.json(f"/{name}").keys()
    assert shown["status"]["name"] == "server1" and shown["running"] == 1
    assert [each["seconds"] for each in shown["forecast"]["c1"]] == [0, 1, 2, 3, 4]
    assert shown["calls"]["calls"][0]["caller"] == EVIL


def test_a_server_whose_store_cannot_be_read_says_why_and_what_it_did_itself(site):
    site.ask(register())
    with open(site.store, "r+b") as file, open(f"{site.store}-wal", "r+b") as log:
        file.write(b"spoiled")
        log.truncate(0)
    told = json.loads(site.refused("/snapshot"))
    assert told["status"]["handled"] == {"REGISTER": 1}, "what this server did itself"
    assert site.json("/status")["handled"] == {"REGISTER": 1}
    assert prometheus_kit.read(site.get("/metrics")[1])["slee_up"] == ("gauge", {(): 0})
    for path in ("/snapshot", "/calls", "/calls.csv", "/bindings", "/members"):
        assert "restore it from a backup" in site.refused(path)


def test_a_page_that_takes_long_keeps_no_heartbeat_waiting(site):
    begun, done = threading.Event(), threading.Event()
    open_store = site.server._queries._open_store

    def open_slowly():
        begun.set()
        done.wait(20)  # as long as a store may take
        return open_store()

    site.server._queries._open_store = open_slowly
    asking = threading.Thread(target=site.json, args=("/snapshot",))
    asking.start()
    try:
        assert begun.wait(5)
        assert site.ask(phone_request("OPTIONS", "sip:127.0.0.1:5070")).status == 200
        assert site.ask(register()).status == 200
    finally:
        done.set()
        asking.join(5)
    assert site.json("/status")["handled"] == {"REGISTER": 1, "heartbeats": 1}


def test_a_server_whose_store_cannot_be_used_does_not_start_and_leaves_nothing_running(
    tmp_path, free_port
):
    site = Site(tmp_path / "nowhere", free_port)
    with pytest.raises(StoreDown, match="there is no folder"):
        site.server.start()
    site.sock.close()
