"""Formatting for the windows: durations, names from strangers made safe for one line.
Pure functions, no Qt."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from softphone import texts

if TYPE_CHECKING:
    from softphone.media.stream import MediaStats

# Unicode UAX 9: what stands between keeps its own direction
FIRST_STRONG_ISOLATE, POP_ISOLATE = "\u2068", "\u2069"
LONGEST_NAME = 200


def duration(seconds: float) -> str:
    """Whole seconds as mm:ss, past an hour hh:mm:ss; never negative."""
    whole = max(0, int(seconds))
    hours, rest = divmod(whole, 3600)
    clock = f"{rest // 60:02d}:{rest % 60:02d}"
    return f"{hours:02d}:{clock}" if hours else clock


def spoken_duration(seconds: float) -> str:
    """A duration as a screen reader says it: "1 hour 2 minutes 5 seconds"."""
    whole = max(0, int(seconds))
    numbers = (whole // 3600, whole // 60 % 60, whole % 60)
    said = [
        (one if number == 1 else several).format(number=number)
        for number, (one, several) in zip(numbers, texts.UNITS, strict=True)
        if number
    ]
    return " ".join(said) or texts.UNITS[-1][1].format(number=0)


def one_line(text: str) -> str:
    """A stranger's text on one line: white space folded, control and direction-override characters
    gone."""
    kept = (
        c if not c.isspace() else " "
        for c in text[:LONGEST_NAME]
        if c.isspace() or not _invisible(c)
    )
    return " ".join("".join(kept).split())


def _invisible(character: str) -> bool:
    # Joiners shape letters in several scripts; all other format characters could reorder or hide
    # what is written.
    return (
        unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs")
        and character not in "\u200c\u200d"
    )


def party(name: str, uri: str) -> str:
    """The name to show for the other side of a call: its display name, else its address without the
    scheme."""
    return one_line(name) or one_line(uri.partition(":")[2]) or texts.UNKNOWN_CALLER


def right_to_left(text: str) -> bool:
    """True if any letter of the text is written from right to left."""
    return any(unicodedata.bidirectional(c) in ("R", "AL") for c in text)


def sentence_with(name: str, sentence: str) -> str:
    """The sentence with a right-to-left name fenced in, so that the words around it keep their
    order."""
    sentence = one_line(sentence)
    if name and right_to_left(name):
        return sentence.replace(name, f"{FIRST_STRONG_ISOLATE}{name}{POP_ISOLATE}")
    return sentence


def quality(stats: MediaStats) -> str:
    """Loss, jitter and round-trip time of a stream in a line."""
    expected = stats.packets_received + stats.lost
    loss = 100 * stats.lost / expected if expected > 0 else 0.0
    text = texts.QUALITY if stats.round_trip_ms is None else texts.QUALITY_RTT
    return text.format(loss=loss, jitter=stats.jitter_ms, rtt=stats.round_trip_ms)
