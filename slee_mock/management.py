"""The management pages of a server: which path shows what. Handlers run on `management` threads and own nothing."""

from __future__ import annotations

from collections.abc import Callable

from plumbing.http import Handler, HttpRequest, HttpResponse
from slee_mock import page, report


def routes(ask: Callable[[], report.Board]) -> dict[tuple[str, str], Handler]:
    """`ask` gets the board from the thread that owns it; RuntimeError or TimeoutError become a 503."""

    def show(render: Callable[[report.Board], HttpResponse]) -> Handler:
        return lambda request: render(ask())

    def front(request: HttpRequest) -> HttpResponse:
        try:
            return HttpResponse.html(page.render(ask()))
        except (RuntimeError, TimeoutError) as error:
            return HttpResponse.html(page.trouble(str(error)), status=503)

    def script(request: HttpRequest) -> HttpResponse:
        return HttpResponse.text(page.SCRIPT, "text/javascript; charset=utf-8")

    return {
        ("GET", "/"): front,
        ("GET", "/page.js"): script,
        ("GET", "/calls"): show(lambda board: HttpResponse.json(board.calls)),
        ("GET", "/bindings"): show(lambda board: HttpResponse.json(board.bindings)),
        ("GET", "/members"): show(lambda board: HttpResponse.json(board.members)),
        ("GET", "/status"): show(lambda board: HttpResponse.json(board.status)),
        ("GET", "/metrics"): show(lambda board: HttpResponse.text(report.metrics(board), "text/plain; version=0.0.4")),
    }
