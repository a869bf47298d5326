"""Cutting a text at a word, for a log line or an error message."""

from __future__ import annotations

ELLIPSIS = "..."  # ASCII, since some terminals show nothing else


def shortened(text: str, most: int) -> str:
    """The text in at most `most` characters. A longer one is cut after a word, and ends with an
    ellipsis; it is cut within a word only if that word takes more than half of the room."""
    if len(text) <= most:
        return text
    room = max(most - len(ELLIPSIS), 0)
    cut = text[:room]
    if not text[room].isspace():
        last_space = max(cut.rfind(" "), cut.rfind("\t"), cut.rfind("\n"))
        cut = cut[:last_space] if last_space > room // 2 else cut
    return cut.rstrip() + ELLIPSIS
