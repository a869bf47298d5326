"""Templates: what a sender's messages have in common, octet for octet, with holes where each has other words.

A template is made of a message that a pattern of shapes.py has read. A message that is as long, has the same octets
outside the holes, and in the holes nothing but plain words, is what that one was except for these words, and they are
all that is left to look at. A pattern reads any phone's message; a template only what one has sent before, but in a
third of the time: one call cuts the message up, one compares.

Holes are branches and loop words, tags, users in URIs, the Call-ID up to its `@`, the number in CSeq, and the body;
none is in a line that tells the way.
"""

from __future__ import annotations

import re
from itertools import chain, pairwise
from struct import Struct

from failover.known import Asked, loop_of, new
from failover.shapes import OTHERS, Odd
from sip.header import canonical

PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.!%+*'~-"  # right in a token and a URI's user
_WORD = rb"([" + PLAIN + rb"]+)"
_HOLES = {
    "Via": re.compile(rb";(?:branch=(?:z9hG4bK)?|loop=)" + _WORD),
    "Call-ID": re.compile(rb": " + _WORD),
    "CSeq": re.compile(rb": \d??(\d{1,9}) "),  # below 2**32, whatever the last nine digits are
    **dict.fromkeys(("Route", "Record-Route", "Path"), re.compile(rb"(?!)")),
}
_OTHER_HOLES = re.compile(rb"(?:;tag=|sip:(?=[^\r\n>@]{1,64}@))" + _WORD)
MOST_HOLES = 48
Span = tuple[int, int]
Parts = tuple[bytes, ...]  # fixed octets and holes in turn; last the body
Edit = tuple[Span, bytes]


class Template:
    """`holes` and `fixed`: where they are in the message that it was made of, behind its first `at` octets. Raises Odd
    if it has too many holes."""

    __slots__ = ("_cut", "_fixed", "_number", "fixed", "holes")

    def __init__(self, data: bytes, at: int) -> None:
        end = data.index(b"\r\n\r\n", at) + 4
        self.holes, self._number = _holes(data, at, end)
        if len(self.holes) > MOST_HOLES:
            raise Odd
        edges = [at, *chain(*self.holes), end, len(data)]
        self.fixed = list(zip(edges[0:-1:2], edges[1::2], strict=True))
        self._fixed = tuple(data[start:stop] for start, stop in self.fixed)
        sizes = [stop - start for start, stop in pairwise(edges)]
        self._cut = Struct("".join(f"{size}s" for size in sizes)).unpack_from

    def parts(self, data: bytes, at: int) -> Parts | None:
        """A message as long as that one, from there on; None: it is not like it."""
        parts = self._cut(data, at)
        if parts[::2] != self._fixed or b"".join(parts[1:-1:2]).translate(None, PLAIN):
            return None
        return parts if parts[self._number].isdigit() else None


def _holes(data: bytes, at: int, end: int) -> tuple[list[Span], int]:
    """And which of a message's parts is the number in CSeq."""
    found: list[Span] = []
    number = 0
    while at < end:
        last = data.index(b"\n", at) + 1
        name = canonical(data[at:last].partition(b":")[0].decode("ascii", "replace"))
        found += [match.span(1) for match in _HOLES.get(name, _OTHER_HOLES).finditer(data, at, last)]
        if name == "CSeq":
            number = 2 * len(found) - 1
        at = last
    return found, number


def edited(data: bytes, start: int, stop: int, edits: list[Edit]) -> list[bytes]:
    """That span, in pieces."""
    pieces: list[bytes] = []
    for (first, last), text in edits:
        if start <= first < stop:
            pieces += data[start:first], text
            start = last
    return [*pieces, data[start:stop]]


class RequestTemplate(Template):
    """What `asked` says of the request that it was made of is true of all that fit, but for their words. `edits`: what
    leaves in another spelling. Raises Odd."""

    __slots__ = (
        "_branch", "_call_id", "_first", "_head", "_loop", "_others", "_records", "_rest", "_route", "_sender",
        "_start", "_tag", "_uri",
    )  # fmt: skip

    def __init__(self, data: bytes, match: re.Match[bytes], asked: Asked, edits: list[Edit]) -> None:
        super().__init__(data, 0)
        self._head, self._sender, self._route, self._records = asked[:4]
        self._start, first = slice(len(asked.head.start)), len(asked.head.method) + 1
        self._uri, self._loop = slice(first, first + len(asked.head.uri)), (asked.head.uri, asked.loop)
        self._branch, self._others, self._call_id = (slice(*match.span(n)) for n in ("branch", "others", "call_id"))
        self._tag = slice(*match.span("tag")) if asked.tag else slice(0)
        topmost = range(data.rindex(b"\n", 0, self._branch.start), match.end("right"))
        if sum(start in topmost for start, _ in self.holes) != 1:  # nothing but the branch
            raise Odd
        end = match.end(OTHERS)
        self._first = 2 * next(n for n, (_, stop) in enumerate(self.fixed) if end < stop)
        left = self.fixed[self._first // 2 :]
        self._rest = [b"".join(edited(data, max(start, end), stop, edits)) for start, stop in left]

    def asked(self, data: bytes, parts: Parts) -> Asked:
        """`parts`: what it was cut up into."""
        uri, loop = self._loop
        if data[self._uri] != uri:
            uri = data[self._uri]
            loop = loop_of(self._head, uri, self._route)
            self._loop = uri, loop
        pieces = [data[self._start], b"", b"", *parts[self._first :]]
        pieces[3::2] = self._rest
        return new(Asked, (self._head, self._sender, self._route, self._records, loop, data[self._branch],
                           data[self._others], data[self._tag], data[self._call_id], pieces))  # fmt: skip


class AnswerTemplate(Template):
    """`tag`: which of the parts is the To tag; 0: it has none."""

    __slots__ = ("tag",)

    def __init__(self, data: bytes, at: int, tag: Span) -> None:
        super().__init__(data, at)
        if tag[0] == tag[1]:
            self.tag = 0
        elif tag in self.holes:
            self.tag = 2 * self.holes.index(tag) + 1
        else:
            raise Odd
