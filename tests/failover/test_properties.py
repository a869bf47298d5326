"""The properties parser against Java's rules (java.util.Properties.load), plus what it keeps that
Java throws away."""

import pytest
from fuzz_kit import words

from failover.config.properties import Entry, decode, parse


def pairs(text):
    entries, faults = parse(text)
    assert faults == []
    return [(entry.key, entry.value) for entry in entries]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a=1", [("a", "1")]),
        ("a:1", [("a", "1")]),
        ("a 1", [("a", "1")]),
        ("a\t1", [("a", "1")]),
        ("a = 1", [("a", "1")]),
        ("a : 1", [("a", "1")]),
        ("a  =  = 1", [("a", "= 1")]),
        ("   a=1", [("a", "1")]),
        ("a=1   ", [("a", "1   ")]),
        ("a", [("a", "")]),
        ("a=", [("a", "")]),
        ("=1", [("", "1")]),
        ("a=1=2:3", [("a", "1=2:3")]),
        ("a=1\rb=2\r\nc=3\n\n\nd=4", [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]),
        ("# a=1\n  ! b=2\nc=3", [("c", "3")]),
        ("c=3 # no comment", [("c", "3 # no comment")]),
        ("# ends in a backslash \\\nc=3", [("c", "3")]),
        ("fruits  apple, \\\n     pear, \\\n  kiwi", [("fruits", "apple, pear, kiwi")]),
        ("a=1\\\n# part of it", [("a", "1# part of it")]),
        ("a=1\\\\\nb=2", [("a", "1\\"), ("b", "2")]),
        ("a=1\\\\\\\nb=2", [("a", "1\\b=2")]),
        ("a=1\\\n\nb=2", [("a", "1"), ("b", "2")]),
        ("a=1\\", [("a", "1")]),
        ("\\", []),
        ("a\\=b\\:c\\ d=1", [("a=b:c d", "1")]),
        ("\\#a=1\n\\!b=2", [("#a", "1"), ("!b", "2")]),
        ("a=\\t\\n\\r\\f\\q\\\\", [("a", "\t\n\r\fq\\")]),
        ("a=\\u00e4\\u20AC", [("a", "ä€")]),
        ("a\\u003db=1", [("a=b", "1")]),
        ("a=\\uD83D\\uDE00", [("a", "\U0001f600")]),
        ("a=\\\\u0041", [("a", "\\u0041")]),
        ("a=1\na=2", [("a", "1"), ("a", "2")]),
        ("", []),
    ],
)
def test_reads_as_java_does(text, expected):
    assert pairs(text) == expected


def test_line_numbers_are_those_of_the_first_natural_line():
    entries, _ = parse("# one\n\na=1\\\n  2\\\n  3\nb=4\n")
    assert [(entry.line, entry.key, entry.value) for entry in entries] == [
        (3, "a", "123"),
        (6, "b", "4"),
    ]


def test_separator_and_text_are_kept_for_those_who_read_more_than_java():
    entries, _ = parse("[::1]:5060\n10.0.0.1 : 5060")
    assert entries == [
        Entry(1, "[", ":1]:5060", ":", "[::1]:5060"),
        Entry(2, "10.0.0.1", "5060", ":", "10.0.0.1 : 5060"),
    ]


def test_every_broken_escape_is_reported_with_its_line():
    entries, faults = parse("a=\\u12\nb=2\nc=\\u12x4\n")
    assert [entry.key for entry in entries] == ["b"]
    assert [fault.located("f.properties") for fault in faults] == [
        "f.properties:1: '\\u12' is not a character: \\u takes four hexadecimal digits",
        "f.properties:3: '\\u12x4' is not a character: \\u takes four hexadecimal digits",
    ]


def test_files_are_utf8_or_else_latin1():
    assert decode(b"\xef\xbb\xbfa=\xc3\xa4") == "a=ä"
    assert decode(b"a=\xe4") == "a=ä"


def escaped(text):
    return "".join(
        f"\\u{ord(c):04x}" if not 32 <= ord(c) <= 126 else f"\\{c}" if c in "\\=: #!" else c
        for c in text
    )


def test_what_is_escaped_comes_back():
    properties = dict(zip(words(1500, seed=1), words(1500, seed=2), strict=True))
    text = "\n".join(f"{escaped(key)}={escaped(value)}" for key, value in properties.items())
    assert pairs(text) == list(properties.items())


def test_any_text_gives_entries_or_faults_never_an_exception():
    for text in words(1500, seed=3):
        entries, faults = parse(text)
        assert all(entry.line >= 1 for entry in entries) and all(
            fault.line >= 1 for fault in faults
        )
