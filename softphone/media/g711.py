"""G.711, the two codecs every phone speaks: 16-bit samples to bytes and back, 8,000 a second.

Tables are built once from the segments of ITU-T G.711 (tables 1 and 2), with the sign handled as in
G.191: the complement of a sample has the complement of its sign and the same magnitude. (audioop
left Python with 3.13.)
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

RATE = 8000
BLOCK = 160  # samples in 20 ms


def _u_law() -> tuple[bytes, list[int]]:
    # Eight segments of sixteen steps, each twice as wide as the last; zero has half a step on each
    # side of it.
    magnitudes = b"".join(bytes([code]) * (8 << (code >> 4)) for code in range(128))[4:]
    positive = bytes(0xFF ^ code for code in magnitudes.ljust(32768, b"\x7f"))
    levels = [((2 * (code & 15) + 33) << (code >> 4)) * 4 - 132 for code in range(128)]
    return positive, [
        -levels[127 - code] if code < 128 else levels[255 - code] for code in range(256)
    ]


def _a_law() -> tuple[bytes, list[int]]:
    # The first two segments have equal steps; every second bit is turned over on the line (G.711,
    # note 2 of table 1).
    magnitudes = b"".join(bytes([code]) * (16 << max((code >> 4) - 1, 0)) for code in range(128))
    positive = bytes(code ^ 0xD5 for code in magnitudes)
    levels: list[int] = []
    for code in range(256):
        step, segment = (code ^ 0x55) & 15, (code ^ 0x55) >> 4 & 7
        level = (2 * step + 1) * 8 if segment == 0 else (2 * step + 33) * 8 << (segment - 1)
        levels.append(level if code & 0x80 else -level)
    return positive, levels


@dataclass(frozen=True)
class Codec:
    """One law: `encode` and `decode` whole blocks; `payload_type` is its static number (RFC 3551
    table 4)."""

    name: str
    payload_type: int
    table: bytes = field(repr=False)  # code of each sample, indexed by its 16 bits
    levels: list[int] = field(repr=False)  # sample of each code

    def encode(self, samples: array[int]) -> bytes:
        return bytes(map(self.table.__getitem__, memoryview(samples).cast("B").cast("H")))

    def decode(self, payload: bytes) -> array[int]:
        return array("h", map(self.levels.__getitem__, payload))


def _codec(name: str, payload_type: int, positive: bytes, levels: list[int]) -> Codec:
    negative = bytes(code ^ 0x80 for code in reversed(positive))
    return Codec(name, payload_type, positive + negative, levels)


PCMU = _codec("PCMU", 0, *_u_law())
PCMA = _codec("PCMA", 8, *_a_law())
CODECS = {codec.name: codec for codec in (PCMU, PCMA)}
