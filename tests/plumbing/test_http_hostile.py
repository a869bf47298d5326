"""Small web pages and hostile clients: any octets get an answer or a close, never a traceback, and
nobody can take all connections for himself."""

from __future__ import annotations

import http.client
import json
import logging
import os
import queue
import socket
import sys
import threading
import time

import pytest
from fuzz_kit import broken

from plumbing import http_server
from plumbing.http_request_parser import BadRequest, HttpRequest, parse_head
from plumbing.http_server import HttpResponse, HttpServer

FIRST = b"GET / HTTP/1.1\r\n"
LOCAL = b"Host: localhost\r\n"


@pytest.fixture
def site(caplog):
    caplog.set_level(logging.INFO)
    yield from served()


@pytest.fixture(scope="module")
def standing_site():
    """For tests by the dozen: to end a server takes a tenth of a second."""
    yield from served()


def served():
    events = queue.Queue()
    closed = []
    routes = {
        ("GET", "/"): lambda request: HttpResponse.json({"path": request.path}),
        ("GET", "/echo"): lambda request: HttpResponse.json(dict(request.query)),
        ("GET", "/odd"): lambda request: HttpResponse.json({"call": "caf\udce9"}),
        ("GET", "/events"): lambda request: HttpResponse.events(
            events, lambda: closed.append(True)
        ),
        ("GET", "/broken"): lambda request: {}["a defect"],
        ("POST", "/servers/*"): lambda request: HttpResponse.json({"rest": request.rest}),
    }
    server = HttpServer(("127.0.0.1", 0), routes, "pages")
    server.start()
    server.events, server.closed = events, closed
    yield server
    server.stop()


def say(site, octets, then_close=True):
    """All that comes back until the other side closes."""
    with socket.create_connection(site.address, timeout=5.0) as sock:
        sock.sendall(octets)
        if then_close:
            sock.shutdown(socket.SHUT_WR)
        said = b""
        while more := sock.recv(65_536):
            said += more
    return said


def status(said):
    return int(said.split(b" ")[1]) if said else None


