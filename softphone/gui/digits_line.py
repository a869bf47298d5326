"""A label with the digits of a call: sent, received, or the reason why none can be sent."""

from __future__ import annotations

from softphone import texts
from softphone.gui import formatting
from softphone.gui.widgets import TextLabel
from softphone.ua.events import DigitPassed, DigitRefused

SHOWN = 12  # digits of either kind; of more, the last ones


class DigitsLine(TextLabel):
    """Shows what is known to have been sent, which a pressed key alone is not."""

    def __init__(self) -> None:
        super().__init__(tone="muted", tabular=True, name="digits")
        self._sent = self._received = self._refused = ""

    def begin(self) -> None:
        """Another call."""
        self._sent = self._received = self._refused = ""
        self.set_text("")

    def show_use(self, held: bool) -> None:
        """Say what keys do in a call that is up, or what they have done. `held`: by us."""
        both = ((texts.DIGITS_SENT, self._sent), (texts.DIGITS_RECEIVED, self._received))
        done = "   ".join(f"{word}: {_end_of(digits)}" for word, digits in both if digits)
        self.set_text(texts.KEYS_HELD if held else self._refused or done or texts.KEYS_HINT)

    def show_event(self, event: object, call_id: str) -> None:
        """Show a digit that has left or come in this call, or that the other side takes none."""
        if isinstance(event, DigitPassed) and event.call_id == call_id:
            self._refused = ""
            if event.sent:
                self._sent += event.digit
            else:
                self._received += event.digit
        elif isinstance(event, DigitRefused) and event.call_id == call_id:
            self._refused = formatting.one_line(event.sentence)
        else:
            return
        self.show_use(held=False)


def _end_of(digits: str) -> str:
    return digits if len(digits) <= SHOWN else f"\u2026{digits[-SHOWN:]}"
