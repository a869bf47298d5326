"""The grammar that all header lines share: tokens, quotes, lists, parameters (RFC 3261 25.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from types import MappingProxyType
from typing import TypeVar

from sip.errors import RemoteProtocolError

MAX_REMEMBERED = 512  # characters of a text that a cache keeps
NO_PARAMS: Mapping[str, str | None] = MappingProxyType({})
T = TypeVar("T")
_TOKEN = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+\Z")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
SPACE = r"[ \t\r\n]"  # LWS (RFC 3261 25.1): `\s` would take other scripts' blanks, too
HOST_PORT = rf"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:\s;,]+){SPACE}*(?::{SPACE}*([0-9]{{1,5}}))?"  # sent-by
# without these, parameters are what stands between the semicolons
_UNUSUAL = re.compile(r'[\s"<>,]')
_TO_QUOTE = re.compile(r'[\s",;<>=?@\\]')
_HIDING = re.compile(r'["<]')  # what a separator may stand behind without being one
# In a name these would hide the parameters behind it from the next reader, such as a `received` put
# there by us.
_NOT_IN_A_NAME = re.compile(r'[<>",\s]')


def remembered(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Decorates a parser: the results of the latest 1,024 texts are remembered, for the fields of
    one message of a call stand in its next ones, too. Long texts are parsed each time, so that
    strangers cannot fill the memory."""
    cached = lru_cache(maxsize=1024)(parse)

    def parse_once(text: str) -> T:
        return cached(text) if len(text) <= MAX_REMEMBERED else parse(text)

    return parse_once


def is_token(text: str) -> bool:
    return _TOKEN.match(text) is not None


def split_list(value: str, separator: str = ",") -> list[str]:
    """The elements of a comma-separated list; commas inside quotes and <> belong to their
    element."""
    if separator not in value:
        value = value.strip()
        return [value] if value else []
    if not _HIDING.search(value):
        return [part for each in value.split(separator) if (part := each.strip())]
    parts, start, depth, i, size = [], 0, 0, 0, len(value)
    while i < size:
        char = value[i]
        if char == '"':
            quoted = _QUOTED.match(value, i)
            if not quoted:
                raise RemoteProtocolError(f"a quotation mark is not closed: {value[:60]!r}")
            i = quoted.end()
            continue
        if char == "<":
            depth += 1
        elif char == ">":
            depth = max(0, depth - 1)
        elif char == separator and not depth:
            parts.append(value[start:i].strip())
            start = i + 1
        i += 1
    parts.append(value[start:].strip())
    return [part for part in parts if part]


def parse_params(text: str) -> dict[str, str | None]:
    """';lr;ttl=1;text="a b"' -> {"lr": None, "ttl": "1", "text": "a b"}. The first of two equal
    names wins."""
    params: dict[str, str | None] = {}
    if not _UNUSUAL.search(text):
        for part in text.split(";"):
            if part:
                name, equals, value = part.partition("=")
                params.setdefault(name.lower(), value if equals else None)
        return params
    for part in split_list(text, ";"):
        name, equals, value = part.partition("=")
        name, value = name.strip().lower(), value.strip()
        if _NOT_IN_A_NAME.search(name):
            raise RemoteProtocolError(f"not a parameter's name: {name[:40]!r}")
        params.setdefault(name, unquoted(value) if equals else None)
    return params


def format_params(params: Mapping[str, str | None]) -> str:
    """The inverse of parse_params, quoting only what must be."""
    text = ""
    for name, value in params.items():
        if value is None:
            text += f";{name}"
        else:
            plain = value and not _TO_QUOTE.search(value)
            text += f";{name}={value if plain else quoted(value)}"
    return text


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def quoted_prefix(text: str) -> tuple[str, str]:
    """'"a b" <sip:x>' -> ("a b", "<sip:x>"): the leading quoted string and what follows it."""
    match = _QUOTED.match(text)
    if not match:
        raise RemoteProtocolError(f"a quotation mark is not closed: {text[:60]!r}")
    return unquoted(match[0]), text[match.end() :].lstrip()


def unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


@remembered
def _canonical_ipv6(host: str) -> str:
    try:
        return str(IPv6Address(host))
    except ValueError:
        return host


def is_number(text: str, digits: int) -> bool:
    """Is it a whole number of so many ASCII digits at most, so that int() takes it and is quick
    with it? str.isdigit and int() know the digits of all scripts."""
    return text.isascii() and text.isdigit() and len(text) <= digits


def canonical_host(host: str) -> str:
    """A host in the form in which hosts are compared: names in lower case (RFC 3261 19.1.4), IPv6
    addresses in their shortest form (RFC 5952), so that "0:0:0:0:0:0:0:1" is "::1"."""
    host = host.lower()
    return _canonical_ipv6(host) if ":" in host else host


def port_number(digits: str | None) -> int | None:
    """None where none was written. Raises RemoteProtocolError."""
    if not digits:
        return None
    port = int(digits)
    if not 0 < port < 65536:
        raise RemoteProtocolError(f"no such port: {digits}")
    return port