def get(site, path="/", timeout=5.0):
    connection = http.client.HTTPConnection(*site.address, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


BAD = {
    "Host: [": (FIRST + b"Host: [\r\n", 400),
    "Host: ]": (FIRST + b"Host: ]\r\n", 400),
    "Host with a bracket that closes nothing": (FIRST + b"Host: [::1\r\n", 400),
    "Host with words behind the bracket": (FIRST + b"Host: [::1]x\r\n", 400),
    "Host with a user": (FIRST + b"Host: evil@localhost\r\n", 400),
    "Host with a port beyond all": (FIRST + b"Host: localhost:99999\r\n", 400),
    "Host with a port of 5,000 digits": (FIRST + b"Host: localhost:" + b"9" * 5000 + b"\r\n", 400),
    "Host with port 0": (FIRST + b"Host: localhost:0\r\n", 400),
    "Host with a port of no digits": (FIRST + b"Host: localhost:http\r\n", 400),
    "Host with a superscript port": (FIRST + "Host: localhost:\xb2\r\n".encode("latin-1"), 400),
    "Host with a list": (FIRST + b"Host: localhost, evil.test\r\n", 400),
    "two Hosts": (FIRST + LOCAL + b"Host: evil.test\r\n", 400),
    "no Host": (FIRST, 400),
    "Host with a control character": (FIRST + b"Host: local\x00host\r\n", 400),
    "Origin with a bracket": (
        b"POST /servers/x HTTP/1.1\r\n" + LOCAL + b"Origin: http://[\r\n",
        400,
    ),
    "Origin that is only a bracket": (
        b"POST /servers/x HTTP/1.1\r\n" + LOCAL + b"Origin: [\r\n",
        400,
    ),
    "Origin of a GET": (FIRST + LOCAL + b"Origin: http://[\r\n", 400),
    "two Origins": (
        b"POST /servers/x HTTP/1.1\r\n" + LOCAL + b"Origin: http://localhost\r\n" * 2,
        400,
    ),
    "an absolute URL with a bracket": (b"GET http://[ HTTP/1.1\r\n" + LOCAL, 400),
    "an absolute URL with half an address": (b"GET http://[::1/ HTTP/1.1\r\n" + LOCAL, 400),
    "an absolute URL of another scheme": (b"GET ftp://localhost/ HTTP/1.1\r\n" + LOCAL, 400),
    "an absolute URL with a port beyond all": (
        b"GET http://localhost:70000/ HTTP/1.1\r\n" + LOCAL,
        400,
    ),
    "a path without a slash": (b"GET status HTTP/1.1\r\n" + LOCAL, 400),
    "a path with half an escape": (b"GET /%2 HTTP/1.1\r\n" + LOCAL, 400),
    "a path with a bad escape": (b"GET /%zz HTTP/1.1\r\n" + LOCAL, 400),
    "a path with an escaped NUL": (b"GET /%00 HTTP/1.1\r\n" + LOCAL, 400),
    "a path with an escaped surrogate": (b"GET /%ED%A0%80 HTTP/1.1\r\n" + LOCAL, 400),
    "a path that is no UTF-8": (b"GET /%ff HTTP/1.1\r\n" + LOCAL, 400),
    "a query of ten thousand parts": (b"GET /?" + b"a=1&" * 10_000 + b" HTTP/1.1\r\n" + LOCAL, 400),
    "a Content-Length of 5,000 digits": (
        FIRST + LOCAL + b"Content-Length: " + b"1" * 5000 + b"\r\n",
        400,
    ),
    "a Content-Length of 5,000 zeros": (
        FIRST + LOCAL + b"Content-Length: " + b"0" * 5000 + b"\r\n",
        400,
    ),
    "a negative Content-Length": (FIRST + LOCAL + b"Content-Length: -1\r\n", 400),
    "a Content-Length with a plus": (FIRST + LOCAL + b"Content-Length: +1\r\n", 400),
    "a blank Content-Length": (FIRST + LOCAL + b"Content-Length: \r\n", 400),
    "a Content-Length in superscript": (
        FIRST + LOCAL + "Content-Length: \xb3\r\n".encode("latin-1"),
        400,
    ),
    "a Content-Length with an underscore": (FIRST + LOCAL + b"Content-Length: 1_0\r\n", 400),
    "two Content-Lengths": (FIRST + LOCAL + b"Content-Length: 1\r\nContent-Length: 2\r\n", 400),
    "a Content-Length that is a list": (FIRST + LOCAL + b"Content-Length: 1, 1\r\n", 400),
    "a Content-Length beyond the bound": (FIRST + LOCAL + b"Content-Length: 70000\r\n", 413),
    "a body in chunks": (FIRST + LOCAL + b"Transfer-Encoding: chunked\r\n", 411),
    "a body in chunks with a length": (
        FIRST + LOCAL + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        400,
    ),
    "another transfer coding": (FIRST + LOCAL + b"Transfer-Encoding: rot13\r\n", 501),
    "a method with a bracket": (b"G[T / HTTP/1.1\r\n" + LOCAL, 400),
    "an unknown method": (b"BREW / HTTP/1.1\r\n" + LOCAL, 501),
    "a request line of one word": (b"GET\r\n" + LOCAL, 400),
    "a request line of two words": (b"GET /\r\n" + LOCAL, 400),
    "a request line of four words": (b"GET / / HTTP/1.1\r\n" + LOCAL, 400),
    "a version of no digits": (b"GET / HTTP/x.y\r\n" + LOCAL, 400),
    "a version in superscript": ("GET / HTTP/\xb9.\xb9\r\n".encode("latin-1") + LOCAL, 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + LOCAL, 505),
    "a line that is no header": (FIRST + b"Host\r\n", 400),
    "a blank before the colon": (FIRST + LOCAL + b"Content-Length : 5\r\n", 400),
    "a folded line": (FIRST + LOCAL + b"X: 1\r\n 2\r\n", 400),
    "a bare carriage return": (FIRST + LOCAL + b"X: 1\rOrigin: http://evil.test\r\n", 400),
    "a thousand headers": (FIRST + LOCAL + b"X: 1\r\n" * 1000, 431),
    "a header of 100,000 octets": (FIRST + LOCAL + b"X: " + b"1" * 100_000 + b"\r\n", 431),
    "many long headers": (FIRST + LOCAL + (b"X: " + b"1" * 10_000 + b"\r\n") * 50, 431),
    "a request line of 100,000 octets": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + LOCAL, 414),
    "a stranger's URL and our Host": (b"GET http://evil.test/ HTTP/1.1\r\n" + LOCAL, 403),
}


