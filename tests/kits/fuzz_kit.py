"""Broken input, seeded so that a failure can be repeated: noise, and real datagrams with a few
bytes changed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

SPICE = (
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"=",
    b'"',
    b"<",
    b">",
    b"[",
    b"]",
    b"@",
    b"%",
    b"\0",
    b"\xff",
    b"9" * 20,
)


def noise(count: int, longest: int, seed: int = 1) -> Iterator[bytes]:
    """`count` strings of random bytes, short ones more often than long ones."""
    dice = random.Random(seed)
    for _ in range(count):
        yield dice.randbytes(int(dice.triangular(0, longest, 0)))


def words(count: int, seed: int = 1) -> Iterator[str]:
    """`count` short texts: what properties files are made of, control characters, letters of all
    scripts."""
    dice = random.Random(seed)
    alphabet = "\\\\=: #!\t\n\r\f\0abu00e4" + "".join(map(chr, dice.sample(range(32, 0xD800), 60)))
    for _ in range(count):
        yield "".join(dice.choices(alphabet, k=dice.randrange(12)))


def broken(samples: Sequence[bytes], count: int, seed: int = 1) -> Iterator[bytes]:
    """`count` datagrams: one in ten is noise, the others are samples cut, spliced, repeated or
    spiced."""
    dice = random.Random(seed)
    for _ in range(count):
        if dice.random() < 0.1:
            yield dice.randbytes(dice.randrange(300))
            continue
        data = bytearray(dice.choice(samples))
        for _ in range(dice.randrange(1, 5)):
            at, width = dice.randrange(len(data) + 1), dice.randrange(12)
            change = dice.randrange(4)
            if change == 0:
                data[at : at + width] = b""
            elif change == 1:
                data[at:at] = dice.choice(SPICE)
            elif change == 2:
                data[at : at + width] = dice.randbytes(width)
            else:
                data[at:at] = data[at : at + 4 * width]
        yield bytes(data)
