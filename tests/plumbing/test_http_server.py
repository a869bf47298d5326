"""plumbing.http_server: small pages, and who may not use them."""

import http.client
import json
import queue
import urllib.error
import urllib.request

import pytest

from plumbing.address import format_address
from plumbing.http_server import HttpResponse, HttpServer


@pytest.fixture
def site():
    closed = []
    events = queue.Queue()
    done = []
    routes = {
        ("GET", "/"): lambda request: HttpResponse.text("<p>hello", "text/html"),
        ("GET", "/echo"): lambda request: HttpResponse.json(request.query),
        ("POST", "/servers/*"): lambda request: (
            done.append(request.rest) or HttpResponse.json({"rest": request.rest})
        ),
        ("GET", "/events"): lambda request: HttpResponse.events(
            events, lambda: closed.append(True)
        ),
        ("GET", "/busy"): _busy,
        ("GET", "/broken"): _broken,
        ("GET", "/pieces"): lambda request: HttpResponse(
            200, "text/plain", iter([b"one\n", b"", b"two\n"])
        ),
        ("GET", "/half"): lambda request: HttpResponse(200, "text/plain", _half()),
    }
    server = HttpServer(("127.0.0.1", 0), routes, "pages")
    server.start()
    server.events, server.closed, server.done = events, closed, done
    server.url = f"http://{format_address(server.address)}"
    yield server
    server.stop()


def _half():
    yield b"one\n"
    raise RuntimeError("the store went away")


def _broken(request):
    raise KeyError("a defect")


def _busy(request):
    raise TimeoutError("the owner is busy")


def ask(site, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(*site.address, timeout=5)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer, data


def test_pages_answer_get_and_head_with_the_guards_of_a_browser(site):
    answer, data = ask(site, "GET", "/")
    assert (answer.status, data) == (200, b"<p>hello")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    answer, data = ask(site, "HEAD", "/")
    assert (answer.status, data, answer.headers["Content-Length"]) == (200, b"", "8")


def test_query_and_rest_reach_the_handler(site):
    assert json.loads(ask(site, "GET", "/echo?a=1&b=%C3%A4")[1]) == {"a": "1", "b": "ä"}
    assert json.loads(ask(site, "POST", "/servers/server1/drain")[1]) == {"rest": "server1/drain"}


@pytest.mark.parametrize(
    "method, path, status",
    [("GET", "/none", 404), ("POST", "/", 405), ("GET", "/servers/x", 405), ("GET", "/busy", 503)],
)
def test_what_is_not_there_says_so(site, method, path, status):
    answer, data = ask(site, method, path)
    assert answer.status == status and json.loads(data)["error"]


def test_a_method_that_is_not_for_a_page_is_told_which_are(site):
    assert ask(site, "POST", "/")[0].headers["Allow"] == "GET, HEAD"
    assert ask(site, "GET", "/servers/x")[0].headers["Allow"] == "POST"
    assert "Allow" not in ask(site, "GET", "/none")[0].headers


def test_a_page_with_a_defect_says_so_and_the_log_says_which(site, caplog):
    answer, body = ask(site, "GET", "/broken")
    assert (answer.status, json.loads(body)) == (
        500,
        {"error": "GET /broken failed; the log says why"},
    )
    assert "pages: GET '/broken' failed" in caplog.text and "KeyError: 'a defect'" in caplog.text
    assert ask(site, "GET", "/")[0].status == 200


def test_a_post_of_another_origin_changes_nothing(site):
    assert ask(site, "POST", "/servers/x", Origin="http://evil.test")[0].status == 403
    assert ask(site, "POST", "/servers/x", Origin="null")[0].status == 403
    assert site.done == []
    assert ask(site, "POST", "/servers/x", Origin=site.url)[0].status == 200


def test_a_page_on_loopback_answers_to_no_other_name(site):
    assert ask(site, "GET", "/", Host="rebound.test")[0].status == 403
    assert ask(site, "GET", "/", Host="localhost:1")[0].status == 200


def test_a_body_beyond_all_bounds_is_refused(site):
    assert ask(site, "POST", "/servers/x", body=b"x" * 70_000)[0].status == 413


def test_a_body_in_pieces_comes_whole_and_one_that_breaks_off_is_not_taken_for_it(site):
    assert ask(site, "GET", "/pieces")[1] == b"one\ntwo\n"
    with pytest.raises(http.client.IncompleteRead):
        ask(site, "GET", "/half")
    answer, data = ask(site, "HEAD", "/half")
    assert (answer.status, data) == (200, b"")


def test_head_of_the_event_stream_has_no_body_and_reads_no_events(site, eventually):
    connection = http.client.HTTPConnection(*site.address, timeout=2)
    connection.request("HEAD", "/events")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Type"], answer.read()) == (
        200,
        "text/event-stream",
        b"",
    )
    eventually(lambda: site.closed)
    connection.request("GET", "/pieces")
    assert connection.getresponse().read() == b"one\ntwo\n", "nothing of the stream is before it"
    connection.close()


def test_events_stream_until_their_end(site, eventually):
    site.events.put(("state", {"server": "server1"}))
    site.events.put(None)
    with urllib.request.urlopen(site.url + "/events", timeout=5) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert stream.read() == b'event: state\ndata: {"server": "server1"}\n\n'
    eventually(lambda: site.closed)


def test_stop_ends_open_streams_and_idle_connections():
    events = queue.Queue()
    server = HttpServer(
        ("127.0.0.1", 0), {("GET", "/events"): lambda request: HttpResponse.events(events)}, "pages"
    )
    server.start()
    url = f"http://{format_address(server.address)}"
    idle = http.client.HTTPConnection(*server.address, timeout=5)
    idle.connect()
    stream = urllib.request.urlopen(url + "/events", timeout=5)
    server.stop()
    server.stop()
    assert stream.read() == b""
    stream.close()
    idle.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=1)


def test_a_port_in_use_is_named(site):
    with pytest.raises(OSError, match=format_address(site.address)):
        HttpServer(site.address, {}, "second").start()
