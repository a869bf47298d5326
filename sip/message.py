"""A SIP message: start line, header fields in their order, body (RFC 3261 7).

A message is parsed once and keeps the bytes of every line, so that one which is only passed on
leaves as it came: `parse(data).to_bytes() == data`, and an edit changes its own lines alone. Text
is UTF-8; bytes that are not survive as surrogate escapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sip.errors import LocalProtocolError, RemoteProtocolError
from sip.grammar import is_number, is_token, split_list
from sip.header import FIELD_NAMES, CSeq, Field, NameAddr, make_line, tag_of
from sip.reasons import REASONS
from sip.via import Via

MAX_SIZE = 65_507  # the largest UDP payload over IPv4
# octets up to the empty line; ten times what phones send, some ten milliseconds' reading
MAX_HEAD = 16_384
MAX_FIELDS = 256
SINGLE = ("From", "To", "Call-ID", "CSeq")
DIALOG_CREATING = ("INVITE", "SUBSCRIBE", "REFER", "NOTIFY")
M = TypeVar("M", bound="Message")


class Message:
    """The common part of requests and responses. Name, value and line of each header field stand in
    three lists, in their order; the methods below keep these and the parsed values true. A line is
    text as it travels, a folded one with its continuations, without the last line feed."""

    def __init__(
        self, start: str, fields: Iterable[tuple[str, str]], body: bytes, made_here: bool
    ) -> None:
        self._start = start
        self._blank = "\r\n"
        self._names: list[str] = []
        self._values: list[str] = []
        self._lines: list[str] = []
        self._parsed: dict[str, Any] = {}  # values that were asked for, by name
        self._completed: dict[str, Via] = {}  # by value: the topmost, as complete_via wrote it
        self.body = body
        self._made_here = made_here
        for name, value in fields:
            self.add(name, value)

    @property
    def fields(self) -> list[Field]:
        """The header fields, to read."""
        lines = [(line + "\n").encode("utf-8", "surrogateescape") for line in self._lines]
        return [Field(*each) for each in zip(self._names, self._values, lines, strict=True)]

    def to_bytes(self) -> bytes:
        """Messages made here get their Content-Length now; received ones keep theirs, or the lack
        of it."""
        if self._made_here:
            self.set("Content-Length", str(len(self.body)))
        head = "\n".join([self._start, *self._lines, self._blank])
        return head.encode("utf-8", "surrogateescape") + self.body

    def copy(self: M) -> M:
        """Edits to the copy leave this one alone."""
        onward = object.__new__(type(self))
        vars(onward).update(vars(self))
        onward._names, onward._values = self._names.copy(), self._values.copy()
        onward._lines, onward._parsed = self._lines.copy(), self._parsed.copy()
        return onward

    # -- fields by name ----------------------------------------------------------------------------

    def get(self, name: str) -> str | None:
        """The value of the first line of that name."""
        at = self._index(name)
        return None if at is None else self._values[at]

    def all(self, name: str) -> list[str]:
        """The values of all lines of that name, one a line."""
        name = FIELD_NAMES[name]
        times = self._names.count(name)
        if times < 2:  # as nearly always
            return [self._values[self._names.index(name)]] if times else []
        fields = zip(self._names, self._values, strict=True)
        return [value for known, value in fields if known == name]

    def values(self, name: str) -> list[str]:
        """The values over all lines of that name, comma-separated lists taken apart (RFC 3261
        7.3.1)."""
        lines = self.all(name)
        if len(lines) == 1:
            return split_list(lines[0])
        return [value for line in lines for value in split_list(line)]

    def add(self, name: str, value: str) -> None:
        """As the last field."""
        self._insert(len(self._names), name, value)

    def set(self, name: str, value: str) -> None:
        """In the place of the first of that name, the others removed; last if there was none."""
        at = self._index(name)
        if at is None:
            self.add(name, value)
            return
        self.remove(name, at + 1)
        self._replace(at, name, value)

    def push(self, name: str, value: str) -> None:
        """As the new topmost value: a line of its own above the first of that name, else above all
        fields."""
        self._insert(self._index(name) or 0, name, value)

    def pop(self, name: str) -> str:
        """Takes the topmost single value away and returns it; of a list only its first element."""
        at, first, rest = self._topmost(name)
        if rest:
            self._replace(at, self._spelling(at), ", ".join(rest))
        else:
            self._delete(at)
        return first

    def pop_last(self, name: str) -> str:
        """Takes the last single value away and returns it; "" if there is none."""
        name = FIELD_NAMES[name]
        if name not in self._names:
            return ""
        at = len(self._names) - 1 - self._names[::-1].index(name)
        *others, last = split_list(self._values[at]) or [""]
        if others:
            self._replace(at, name, ", ".join(others))
        else:
            self._delete(at)
        return last

    def add_last(self, name: str, value: str) -> None:
        """As the last value: a line of its own beneath the last of that name, else beneath all
        fields."""
        name = FIELD_NAMES[name]
        ahead = self._names[::-1].index(name) if name in self._names else 0
        self._insert(len(self._names) - ahead, name, value)

    def replace_top(self, name: str, value: str) -> None:
        """Puts `value` in the place of the topmost single value."""
        at, _, rest = self._topmost(name)
        self._replace(at, self._spelling(at), ", ".join([value, *rest]))

    def complete_via(self, host: str, port: int) -> None:
        """Writes the address that a request came from into the topmost Via (RFC 3261 18.2.1, RFC
        3581 4), so that its answer goes there."""
        at, value, others = self._topmost("Via")
        via = self._via(value)
        complete = via.with_source(host, port)
        if complete != via:
            text = str(complete)
            self._replace(at, self._spelling(at), ", ".join([text, *others]))
            self._completed[text] = complete

    def pop_via(self) -> Via:
        """Takes the topmost Via away and returns it. Raises RemoteProtocolError if one of them
        cannot be read."""
        first, *others = self.vias
        self.pop("Via")
        self._parsed["Via"] = others
        return first

    def remove(self, name: str, start: int = 0) -> None:
        """Takes away all lines of that name, from the one at `start` on."""
        name = FIELD_NAMES[name]
        while name in self._names[start:]:
            self._delete(self._names.index(name, start))

    def _index(self, name: str) -> int | None:
        name = FIELD_NAMES[name]
        return self._names.index(name) if name in self._names else None

    def _topmost(self, name: str) -> tuple[int, str, list[str]]:
        at = self._index(name)
        parts = split_list(self._values[at]) if at is not None else []
        if at is None or not parts:
            raise RemoteProtocolError(f"{FIELD_NAMES[name]} is missing")
        return at, parts[0], parts[1:]

    def _spelling(self, at: int) -> str:
        """The name as the sender wrote it, compact or not."""
        return self._lines[at].partition(":")[0].strip()

    def _insert(self, at: int, name: str, value: str) -> None:
        line = make_line(name, value)
        name = FIELD_NAMES[name]
        self._lines.insert(at, line)
        self._values.insert(at, value)
        self._names.insert(at, name)
        self._parsed.pop(name, None)

    def _replace(self, at: int, name: str, value: str) -> None:
        self._lines[at], self._values[at] = make_line(name, value), value
        self._parsed.pop(self._names[at], None)

    def _delete(self, at: int) -> None:
        del self._lines[at], self._values[at]
        self._parsed.pop(self._names.pop(at), None)

    # -- fields with a meaning; absent or broken ones raise RemoteProtocolError --------------------

    def _need(self, name: str) -> str:
        names = self._names
        value = self._values[names.index(name)] if name in names else ""
        if not value:
            raise RemoteProtocolError(f"{name} is missing")
        return value

    def _via(self, value: str) -> Via:
        return self._completed.get(value) or Via.parse(value)

    def _number(self, name: str) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if not is_number(value, 10):
            raise RemoteProtocolError(f"not a number in {name}: {value[:40]!r}")
        return int(value)

    @property
    def via(self) -> Via:
        """The topmost one; those beneath it may be unreadable."""
        known = self._parsed.get("Via")
        return known[0] if known else self._via(self._topmost("Via")[1])

    @property
    def vias(self) -> Sequence[Via]:
        known: list[Via] | None = self._parsed.get("Via")
        if known is None:
            known = self._parsed["Via"] = [self._via(value) for value in self.values("Via")]
        return known

    @property
    def from_(self) -> NameAddr:
        return NameAddr.parse_any(self._need("From"))

    @property
    def to(self) -> NameAddr:
        return NameAddr.parse_any(self._need("To"))

    @property
    def from_tag(self) -> str:
        """ "" if there is none; the URI may be of any scheme."""
        return tag_of(self._need("From"))

    @property
    def to_tag(self) -> str:
        tag: str | None = self._parsed.get("To")
        if tag is None:
            tag = self._parsed["To"] = tag_of(self._need("To"))
        return tag

    @property
    def call_id(self) -> str:
        known: str | None = self._parsed.get("Call-ID")
        if known is None:
            known = self._parsed["Call-ID"] = self._need("Call-ID")
        return known

    @property
    def cseq(self) -> CSeq:
        known: CSeq | None = self._parsed.get("CSeq")
        if known is None:
            known = self._parsed["CSeq"] = CSeq.parse(self._need("CSeq"))
        return known

    @property
    def contacts(self) -> list[NameAddr]:
        """Without the wildcard `*`, which only REGISTER may carry."""
        return [NameAddr.parse(value) for value in self.values("Contact") if value != "*"]

    @property
    def routes(self) -> list[NameAddr]:
        return [NameAddr.parse(value) for value in self.values("Route")]

    @property
    def record_routes(self) -> list[NameAddr]:
        return [NameAddr.parse(value) for value in self.values("Record-Route")]

    @property
    def max_forwards(self) -> int | None:
        known: int | None = self._parsed.get("Max-Forwards")
        if known is None:
            known = self._parsed["Max-Forwards"] = self._number("Max-Forwards")
        return known

    @property
    def expires(self) -> int | None:
        return self._number("Expires")

    def check(self, in_passing: bool = False) -> None:
        """The fields that every message must have are there, once each, and readable (RFC 3261
        8.1.1).

        `in_passing`: for one that is only forwarded: its answer has to go back by its Vias, To
        tells a dialog, the rest of From and To is nobody's business (RFC 3261 16.3).
        """
        for name in SINGLE:
            times = self._names.count(name)
            if times != 1:
                raise RemoteProtocolError(f"{name} must be there once, and is there {times} times")
        _ = self.call_id, self.cseq, self.max_forwards
        if in_passing:
            _ = self.vias, self.to_tag
        else:
            _ = self.via, self.from_, self.to


class Request(Message):
    """A request. `uri` is the Request-URI as text: it may be of any scheme."""

    def __init__(
        self, method: str, uri: str, fields: Iterable[tuple[str, str]] = (), body: bytes = b""
    ) -> None:
        if not is_token(method) or not _is_one_word(uri):
            raise LocalProtocolError(f"not a request line: {method[:20]!r} {uri[:60]!r}")
        super().__init__(_request_line(method, uri), fields, body, made_here=True)
        self._method, self._uri = method, uri

    @property
    def method(self) -> str:
        return self._method

    @property
    def uri(self) -> str:
        return self._uri

    @uri.setter
    def uri(self, uri: str) -> None:
        self._uri, self._start = uri, _request_line(self._method, uri)

    def check(self, in_passing: bool = False) -> None:
        super().check(in_passing)
        method = self.cseq.method
        if method != self.method:
            raise RemoteProtocolError(f"CSeq says {method}, the request line {self.method}")

    def __repr__(self) -> str:
        return f"<{self.method} {self.uri}>"


class Response(Message):
    def __init__(
        self,
        status: int,
        reason: str = "",
        fields: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        reason = reason or REASONS.get(status, REASONS.get(status // 100 * 100, "Unknown"))
        if not 100 <= status <= 699 or "\r" in reason or "\n" in reason:
            raise LocalProtocolError(f"not a status line: {status} {reason[:60]!r}")
        super().__init__(f"SIP/2.0 {status} {reason}\r", fields, body, made_here=True)
        self.status, self.reason = status, reason

    def __repr__(self) -> str:
        return f"<{self.status} {self.reason}>"


class BrokenRequest(RemoteProtocolError):
    """A request that cannot be processed, with as much of it as the answer needs."""

    def __init__(self, fault: RemoteProtocolError, request: Request) -> None:
        super().__init__(str(fault), fault.status)
        self.request = request


def _is_one_word(text: str) -> bool:
    return text.split() == [text]


def _request_line(method: str, uri: str) -> str:
    return f"{method} {uri} SIP/2.0\r"


def reply(
    request: Request,
    status: int,
    reason: str = "",
    to_tag: str = "",
    fields: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
) -> Response:
    """The response to a request, with what RFC 3261 8.2.6.2 and 12.1.1 have it copy, as far as it
    is there. `to_tag` is set where the request's To has none and the status is above 100."""
    copied = [("Via", value) for value in request.all("Via")]
    copied += [(name, value) for name in SINGLE for value in request.all(name)[:1]]
    if to_tag and status > 100:
        copied = [
            (name, _tagged(value, to_tag) if name == "To" else value) for name, value in copied
        ]
    if 100 < status < 300 and request.method in DIALOG_CREATING:
        copied += [("Record-Route", value) for value in request.all("Record-Route")]
    if status == 100:
        copied += [("Timestamp", value) for value in request.all("Timestamp")]
    return Response(status, reason, [*copied, *fields], body)


