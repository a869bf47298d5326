"""Reading what the programs tell: streams with gaps and rubbish in them, pages nobody serves,
readers that stop."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from plumbing.http_server import HttpResponse, HttpServer
from stage.observation.http_readers import Events, Pages, parse_events, read_page

STREAM = """: hello

event: state
data: {"server": "server1"}

data: {"plain": true}

event: broken
data: {not json

event: list
data: [1, 2]

event: cut off
data: {"lost": 1}"""


def serve(port: int, **routes: Any) -> HttpServer:
    table = {("GET", f"/{path}"): handler for path, handler in routes.items()}
    server = HttpServer(("127.0.0.1", port), table, "pages")
    server.start()
    return server


def test_only_whole_objects_come_out_of_a_stream() -> None:
    assert list(parse_events(STREAM.splitlines(keepends=True))) == [
        ("state", {"server": "server1"}),
        ("message", {"plain": True}),
    ]


def test_a_page_is_its_object_or_nothing(free_port: Callable[[], int]) -> None:
    port = free_port()
    assert read_page(f"http://127.0.0.1:{port}/calls") is None
    server = serve(
        port,
        calls=lambda _: HttpResponse.json({"calls": []}),
        list=lambda _: HttpResponse.json([1]),
    )
    try:
        assert read_page(f"http://127.0.0.1:{port}/calls") == {"calls": []}
        assert read_page(f"http://127.0.0.1:{port}/list") is None
        assert read_page(f"http://127.0.0.1:{port}/absent") is None
    finally:
        server.stop()


def test_events_are_read_as_they_come_and_again_after_the_forwarder_was_away(
    free_port: Callable[[], int], eventually: Callable[..., object]
) -> None:
    port, told = free_port(), []
    events = Events(f"http://127.0.0.1:{port}", lambda name, value: told.append((name, value["n"])))
    events.start()
    try:
        for number in (1, 2):
            stream: queue.Queue[Any] = queue.Queue(10)
            stream.put(("hello", {"n": number}))
            server = serve(port, events=lambda _, stream=stream: HttpResponse.events(stream))
            eventually(lambda number=number: told[-1:] == [("hello", number)])
            stream.put(None)
            server.stop()
    finally:
        events.stop()
    events.stop()


def test_a_reader_of_a_silent_stream_stops_at_once(
    free_port: Callable[[], int], eventually: Callable[..., object]
) -> None:
    port, stream, told = free_port(), queue.Queue(10), []  # type: ignore[var-annotated]
    server = serve(port, events=lambda _: HttpResponse.events(stream))
    events = Events(f"http://127.0.0.1:{port}", lambda name, value: told.append(name))
    events.start()
    stream.put(("hello", {}))
    eventually(lambda: told)
    events.stop(timeout=1.0)
    stream.put(None)
    server.stop()


def test_pages_are_read_again_and_at_once_when_asked(
    free_port: Callable[[], int], eventually: Callable[..., object]
) -> None:
    port, read = free_port(), []  # type: ignore[var-annotated]
    server = serve(port, calls=lambda _: HttpResponse.json({"n": len(read)}))
    pages = Pages(
        [f"http://127.0.0.1:{port}/calls"], lambda url, page: read.append(page), interval=600
    )
    pages.start()
    try:
        eventually(lambda: len(read) == 1)
        pages.look()
        eventually(lambda: len(read) == 2)
        assert read == [{"n": 0}, {"n": 1}]
    finally:
        pages.stop()
        server.stop()
    pages.stop()
