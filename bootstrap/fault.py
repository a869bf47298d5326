"""What set-up says when it cannot go on, and how it speaks."""

import sys


class SetupFault(Exception):
    """One sentence for the person at the keyboard: what is wrong and what to do about it."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


def say(sentence: str) -> None:
    """Tell how set-up gets on; on stderr, since stdout belongs to the program being started."""
    print(sentence, file=sys.stderr, flush=True)
