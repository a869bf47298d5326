"""Reads an ordinary message for the fast path: by a pattern, or by a template made from two
messages that the pattern matched.

A pattern proves that the parser would accept the message and read it alike. Header lines may come
in any order. What a proxy reads (From, To, Call-ID, CSeq, Max-Forwards, Route, Record-Route,
Content-Length) is there once at most, in its usual spelling and on one line; other lines may be
anything but another spelling of these. What does not match may still be a good message: core.py
decides.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from itertools import chain, pairwise
from operator import itemgetter
from struct import Struct
from typing import Any

from plumbing.address import format_address
from sip.message import MAX_HEAD, MAX_SIZE, parse
from sip.via import MAGIC_COOKIE

COOKIE = MAGIC_COOKIE.encode()
# in tokens and users of URIs
PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.!%+*'~-"
MAX_TEMPLATES = 512
MAX_TEMPLATE_HEAD = 4_096  # octets
# by octet: "a" for those of a word, itself for any other
SHAPE = bytes(ord("a") if octet in PLAIN else octet for octet in range(256))
TEMPLATE_INTERVAL = 0.04  # seconds between two new templates; making one takes 0.1 ms

# the repeats that give nothing back are right (gh-106052)
POSSESSIVE = sys.version_info >= (3, 11, 5)

# -- patterns --------------------------------------------------------------------------------------

# For speed: a set of three ranges or more is a table, which takes one look, and most lines are told
# apart by their first letter. `*+` and its like give nothing back, which changes no result here.
ANY = r"[\x00-\t\x0b\x0c\x0e-\xff]"  # but a line's end
NAME = r"[A-Za-z0-9_.!%+*`'~-]"
TOKEN = NAME + "++"
TAG = r"(?:;tag=|(?=\r))"
HOST = (
    r"(?:[A-Za-z0-9_.-]++|\[[0-9A-Fa-f:.]++\])(?::(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3})(?!\d))?+"
)
URI = (
    rf"sip:(?:(?P<user>[A-Za-z0-9_.!~*'()&=+$,%#/-]++)@)?+"
    rf"(?P<host>{HOST})(?:;(?!lr)[A-Za-z0-9_.=~%+-]*+)*+"
)
NAME_ADDR = r"""(?:"[^"\\\r\n]*+"|[^"<\r\n]*+) ?+<[^>\r\n]*+>"""
PARAMS = r"(?:;[A-Za-z0-9_.-]++(?:=[A-Za-z0-9_.:!~*'%+-]*+)?+)*+"
OTHER_PARAMS = PARAMS.replace("(?:;", "(?:;(?!back=)", 1)
OTHER_VIA = rf"SIP/2\.0/UDP {HOST}{PARAMS}"
TOP_VIA = (
    r"(?P<left>SIP/2\.0/UDP [A-Za-z0-9_.:\[\]-]++"
    r"(?:;(?!branch=)[A-Za-z0-9_.:!~*'%+=\[\]-]++)*+);branch=z9hG4bK"
    rf"(?P<branch>{TOKEN})(?P<right>(?:;[A-Za-z0-9_.:!~*'%+=\[\];-]*+)?+)"
)
NEXT = r"(?:\r\nVia: |, )"  # in answers; SIPp writes all Vias in one line
ABOVE = rf"(?P<above>(?:Record-Route: {ANY}*+\r\n){{0,32}}+)Via: "
READ = (
    "from|f|to|t|via|v|call-id|i|cseq|content-length|l|max-forwards|route|record-route|proxy-require"
    "|failover-kept"
)
LINES = "|".join(
    [  # `(?(x)(?!))`: not if group x has matched before; `(?(x)|(?!))`: only then
        rf"F(?(from)(?!))rom: (?P<from>{NAME_ADDR}){TAG}(?P<from_tag>{NAME}*+)\r\n",
        rf"T(?(to)(?!))o: (?P<to>{NAME_ADDR}){TAG}(?P<tag>{NAME}*+)\r\n",
        rf"C(?:a(?(call_id)(?!))ll-ID: (?P<call_id>[!-~]{ANY}*+)\r\n"
        r"|S(?(cseq)(?!))eq: [0-3]??(?P<number>\d{1,9}) (?P<cseq>METHOD)\r\n"
        r"|ontent-L(?(length)(?!))ength: *+(?P<length>\d{1,6})\r\n"
        rf"|on(?:tact|tent-Type):{ANY}*+\r\n(?![ \t]))",
        r"M(?(hops)(?!))ax-Forwards: (?P<hops>[1-9]\d?|1\d\d|2[0-4]\d|25[0-5])\r\n",
        rf"R(?:o(?(routes)(?!))ute: (?P<routes>{ANY}*+\r\n(?:Route: {ANY}*+\r\n){{0,16}}+)"
        rf"|e(?(records)(?!))cord-Route: (?P<records>{ANY}*+\r\n"
        rf"(?:Record-Route: {ANY}*+\r\n){{0,16}}+))",
        rf"[ABDEGHJKNOQSUWXYZabdeghjknoqsuwxyz]{NAME}*+:{ANY}*+\r\n(?![ \t])",
        rf"(?!(?i:{READ})[ \t]*+:){TOKEN}:{ANY}*+\r\n(?![ \t])",
    ]
)
REST = rf"\r\n(?:{LINES}){{0,128}}+\r\n" + "".join(
    f"(?({name})|(?!))" for name in ("from", "to", "call_id", "cseq")
)
REQUEST_TEXT = (
    rf"(?P<line>(?P<method>[A-Z]++) (?P<uri>{URI}) SIP/2\.0\r\n){ABOVE}{TOP_VIA}"
    rf"(?P<others>(?:\r\nVia: {OTHER_VIA}){{0,32}}+)"
    + REST.replace("METHOD", "(?P=method)")
    + "(?(hops)|(?!))"
)
ANSWER_TEXT = (
    rf"SIP/2\.0 (?P<status>[1-6]\d\d) {ANY}*+\r\n{ABOVE}"
    rf"(?P<ours>SIP/2\.0/UDP {HOST};branch=(?P<signed>z9hG4bK[0-9a-f]{{32}}){OTHER_PARAMS}"
    rf";back=(?P<back>[0-9a-f]{{16}})(?![^;,\r]){PARAMS}{NEXT}){TOP_VIA}"
    rf"(?P<others>(?:{NEXT}{OTHER_VIA}){{0,32}}+)" + REST.replace("METHOD", "[A-Z]++")
)


def compiled(text: str, possessive: bool = POSSESSIVE) -> re.Pattern[bytes]:
    """Python has possessive repeats since 3.11, and right ones since 3.11.5 (gh-106052). A
    condition that comes before its group has to name it by number."""
    names = re.findall(r"\(\?P<(\w+)>", text)
    text = re.sub(r"\(\?\((\w+)\)", lambda found: f"(?({names.index(found[1]) + 1})", text)
    return re.compile((text if possessive else re.sub(r"(?<=[*+?}])\+", "", text)).encode("ascii"))


FIRST_BRANCH = compiled(
    r"(?i:[^\r;,]*+(?:;(?!branch[=;,\r])[^\r;,]*+)*+;branch(?:=|(?![^;,\r])))([^\r;,]*+)"
)


class Form:
    """The pattern of requests or of answers, and the parts that it cuts out of a message.

    `facts`: groups that are equal in all messages of a template; `words`: groups that may differ.
    Two slices follow them: from the end of group `start` ("": from the first octet) to the
    beginning of group `gap`, and from the end of `gap` to the message's end.
    """

    def __init__(
        self, pattern: re.Pattern[bytes], facts: str, words: str, start: str, gap: str
    ) -> None:
        self.match, index = pattern.match, pattern.groupindex
        self.facts, self.words = facts.split(), words.split()
        self._groups = [index[name] for name in self.facts + self.words]
        self._start, self._gap = index.get(start, 0), index[gap]

    def edges(self, match: re.Match[bytes]) -> tuple[int, int, int]:
        """Offsets: beginning and end of the first slice, beginning of the second."""
        return match.end(self._start) if self._start else 0, *match.span(self._gap)

    def cut(self, match: re.Match[bytes]) -> tuple[Any, ...]:
        """Returns the facts, the words and the two slices."""
        start, end, rest = self.edges(match)
        data = match.string
        return (*match.group(*self._groups), data[start:end], data[rest:])


def forms(possessive: bool = POSSESSIVE) -> tuple[Form, Form]:
    """Of requests and of answers."""
    return (
        Form(
            compiled(REQUEST_TEXT, possessive),
            "method above routes records hops",
            "line uri host left branch right others tag call_id",
            start="others",
            gap="hops",
        ),
        Form(
            compiled(ANSWER_TEXT, possessive),
            "cseq status",
            "signed back left branch right others tag",
            start="",
            gap="ours",
        ),
    )


# Where a word may be any other word of that length, and the message is still ordinary, with the
# same facts.
WORD, PARAMETER = compiled(rf"[{PLAIN.decode()}]++"), compiled(rf"=([{PLAIN.decode()}]++)")
FREE = "user", "host", "left", "branch", "right", "from", "from_tag", "to", "tag"
VALUE = compiled(
    rf"\r\n(?!(?:From|To|CSeq|Max-Forwards|Route|Record-Route|Content-Length):){TOKEN}:([^\r]*+)"
)

# -- templates -------------------------------------------------------------------------------------


class NotOrdinary(Exception):
    """The message is not ordinary: core.py must handle it."""


class Template:
    """The octets that messages of one kind and length have in common, learned from two that a
    pattern has matched.

    Words in which the two differ are holes, and the body is one. A message of that length is as
    ordinary as the second one was, and has the same facts, if its head has the same shape (word
    characters and others in the same places), is equal outside the holes, and has digits for its
    CSeq number.
    """

    __slots__ = ("_equal", "_fixed", "_head", "_number", "_shape", "facts", "holes", "words")

    def __init__(
        self,
        match: re.Match[bytes],
        sample: bytes,
        holes: Collection[tuple[int, int]],
        form: Form,
    ) -> None:
        data, groups, head = match.string, match.re.groupindex, match.end()
        free = [match.span(name) for name in FREE if name in groups]
        for name in {"ours", "others"} & groups.keys():
            free += [found.span(1) for found in PARAMETER.finditer(data, *match.span(name))]
        free += [found.span(1) for found in VALUE.finditer(data, match.end("others"), head - 2)]
        spans = [
            word.span()
            for start, stop in free
            if stop > 0
            for word in WORD.finditer(data, start, stop)
        ]
        number = match.span("number")
        differ = (at for at in spans if at in holes or data[slice(*at)] != sample[slice(*at)])
        self.holes = sorted({number, *differ})
        edges = [0, *chain(*self.holes), head]
        fields = "".join(
            f"{stop - start}{'sx'[at % 2]}" for at, (start, stop) in enumerate(pairwise(edges))
        )
        self._head, self._number = slice(0, head), slice(*number)
        self._shape, self._fixed = data[:head].translate(SHAPE), Struct(fields).unpack
        self._equal = self._fixed(data[:head])
        self.facts = match.group(*form.facts)
        start, end, rest = form.edges(match)
        words = (slice(*match.span(name)) for name in form.words)
        self.words = itemgetter(*words, slice(start, end), slice(rest, None))

    def fits(self, data: bytes) -> bool:
        head = data[self._head]
        return (
            head.translate(SHAPE) == self._shape
            and self._fixed(head) == self._equal
            and data[self._number].isdigit()
        )


class Reader:
    """Reads messages, and learns templates.

    Templates are kept by the length and the first octets of messages. A message that fits none, but
    has the length and the first octets of an earlier one, makes a new template, at most one per
    TEMPLATE_INTERVAL: so the most frequent kinds get theirs, and learning costs little.
    """

    def __init__(self, possessive: bool = POSSESSIVE) -> None:
        self._request, self._answer = forms(possessive)
        self._templates: dict[tuple[int, bytes], Template] = {}
        self._samples: dict[tuple[int, bytes], bytes] = {}
        self._next = float("-inf")  # when the next one may be made

    def read(self, data: bytes, now: float) -> Any:
        """The facts of a message, its words and the two slices. Raises NotOrdinary."""
        template = self._templates.get((len(data), data[:4]))
        if template and template.fits(data):
            return template.facts + template.words(data)
        form = self._answer if data.startswith(b"SIP/") else self._request
        match = form.match(data)
        if not match:
            raise NotOrdinary
        head, length = match.end(), match["length"]
        if head > MAX_HEAD or len(data) > MAX_SIZE or (length and int(length) != len(data) - head):
            raise NotOrdinary
        if now >= self._next and head < MAX_TEMPLATE_HEAD:
            self._learn(match, now, form)
        return form.cut(match)

    def _learn(self, match: re.Match[bytes], now: float, form: Form) -> None:
        kind = len(match.string), match.string[:4]
        sample, known = self._samples.get(kind), self._templates.get(kind)
        if len(self._samples) >= MAX_TEMPLATES:
            self._samples.clear()
        self._samples[kind] = match.string[: match.end()]
        if sample:
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            self._templates[kind] = Template(match, sample, known.holes if known else (), form)
            self._next = now + TEMPLATE_INTERVAL


def beneath(branch: bytes, others: bytes) -> bytes:
    """The branch of the Via beneath the one with this branch, if there is one, else this one."""
    match = FIRST_BRANCH.match(others, 2)
    return match[1] if match else b"" if others else COOKIE + branch


def topmost(records: bytes) -> bytes:
    """The address in the topmost of these Record-Route lines."""
    top = parse(b"OPTIONS sip:nobody SIP/2.0\r\n" + records + b"\r\n").record_routes[:1]
    address = format_address(top[0].uri.address()) if top else ""
    return address.encode("utf-8", "surrogateescape")
