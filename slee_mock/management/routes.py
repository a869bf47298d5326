"""The HTTP routes of a server's management pages.

The front page is three static files beside this one; its script asks for /snapshot once a second.
Handlers run on `management` threads and own nothing.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from plumbing.http_request_parser import HttpRequest
from plumbing.http_server import Handler, HttpResponse
from slee_mock.management import csv_export
from slee_mock.management.metrics import metrics
from slee_mock.management.queries import Queries
from slee_mock.management.snapshot import Snapshot
from slee_mock.store.interface import StoreDown


def routes(queries: Queries) -> dict[tuple[str, str], Handler]:
    """A RuntimeError or TimeoutError of a handler becomes a 503."""

    def show(part: Callable[[Snapshot], object]) -> Handler:
        return lambda request: HttpResponse.json(part(queries.snapshot()))

    return {
        ("GET", "/"): _file("page.html", "text/html"),
        ("GET", "/page.css"): _file("page.css", "text/css"),
        ("GET", "/page.js"): _file("page.js", "text/javascript"),
        ("GET", "/snapshot"): partial(_snapshot, queries),
        ("GET", "/calls"): show(lambda snapshot: snapshot.calls),
        ("GET", "/calls.csv"): partial(_table, queries),
        ("GET", "/bindings"): show(lambda snapshot: snapshot.bindings),
        ("GET", "/members"): show(lambda snapshot: snapshot.members),
        ("GET", "/status"): lambda request: HttpResponse.json(queries.status()),
        ("GET", "/metrics"): partial(_metrics, queries),
    }


def _file(name: str, content_type: str) -> Handler:
    data = importlib.resources.files(__package__).joinpath(name).read_bytes()
    response = HttpResponse(200, f"{content_type}; charset=utf-8", data)
    return lambda request: response


def _snapshot(queries: Queries, request: HttpRequest) -> HttpResponse:
    """While the store cannot be read: why, and the server's own facts."""
    try:
        return HttpResponse.json(queries.snapshot().as_json())
    except StoreDown as error:
        return HttpResponse.json({"error": str(error), "status": queries.status()}, 503)


def _table(queries: Queries, request: HttpRequest) -> HttpResponse:
    bills = queries.bills()
    first = next(bills)  # before the answer begins, so that a store that is down becomes a 503
    name = {"Content-Disposition": 'attachment; filename="calls.csv"'}
    return HttpResponse(200, "text/csv; charset=utf-8; header=present", _lines(first, bills), name)


def _lines(first: list[dict[str, Any]], bills: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    yield csv_export.table(first, heading=True).encode("utf-8", "replace")
    for calls in bills:
        yield csv_export.table(calls).encode("utf-8", "replace")


def _metrics(queries: Queries, request: HttpRequest) -> HttpResponse:
    try:
        snapshot = queries.snapshot()
        text = metrics(snapshot.status, snapshot)
    except StoreDown:
        text = metrics(queries.status(), None)
    return HttpResponse.text(text, "text/plain; version=0.0.4")
