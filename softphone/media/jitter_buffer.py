"""The jitter buffer: packets in as they come, 20 ms out at every tick. Pure; its clock is the tick
that asks.

A packet may hold any length of sound (RFC 3551 4.2: 0 to 200 ms), so time is counted in samples.
Playing starts once the target is held. When the buffer runs dry it fades out and lets the delay
grow; when for two seconds it has never held less than it needs, 20 ms are blended into 10 until the
delay is short again. The same two rules follow a sender whose clock is faster or slower than ours.

The buffer is one line of samples, None where no sound has come. Its last sample is always sound.
"""

from __future__ import annotations

from array import array

from softphone.media.g711 import BLOCK

PIECE = 80  # samples in 10 ms, the unit of `target`, `most` and `depth`
SILENCE = array("h", bytes(2 * BLOCK))
WINDOW = 100  # blocks over which the least depth is watched
FADE = (0.7, 0.4, 0.2)  # loudness of the repeats that hide a gap


class JitterBuffer:
    """`target`: pieces of 10 ms to hold before playing starts. Never holds more than `most`
    pieces."""

    def __init__(self, target: int = 4, most: int = 50) -> None:
        self.concealed = 0  # blocks
        self._target, self._most = target * PIECE, most * PIECE
        self._line: list[int | None] = []
        self._start = 0  # time of the line's first sample: while playing, of the next one to play
        self._playing = False
        self._newest: int | None = None  # time of the newest packet, also after it was played
        self._last = SILENCE
        self._misses = 0
        self._least = self._most
        self._asked = 0

    @property
    def depth(self) -> int:
        """Whole pieces of 10 ms held."""
        return self._held // PIECE

    @property
    def _held(self) -> int:
        return len(self._line) - self._line.count(None)

    def put(self, timestamp: int, samples: array[int]) -> None:
        """A packet's sound, its RTP timestamp unwrapped here. Sound that is too late or far ahead
        makes no mess."""
        if not samples:
            return
        time = self._newest = self._unwrap(timestamp)
        # A jump of the sender's clock or a long pause: what is held belongs to the past.
        if abs(time - self._start) > self._most:
            self._restart()
        if self._playing and time < self._start:
            samples, time = samples[self._start - time :], self._start
        elif not self._line and not self._playing:
            self._start = time
        elif time < self._start:
            self._line[:0] = [None] * (self._start - time)
            self._start = time
        first = time - self._start
        last = first + len(samples)
        self._line += [None] * (last - len(self._line))
        self._line[first:last] = samples
        excess = max(len(self._line) - self._most, 0)
        del self._line[:excess]
        self._start += excess

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
        self._line.clear()
        self._playing = False

    def _begin(self) -> bool:
        if len(self._line) < self._target:
            return False
        self._playing = True
        self._misses, self._least, self._asked = 0, self._most, 0
        return True

    def _take(self) -> array[int] | None:
        """The next 20 ms as far as they have come, their holes filled with the sound of 20 ms
        before; None if nothing is there.

        A hole with sound behind it is lost. Without any, time stands still until it comes.
        """
        block = self._line[:BLOCK]
        del self._line[:BLOCK]
        self._start += BLOCK if self._line else len(block)
        if block.count(None) == len(block):
            return None
        block += [None] * (BLOCK - len(block))
        both = zip(block, self._last, strict=True)
        return array("h", [before if sample is None else sample for sample, before in both])

    def _conceal(self) -> array[int]:
        self.concealed += 1
        loudness = FADE[self._misses] if self._misses < len(FADE) else 0.0
        self._misses += 1
        if self._misses > len(FADE) and not self._line:
            self._playing = False  # the sender paused: begin afresh with what comes next
            self._last = SILENCE
        if not loudness:
            return SILENCE
        return array("h", [int(sample * loudness) for sample in self._last])

    def _watch(self) -> None:
        self._asked += 1
        self._least = min(self._least, self._held)
        if self._asked < WINDOW:
            return
        if self._least >= self._target:
            self._shorten()
        self._least, self._asked = self._most, 0

    def _shorten(self) -> None:
        """Blend the next 20 ms into 10: less delay and no click. Not where a packet is missing."""
        whole = [sample for sample in self._line[: 2 * PIECE] if sample is not None]
        if len(whole) < 2 * PIECE:
            return
        pairs = enumerate(zip(whole[:PIECE], whole[PIECE:], strict=True))
        mixed = [(old * (PIECE - place) + new * place) // PIECE for place, (old, new) in pairs]
        self._line[: 2 * PIECE] = mixed
        self._start += PIECE
