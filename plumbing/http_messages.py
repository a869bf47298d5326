"""What the handlers of small web pages take and give."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HttpRequest:
    """`rest` is what the `*` of the route matched; `headers` has lower-case names."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    rest: str = ""


@dataclass(frozen=True)
class HttpResponse:
    """A body in pieces goes out piece by piece. If the next one cannot be had, RuntimeError or
    TimeoutError, the connection ends before the body does, so that nobody takes the half for the
    whole."""

    status: int
    content_type: str
    body: bytes | Iterable[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def json(value: object, status: int = 200) -> HttpResponse:
        return HttpResponse(status, "application/json", _json(value))

    @staticmethod
    def html(text: str, status: int = 200) -> HttpResponse:
        return HttpResponse(status, "text/html; charset=utf-8", text.encode("utf-8", "replace"))

    @staticmethod
    def text(
        text: str, content_type: str = "text/plain; charset=utf-8", status: int = 200
    ) -> HttpResponse:
        return HttpResponse(status, content_type, text.encode("utf-8", "replace"))


@dataclass(frozen=True)
class EventStream:
    """Server-sent events: put `(name, value)` pairs into the queue, None ends. `on_close` runs when
    the reader left."""

    queue: queue.Queue[tuple[str, object] | None]
    on_close: Callable[[], object] = lambda: None


def _json(value: object) -> bytes:
    """UTF-8. Octets of the network that are none, kept as surrogates, become question marks."""
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "replace")


Handler = Callable[[HttpRequest], "HttpResponse | EventStream"]
Routes = Mapping[tuple[str, str], Handler]
