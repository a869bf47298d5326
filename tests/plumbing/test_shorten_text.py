"""Sentences for a log: cut at a word, printable, and at most one a second of a kind."""

from __future__ import annotations

import logging

import pytest

from failover.admin.event_log import plain
from plumbing import throttled_log
from plumbing.shorten_text import shortened
from plumbing.throttled_log import ThrottledLog

SENTENCE = "there are sixty-four registered servers and no more may be"


@pytest.mark.parametrize("most", range(3, 70))
def test_a_sentence_that_is_too_long_ends_after_a_word_with_an_ellipsis(most):
    cut = shortened(SENTENCE, most)
    assert len(cut) <= most or cut == SENTENCE
    if cut != SENTENCE:
        kept, dots = cut[:-3], cut[-3:]
        assert dots == "..." and SENTENCE.startswith(kept)
        assert most < 23 or SENTENCE[len(kept)] == " ", "not in the middle of a word"


def test_a_word_that_is_too_long_is_cut_where_the_room_ends():
    assert shortened("x" * 100, 20) == "x" * 17 + "..."
    assert shortened("call " + "x" * 100, 20) == "call " + "x" * 12 + "..."
    assert shortened("", 20) == "" and shortened("x" * 20, 20) == "x" * 20


def test_what_a_stranger_said_is_printable_and_shows_that_there_was_more():
    assert plain("a\nb\x1b[31m \xe4 \u0663") == "a\\x0ab\\x1b[31m \\xe4 \\u0663"
    assert plain("one two three", 10) == "one two..."


def test_a_rare_log_says_a_line_a_second_and_how_many_it_left_out(caplog, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throttled_log.time, "monotonic", lambda: now[0])
    rare = ThrottledLog(logging.getLogger("test"))
    for _ in range(5):
        rare.say("one", logging.WARNING, "no descriptors")
    rare.say("two", logging.WARNING, "no threads")
    now[0] = 101.0
    rare.say("one", logging.WARNING, "no descriptors")
    more = "no descriptors (and 4 more since the last such line)"
    assert caplog.messages == ["no descriptors", "no threads", more]
