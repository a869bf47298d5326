"""A parser of Java's properties files, which keeps line numbers and finds every fault at once.

The rules are those of java.util.Properties.load: `#` and `!` begin comments, a line that ends in an
odd number of backslashes goes on in the next one, the key ends at the first `=`, `:` or blank, and
escapes may be used anywhere. One difference: an entry that repeats a key is kept, where Java
overwrites the first; the caller decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

BLANK = " \t\f"
_NATURAL_LINE = re.compile(r"\r\n|\r|\n")
# key, separator, value
_ENTRY = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*([=:]?)[ \t\f]*(.*)", re.DOTALL)
_ESCAPE = re.compile(r"\\(u.{0,4}|.)", re.DOTALL)
_NAMED_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


@dataclass(frozen=True)
class Fault:
    """A fault of the file. `line` counts from 1; 0: the file as a whole."""

    line: int
    text: str

    def located(self, name: str) -> str:
        """The fault as a line for the operator, `servers.properties:7: ...`."""
        return f"{name}:{self.line}: {self.text}" if self.line else f"{name}: {self.text}"


@dataclass(frozen=True)
class Entry:
    """A logical line. `separator` is "=", ":", " " or, without a value, ""; `text` is the line as
    written, with its escapes."""

    line: int
    key: str
    value: str
    separator: str
    text: str


def parse(text: str) -> tuple[list[Entry], list[Fault]]:
    """The entries of a file, in order, and the faults of its syntax."""
    entries: list[Entry] = []
    faults: list[Fault] = []
    for number, line in _logical_lines(text):
        key, separator, value = _split(line)
        try:
            entries.append(Entry(number, _unescape(key), _unescape(value), separator, line))
        except ValueError as error:
            faults.append(Fault(number, str(error)))
    return entries, faults


def decode(data: bytes) -> str:
    """The text of a file in UTF-8, or else in ISO 8859-1, Java's older default."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("iso-8859-1")


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """(number of the first natural line, joined text) of each logical line that is neither blank
    nor a comment."""
    result: list[tuple[int, str]] = []
    first, joined, continued = 0, "", False
    for number, natural in enumerate(_NATURAL_LINE.split(text), start=1):
        line = natural.lstrip(BLANK)
        if not continued:
            # A comment is never continued; inside a continued line "#" begins none.
            if not line or line[0] in "#!":
                continue
            first, joined = number, ""
        continued = _ends_in_odd_backslashes(line)
        joined += line[:-1] if continued else line
        if not continued:
            result.append((first, joined))
    if continued:
        result.append((first, joined))
    return [(number, line) for number, line in result if line]


def _ends_in_odd_backslashes(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _split(line: str) -> tuple[str, str, str]:
    """Key, separator and value, all still escaped."""
    found = _ENTRY.match(line)
    assert found  # any line is a key, be it empty, and a value
    key, separator, value = found.groups()
    return key, separator or (" " if value else ""), value


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    # Java's \u names UTF-16 units: two of them may make one character.
    units = _ESCAPE.sub(_character, text).encode("utf-16-le", "surrogatepass")
    return units.decode("utf-16-le", "replace")


def _character(match: re.Match[str]) -> str:
    escape = match[1]
    if escape[0] != "u":
        return _NAMED_ESCAPES.get(escape, escape)
    if not re.fullmatch("u[0-9A-Fa-f]{4}", escape):
        raise ValueError(f"'\\{escape}' is not a character: \\u takes four hexadecimal digits")
    return chr(int(escape[1:], 16))
