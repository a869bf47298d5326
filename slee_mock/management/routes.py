"""The management pages of a server: which path shows what. Handlers run on `management` threads and
own nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from plumbing.http_server import Handler, HttpRequest, HttpResponse
from slee_mock.management import csv_export as export
from slee_mock.management import page
from slee_mock.management import snapshot as report
from slee_mock.management.queries import Queries, Unreadable


def routes(reader: Queries) -> dict[tuple[str, str], Handler]:
    """RuntimeError and TimeoutError out of a handler become a 503."""

    def show(part: Callable[[report.Snapshot], object]) -> Handler:
        return lambda request: HttpResponse.json(part(reader.board()))

    return {
        ("GET", "/"): partial(_front, reader),
        ("GET", "/page.js"): _script,
        ("GET", "/calls"): show(lambda board: board.calls),
        ("GET", "/calls.csv"): partial(_table, reader),
        ("GET", "/bindings"): show(lambda board: board.bindings),
        ("GET", "/members"): show(lambda board: board.members),
        ("GET", "/status"): lambda request: HttpResponse.json(reader.status()),
        ("GET", "/metrics"): partial(_metrics, reader),
    }


def _front(reader: Queries, request: HttpRequest) -> HttpResponse:
    status = None
    try:
        status = reader.status()
        return HttpResponse.html(page.render(reader.board()))
    except (RuntimeError, TimeoutError) as error:
        return HttpResponse.html(page.trouble(str(error), status), status=503)


def _script(request: HttpRequest) -> HttpResponse:
    return HttpResponse.text(page.SCRIPT, "text/javascript; charset=utf-8")


def _table(reader: Queries, request: HttpRequest) -> HttpResponse:
    slices = reader.bills()
    first = next(slices)  # before anything is said, so that a store that is down becomes a 503
    name = {"Content-Disposition": 'attachment; filename="calls.csv"'}
    return HttpResponse(200, "text/csv; charset=utf-8; header=present", _lines(first, slices), name)


def _lines(first: list[dict[str, Any]], slices: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    yield (export.heading() + export.lines(first)).encode("utf-8", "replace")
    for calls in slices:
        yield export.lines(calls).encode("utf-8", "replace")


def _metrics(reader: Queries, request: HttpRequest) -> HttpResponse:
    status = reader.status()
    try:
        text = report.metrics(status, reader.board())
    except Unreadable:
        text = report.metrics(status, None)
    return HttpResponse.text(text, "text/plain; version=0.0.4")
