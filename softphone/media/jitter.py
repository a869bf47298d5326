"""The jitter buffer: packets in as they come, 20 ms out at every tick. Pure; its clock is the tick that asks.

It starts playing once it holds its target. When it runs dry it fades out and lets the delay grow; when for two seconds
it has never held less than it needs, two pieces are blended into one until the delay is short again. The same two
rules follow a sender whose clock is faster or slower than ours.
"""

from __future__ import annotations

from array import array

from softphone.media.g711 import BLOCK

PIECE = 80  # 10 ms, of which the usual packet times are multiples
PIECES = BLOCK // PIECE
SILENCE = array("h", bytes(2 * BLOCK))
WINDOW = 100  # blocks over which the least depth is watched
FADE = (0.7, 0.4, 0.2)  # loudness of the repeats that hide a gap


class JitterBuffer:
    """`target`: pieces of 10 ms to hold before playing starts. Never holds more than `most` pieces."""

    def __init__(self, target: int = 4, most: int = 50) -> None:
        self.concealed = 0  # blocks
        self.late = 0  # packets that came after their time
        self._target, self._most = target, most
        self._pieces: dict[int, array[int]] = {}  # by time in samples, wraps undone
        self._playing = False
        self._at = 0  # time of the next piece to play
        self._newest: int | None = None  # time of the newest piece, also after it was played
        self._last = SILENCE
        self._misses = 0
        self._least = most
        self._asked = 0

    @property
    def depth(self) -> int:
        """Pieces held."""
        return len(self._pieces)

    def put(self, timestamp: int, samples: array[int]) -> None:
        """A packet's sound, its RTP timestamp unwrapped here. Sound that is too late or far ahead makes no mess."""
        time = self._newest = self._unwrap(timestamp)
        if self._pieces or self._playing:
            beginning = self._at if self._playing else min(self._pieces)
            # A jump of the sender's clock, a long pause, or sound cut elsewhere: what is held belongs to the past.
            if abs(time - beginning) > self._most * PIECE or (time - beginning) % PIECE:
                self._restart()
        if self._playing and time + len(samples) <= self._at:
            self.late += 1
            return
        for start in range(0, len(samples) - PIECE + 1, PIECE):
            if not self._playing or time + start >= self._at:
                self._pieces[time + start] = samples[start : start + PIECE]
        while len(self._pieces) > self._most:
            del self._pieces[min(self._pieces)]

    def get(self) -> array[int]:
        """The next 20 ms: sound, something that hides its absence, or silence."""
        if not self._playing and not self._begin():
            return SILENCE
        block = self._take()
        self._watch()
        if block is None:
            return self._conceal()
        self._misses = 0
        self._last = block
        return block

    def clear(self) -> None:
        """Forget what is held: the stream is on hold or comes from another source."""
        self._restart()
        self._newest = None
        self._last = SILENCE

    def _unwrap(self, timestamp: int) -> int:
        if self._newest is None:
            return timestamp
        ahead = (timestamp - self._newest) & 0xFFFFFFFF
        return self._newest + (ahead if ahead < 0x80000000 else ahead - 0x100000000)

    def _restart(self) -> None:
        self._pieces.clear()
        self._playing = False

    def _begin(self) -> bool:
        if not self._pieces or (max(self._pieces) - min(self._pieces)) // PIECE + 1 < self._target:
            return False
        self._at = min(self._pieces)
        self._playing = True
        self._misses, self._least, self._asked = 0, self._most, 0
        return True

    def _take(self) -> array[int] | None:
        first, second = self._pieces.pop(self._at, None), self._pieces.pop(self._at + PIECE, None)
        found = first or second
        if found or self._pieces:  # a gap with sound behind it is lost; without any, time stands still until it comes
            self._at += BLOCK
        return (first or found) + (second or found) if found else None

    def _conceal(self) -> array[int]:
        self.concealed += 1
        loudness = FADE[self._misses] if self._misses < len(FADE) else 0.0
        self._misses += 1
        if self._misses > len(FADE) and not self._pieces:
            self._playing = False  # the sender paused: begin afresh with what comes next
            self._last = SILENCE
        if not loudness:
            return SILENCE
        return array("h", [int(sample * loudness) for sample in self._last])

    def _watch(self) -> None:
        self._asked += 1
        self._least = min(self._least, len(self._pieces))
        if self._asked < WINDOW:
            return
        if self._least >= self._target:
            self._shorten()
        self._least, self._asked = self._most, 0

    def _shorten(self) -> None:
        """Blend the next two pieces into one: 10 ms less delay and no click."""
        first, second = self._pieces.get(self._at), self._pieces.get(self._at + PIECE)
        if first is None or second is None:
            return
        del self._pieces[self._at]
        self._at += PIECE
        pairs = enumerate(zip(first, second, strict=True))
        mixed = [(old * (PIECE - place) + new * place) // PIECE for place, (old, new) in pairs]
        self._pieces[self._at] = array("h", mixed)