def _tagged(to: str, tag: str) -> str:
    try:
        return to if tag_of(to) else f"{to};tag={tag}"
    except RemoteProtocolError:  # an answer to what cannot be read repeats it as it came
        return to


def parse(data: bytes, in_passing: bool = False) -> Request | Response:
    """One datagram -> one message. Raises RemoteProtocolError for anything that is not one, as
    BrokenRequest where it is a request that can be answered.

    RFC 3261 18.3: over UDP bytes beyond Content-Length are cut off, fewer than it says are an
    error, without it the body reaches to the datagram's end. Lone line feeds are taken for line
    ends, as real phones send them. `in_passing`: the message is only passed on, so a line that is
    no header field stays as it is (16.3: a proxy ignores malformed fields that it does not need).
    """
    if len(data) > MAX_SIZE:
        raise RemoteProtocolError("the message is larger than a datagram", status=513)
    data = data.lstrip(b"\r\n")  # RFC 3261 7.5: empty lines before the start line are ignored
    end = _end_of_head(data)
    # no other octet than a line feed becomes one
    start, feed, fields = data[:end].decode("utf-8", "surrogateescape").partition("\n")
    message, fault = _start_line(start)
    if not data.startswith(b"\r", end + 1):
        message._blank = "\n"
    if feed:
        fault = _read_fields(message, fields, in_passing) or fault
    if end > MAX_HEAD:
        fault = RemoteProtocolError(f"the header is larger than {MAX_HEAD} octets", status=513)
    try:
        message.body = _cut(message, data[end + 1 + len(message._blank) :])
    except RemoteProtocolError as error:
        fault = fault or error
    if fault:
        raise BrokenRequest(fault, message) if isinstance(message, Request) else fault
    return message


