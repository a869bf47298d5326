"""The jitter buffer: packets in as they come, 20 ms out at every tick. Pure; its clock is the tick
that asks.

A packet may hold any length of sound (RFC 3551 4.2: 0 to 200 ms), so time is counted in samples.
Playing starts once the target is held. When the buffer runs dry it fades out and lets the delay
grow; when for two seconds it has never held less than it needs, 20 ms are blended into 10 until the
delay is short again. The same two rules follow a sender whose clock is faster or slower than ours.
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
        self._held: dict[
            int, array[int]
        ] = {}  # sound by its time in samples, wraps undone; no two overlap
        self._samples = 0  # in `_held`
        self._playing = False
        self._at = 0  # time of the next sample to play
        self._newest: int | None = None  # time of the newest packet, also after it was played
        self._last = SILENCE
        self._misses = 0
        self._least = self._most
        self._asked = 0

    @property
    def depth(self) -> int:
        """Whole pieces of 10 ms held."""
        return self._samples // PIECE

    def put(self, timestamp: int, samples: array[int]) -> None:
        """A packet's sound, its RTP timestamp unwrapped here. Sound that is too late or far ahead
        makes no mess."""
        if not samples:
            return
        time = self._newest = self._unwrap(timestamp)
        if self._held or self._playing:
            beginning = self._at if self._playing else min(self._held)
            # A jump of the sender's clock or a long pause: what is held belongs to the past.
            if abs(time - beginning) > self._most:
                self._restart()
        if self._playing and time < self._at:
            samples, time = samples[self._at - time :], self._at
            if not samples:
                return
        self._cut(time, time + len(samples))  # the same sound once more, perhaps cut elsewhere
        self._hold(time, samples)
        while self._samples > self._most:
            oldest = min(self._held)
            self._cut(oldest, oldest + self._samples - self._most)

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
        self._held.clear()
        self._samples = 0
        self._playing = False

    def _hold(self, time: int, samples: array[int]) -> None:
        self._held[time] = samples
        self._samples += len(samples)

    def _cut(self, start: int, end: int) -> list[tuple[int, array[int]]]:
        """Take what is held of this span out of the buffer, in order of time."""
        found = []
        for time in sorted(self._held):
            if time >= end:
                break
            samples = self._held[time]
            first, last = max(start - time, 0), min(end - time, len(samples))
            if first >= last:
                continue
            del self._held[time]
            self._samples -= len(samples)
            if first:
                self._hold(time, samples[:first])
            if last < len(samples):
                self._hold(time + last, samples[last:])
            found.append((time + first, samples[first:last]))
        return found

    def _begin(self) -> bool:
        newest = max(self._held, default=0)
        if not self._held or newest + len(self._held[newest]) - min(self._held) < self._target:
            return False
        self._at = min(self._held)
        self._playing = True
        self._misses, self._least, self._asked = 0, self._most, 0
        return True

    def _take(self) -> array[int] | None:
        """The next 20 ms as far as they have come, its holes filled with its own sound; None if
        nothing is there.

        A hole with sound behind it is lost. Without any, time stands still until it comes.
        """
        found = self._cut(self._at, self._at + BLOCK)
        if not found:
            if self._held:
                self._at += BLOCK
            return None
        start, block = self._at, array("h")
        for time, samples in found:
            block += _stretched(block or samples, time - start - len(block)) + samples
        self._at = start + (BLOCK if self._held else len(block))
        return block + _stretched(block, BLOCK - len(block))

    def _conceal(self) -> array[int]:
        self.concealed += 1
        loudness = FADE[self._misses] if self._misses < len(FADE) else 0.0
        self._misses += 1
        if self._misses > len(FADE) and not self._held:
            self._playing = False  # the sender paused: begin afresh with what comes next
            self._last = SILENCE
        if not loudness:
            return SILENCE
        return array("h", [int(sample * loudness) for sample in self._last])

    def _watch(self) -> None:
        self._asked += 1
        self._least = min(self._least, self._samples)
        if self._asked < WINDOW:
            return
        if self._least >= self._target:
            self._shorten()
        self._least, self._asked = self._most, 0

    def _shorten(self) -> None:
        """Blend the next 20 ms into 10: less delay and no click. Not where a packet is missing."""
        found = self._cut(self._at, self._at + 2 * PIECE)
        whole = array("h")
        for _, samples in found:
            whole += samples
        if len(whole) < 2 * PIECE:
            for time, samples in found:
                self._hold(time, samples)
            return
        self._at += PIECE
        pairs = enumerate(zip(whole[:PIECE], whole[PIECE:], strict=True))
        mixed = [(old * (PIECE - place) + new * place) // PIECE for place, (old, new) in pairs]
        self._hold(self._at, array("h", mixed))


def _stretched(samples: array[int], length: int) -> array[int]:
    """So many samples of this sound, its end first and repeated as often as it takes."""
    if length <= 0:
        return array("h")
    return (samples * (length // len(samples) + 1))[-length:]