@pytest.mark.parametrize("octets, expected", BAD.values(), ids=list(BAD))
def test_a_request_that_is_none_is_refused_with_a_sentence_and_no_traceback(
    standing_site, caplog, octets, expected
):
    caplog.set_level(logging.INFO)
    site = standing_site
    said = say(site, octets + b"\r\n")
    assert status(said) == expected
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"], "it says why"
    assert "Traceback" not in caplog.text and len(caplog.text) < 400
    assert get(site) == 200, "and the next one is served"


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: LOCALHOST:8060\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1]:8060\r\n",
        b"GET / HTTP/1.1\r\nhOST:127.0.0.1\r\n",
        # RFC 9112 3.2.2: the URL's counts
        b"GET http://localhost:8060/ HTTP/1.1\r\nHost: evil.test\r\n",
        b"GET http://localhost HTTP/1.1\r\nHost: localhost\r\n",
        b"GET / HTTP/1.0\r\nHost: localhost\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: localhost\r\n",
        b"GET / HTTP/1.1\nHost: localhost\n",
        b"GET /?q=%zz#part HTTP/1.1\r\nHost: localhost\r\nX-Odd: caf\xe9\t!\r\nContent-Length: "
        b"000\r\n",
    ],
)
def test_what_is_only_unusual_is_served(standing_site, octets):
    assert status(say(standing_site, octets + b"Connection: close\r\n\r\n")) == 200


def test_a_thousand_bad_requests_make_a_line_a_second_which_says_how_many_there_were(site, caplog):
    began = time.monotonic()
    for _ in range(200):
        assert status(say(site, FIRST + b"Host: [\r\n\r\n")) == 400
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) <= 1 + (time.monotonic() - began)
    assert (
        "refused a request of 127.0.0.1:" in lines[0]
        and "Host is not host or host:port: '['" in lines[0]
    )


def test_a_page_with_a_defect_shows_its_traceback_once_a_second_not_once_a_reader(site, caplog):
    for _ in range(20):
        assert get(site, "/broken") == 500
    assert 1 <= caplog.text.count("Traceback") <= 3


def test_half_a_body_is_not_taken_for_the_whole(site):
    asked = b"POST /servers/x HTTP/1.1\r\n" + LOCAL + b"Content-Length: 10\r\n\r\nabc"
    assert say(site, asked) == b""


def test_who_asks_first_whether_to_send_a_body_is_told_so_and_refused_before_it_is_sent(site):
    asked = (
        b"POST /servers/x HTTP/1.1\r\n" + LOCAL + b"Expect: 100-continue\r\nConnection: close\r\n"
    )
    assert say(site, asked + b"Content-Length: 2\r\n\r\nab").startswith(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"
    )
    assert status(say(site, asked + b"Content-Length: 90000\r\n\r\n")) == 413


def test_octets_of_the_network_that_are_no_text_do_not_break_a_page(site):
    said = say(site, b"GET /odd HTTP/1.1\r\n" + LOCAL + b"Connection: close\r\n\r\n")
    assert json.loads(said.partition(b"\r\n\r\n")[2]) == {"call": "caf?"}