def _end_of_head(data: bytes) -> int:
    """Where the line feed stands that ends the last line before the empty one."""
    end = data.find(b"\n\r\n")
    lone = data.find(b"\n\n", 0, end + 1 if end >= 0 else len(data))
    if end < 0 and lone < 0:
        raise RemoteProtocolError("no empty line ends the header")
    return end if lone < 0 else lone


def _start_line(raw: str) -> tuple[Request | Response, RemoteProtocolError | None]:
    """The message without its fields, and what is wrong with the line of a request that is one."""
    line = raw.rstrip("\r")
    if "\r" in line:
        raise RemoteProtocolError("a carriage return inside the start line")
    first, _, rest = line.partition(" ")
    message: Request | Response
    fault = None
    if first.upper() == "SIP/2.0":
        code, _, reason = rest.partition(" ")
        if not (is_number(code, 3) and 100 <= int(code) <= 699):
            raise RemoteProtocolError(f"not a status line: {line[:60]!r}")
        message = Response.__new__(Response)
        message.status, message.reason = int(code), reason
    else:
        uri, _, version = rest.rstrip(" ").rpartition(" ")
        if not is_token(first) or not version.upper().startswith("SIP/"):
            raise RemoteProtocolError(f"not a SIP message: {line[:60]!r}")
        if version.upper() != "SIP/2.0":
            fault = RemoteProtocolError(f"not SIP/2.0: {version[:20]!r}", status=505)
        elif not _is_one_word(uri) or uri.startswith("<") or rest[-1] == " ":
            fault = RemoteProtocolError(f"not a Request-URI: {uri[:60]!r}")
        message = Request.__new__(Request)
        message._method, message._uri = first, "sip:unreadable" if fault else uri
    Message.__init__(message, raw, (), b"", made_here=False)
    return message, fault


