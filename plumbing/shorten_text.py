"""Sentences for a log or an answer, cut at a word."""

from __future__ import annotations

ELLIPSIS = "..."  # three full stops: logs are read on terminals that know ASCII only


def shortened(text: str, most: int) -> str:
    """At most so many characters. One that is too long ends after a word, with an ellipsis; after a
    part of a word only where the last word alone is longer than half of the room."""
    if len(text) <= most:
        return text
    room = max(most - len(ELLIPSIS), 0)
    cut = text[:room]
    if not text[room].isspace():
        at = max(cut.rfind(" "), cut.rfind("\t"), cut.rfind("\n"))
        cut = cut[:at] if at > room // 2 else cut
    return cut.rstrip() + ELLIPSIS