def test_head_of_the_events_has_no_events(site, eventually):
    site.events.put(("state", {}))
    said = say(
        site, b"HEAD /events HTTP/1.1\r\n" + LOCAL + b"Connection: close\r\n\r\n", then_close=False
    )
    head, _, body = said.partition(b"\r\n\r\n")
    assert status(said) == 200 and b"text/event-stream" in head and body == b""
    assert site.closed == [True], "and it is no reader any more"


# -- many clients ----------------------------------------------------------------------------------


def clients_of(site):
    return [each for each in threading.enumerate() if each.name == "pages-client"]


def test_silent_clients_give_way_to_the_next_that_comes(site, monkeypatch, eventually):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 8)
    silent = [socket.create_connection(site.address, timeout=5.0) for _ in range(50)]
    for each in silent[::2]:
        each.sendall(b"GET / HT")
    for _ in range(5):
        assert get(site) == 200
    eventually(lambda: len(clients_of(site)) <= 8)
    for each in silent:
        each.close()


def test_when_every_connection_is_busy_one_more_hears_503_at_once(
    site, monkeypatch, caplog, eventually
):
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 3)
    asked = b"GET /events HTTP/1.1\r\n" + LOCAL + b"\r\n"
    readers = [socket.create_connection(site.address, timeout=5.0) for _ in range(3)]
    for each in readers:
        each.sendall(asked)
        assert each.recv(65_536).startswith(b"HTTP/1.1 200")
    assert {get(site) for _ in range(20)} == {503}
    assert caplog.text.count("3 connections are busy") <= 2
    for each in readers:
        each.close()
        site.events.put(("state", {}))
        site.events.put(("state", {}))
    eventually(lambda: get(site) == 200)


def test_a_request_an_octet_at_a_time_is_not_waited_for_without_end(site, monkeypatch):
    monkeypatch.setattr(http_server, "CLIENT_SECONDS", 0.5)
    began = time.monotonic()
    with socket.create_connection(site.address, timeout=0.05) as sock:
        for octet in b"GET / HTTP/1.1\r\nX: " + b"x" * 1000:
            try:
                sock.send(bytes([octet]))
                if sock.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert time.monotonic() - began < 5


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="lowers the limit of this very process"
)
def test_out_of_descriptors_it_says_so_once_a_second_and_serves_on_when_they_are_back(
    site, caplog, eventually
):
    waiting = socket.create_connection(site.address, timeout=10.0)
    assert get(site) == 200
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = socket.socket()
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) // 2, hard))
    try:
        began, spent = time.monotonic(), time.process_time()
        client.connect(site.address)  # the system takes it, we cannot
        client.sendall(FIRST + LOCAL + b"\r\n")
        eventually(lambda: caplog.text.count("cannot take a connection") >= 2)
        passed = time.monotonic() - began
        assert caplog.text.count("cannot take a connection: Too many open files") <= passed + 2
        assert time.process_time() - spent < passed / 2, "it waits, and does not turn idly"
        assert "Traceback" not in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    client.settimeout(5.0)
    assert status(client.recv(65_536)) == 200
    client.close()
    waiting.close()


# -- fuzz ------------------------------------------------------------------------------------------

SEEDS = [octets + b"\r\n" for octets, _ in BAD.values() if len(octets) < 2000]


def test_any_octets_are_a_head_or_a_bad_request():
    for octets in broken(SEEDS, 5_000, seed=11):
        lines = octets.split(b"\n")
        try:
            head = parse_head([line + b"\n" for line in lines if line not in (b"\r", b"")])
        except BadRequest as error:
            assert 400 <= error.status < 600 and str(error).isprintable()
        else:
            assert isinstance(head, HttpRequest) and 0 <= head.length <= 65_536


def test_any_octets_get_an_answer_or_a_close_and_no_traceback(site, caplog):
    for octets in broken(SEEDS, 300, seed=12):
        said = say(site, octets)
        assert said == b"" or said.startswith(b"HTTP/1."), said[:200]
    assert "Traceback" not in caplog.text
    assert get(site) == 200