def _read_fields(message: Message, text: str, in_passing: bool) -> RemoteProtocolError | None:
    """Reads the lines that can be read; returns the fault of the first that cannot. `text` has
    neither the start line nor a line feed at its end."""
    lines = text.split("\n")
    parts = [line.partition(":") for line in lines]
    names = [FIELD_NAMES[name] for name, _, _ in parts]
    fault, line_ends = None, text.count("\r\n") + text.endswith("\r")
    # each line begins with a name and ends with the only carriage return in it
    if "" not in names and text.count("\r") == line_ends == len(lines):
        message._names, message._lines = names, lines
        message._values = [value.strip() for _, _, value in parts]
    else:
        fault = _read_odd_fields(message, lines, in_passing)
    if len(message._names) > MAX_FIELDS:
        fault = RemoteProtocolError(f"more than {MAX_FIELDS} header fields", status=513)
    return fault


def _read_odd_fields(
    message: Message, lines: list[str], in_passing: bool
) -> RemoteProtocolError | None:
    """Reads header lines of which one is folded, ends with a lone line feed, or is no field.
    Returns the fault of the first that cannot be read."""
    fault = ""
    for line in lines:
        name, colon, value = line.partition(":")
        known = FIELD_NAMES[name] if colon else ""
        folded = line.startswith((" ", "\t"))
        if "\r" in line[:-1]:
            fault = fault or "a carriage return inside a header line"
        elif folded and message._lines:  # it continues the line before (RFC 3261 7.3.1)
            message._values[-1] = f"{message._values[-1]} {line.strip()}".strip()
            message._lines[-1] += f"\n{line}"
        elif known or (in_passing and not folded):
            message._names.append(known)
            message._values.append((value if known else line).strip())
            message._lines.append(line)
        else:
            fault = fault or f"not a header line: {line[:60]!r}"
    return RemoteProtocolError(fault) if fault else None


def _cut(message: Message, body: bytes) -> bytes:
    lengths = message.all("Content-Length")
    if not lengths:
        return body
    length = lengths[0]
    if len(set(lengths)) > 1 or not is_number(length, 6):
        raise RemoteProtocolError(f"not a Content-Length: {length[:40]!r}")
    if int(length) > len(body):
        raise RemoteProtocolError(f"Content-Length says {length}, and {len(body)} bytes came")
    return body[: int(length)]
