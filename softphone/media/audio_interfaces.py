"""The interfaces of audio: sources, sinks, and a sink that discards. Blocks are array('h'), 8,000
samples a second, one channel.

Both are called from the media thread every 20 ms and must return at once.
"""

from __future__ import annotations

from array import array
from typing import Protocol


class AudioSource(Protocol):
    def read(self, samples: int) -> array[int]:
        """The next `samples` samples; fewer (or none) where there is no sound."""


class AudioSink(Protocol):
    def write(self, samples: array[int]) -> None:
        """Play these after those before."""


class NullSink:
    """Hears nothing."""

    def write(self, samples: array[int]) -> None:
        pass


class SwitchedSink:
    """Passes sound on to another sink while `on`."""

    def __init__(self, sink: AudioSink, on: bool = False) -> None:
        self._sink, self.on = sink, on

    def write(self, samples: array[int]) -> None:
        if self.on:
            self._sink.write(samples)
