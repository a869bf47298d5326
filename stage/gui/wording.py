"""Plain words first: the figure says them unless somebody has asked for the technical ones, which
is remembered."""

from __future__ import annotations

from PySide6.QtCore import QSettings

PLAIN = {
    "hot: gets new calls": "in use",
    "replica: ready": "spare, ready",
    "crashed (SIGKILL)": "crashed",
    "frozen (SIGSTOP)": "frozen",
    "answers heartbeats only": "seems alive, is not",
    "misses heartbeats": "does not answer",
    "not trusted yet": "just back, on trial",
    "audio (RTP), from phone to phone": "sound, straight from phone to phone",
    "no audio": "no sound",
    "no live server: 503": "nobody to ask",
}
LEGEND = (
    "Blue, thick edge: in use (hot). Green, thin edge: a spare (replica), ready to take over. "
    "Grey, dashed, crossed: dead. Ochre: in trouble, or on trial.\n"
    "A message travels along its line: blue asks, green answers, ochre was sent again."
)

_technical: bool | None = None


def technical() -> bool:
    global _technical
    if _technical is None:
        _technical = str(QSettings().value("technical", "false")) == "true"
    return _technical


def choose(wanted: bool) -> None:
    global _technical
    _technical = wanted
    QSettings().setValue("technical", wanted)


def said(text: str) -> str:
    """`text` in the words that are shown."""
    return text if technical() else PLAIN.get(text, text)
