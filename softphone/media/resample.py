"""Between a sound device's samples and the telephone's 8,000 mono ones: rate, channels, sample
type. Pure."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from softphone.media.g711 import RATE

# by type code of an array: what one step of 16 bits is there
STEPS = {"i": 65536.0, "f": 1 / 32767}


class Resampler:
    """Downwards by averaging, upwards by straight lines: enough for speech in the telephone's 3.4
    kHz."""

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self._in, self._out = rate_in, rate_out
        self._fraction = 0  # of an input sample, in parts of the output rate
        self._rest: array[int] = array("h")
        self._before = 0

    def convert(self, samples: array[int]) -> array[int]:
        """All the output these samples complete; what is left over counts for the next call."""
        if self._in == self._out:
            return samples
        return (
            self._downwards(self._rest + samples)
            if self._in > self._out
            else self._upwards(samples)
        )

    def _downwards(self, samples: array[int]) -> array[int]:
        result: array[int] = array("h")
        start = 0
        while True:
            step, fraction = divmod(self._fraction + self._in, self._out)
            if start + step > len(samples):
                self._rest = samples[start:]
                return result
            result.append(sum(samples[start : start + step]) // step)
            start += step
            self._fraction = fraction

    def _upwards(self, samples: array[int]) -> array[int]:
        result: array[int] = array("h")
        before, fraction = self._before, self._fraction
        for sample in samples:
            while fraction < self._out:
                result.append(before + (sample - before) * fraction // self._out)
                fraction += self._in
            fraction -= self._out
            before = sample
        self._before, self._fraction = before, fraction
        return result


@dataclass(frozen=True)
class PcmFormat:
    """A device's samples: `kind` is the array type code h (16 bit), i (32 bit) or f (float), in
    native byte order."""

    rate: int
    channels: int
    kind: str = "h"

    def block_bytes(self, samples: int) -> int:
        """Bytes that so many samples of the telephone become, rounded up."""
        return -(-samples * self.rate // RATE) * self.channels * array(self.kind).itemsize


class FromDevice:
    """Bytes of a microphone to samples of the telephone."""

    def __init__(self, form: PcmFormat) -> None:
        self._form = form
        self._resampler = Resampler(form.rate, RATE)
        self._rest = b""

    def convert(self, data: bytes) -> array[int]:
        data = self._rest + data
        whole = len(data) - len(data) % (array(self._form.kind).itemsize * self._form.channels)
        self._rest = data[whole:]
        return self._resampler.convert(self._mono(_to_16_bit(data[:whole], self._form.kind)))

    def _mono(self, samples: array[int]) -> array[int]:
        channels = self._form.channels
        if channels == 1:
            return samples
        frames = zip(*(samples[channel::channels] for channel in range(channels)), strict=True)
        return array("h", [sum(frame) // channels for frame in frames])


class ToDevice:
    """Samples of the telephone to bytes for a loudspeaker."""

    def __init__(self, form: PcmFormat) -> None:
        self._form = form
        self._resampler = Resampler(RATE, form.rate)

    def convert(self, samples: array[int]) -> bytes:
        mono = self._resampler.convert(samples)
        spread: array[int] = array("h", bytes(2 * len(mono) * self._form.channels))
        for channel in range(self._form.channels):
            spread[channel :: self._form.channels] = mono
        return _from_16_bit(spread, self._form.kind)


def _to_16_bit(data: bytes, kind: str) -> array[int]:
    if kind == "h":
        return array("h", data)
    step = STEPS[kind]
    inside = (min(32767 * step, max(-32768 * step, value)) for value in array(kind, data))
    return array("h", [round(value / step) for value in inside])


def _from_16_bit(samples: array[int], kind: str) -> bytes:
    if kind == "h":
        return samples.tobytes()
    if kind == "i":
        return array("i", [sample << 16 for sample in samples]).tobytes()
    return array("f", [sample * STEPS["f"] for sample in samples]).tobytes()
