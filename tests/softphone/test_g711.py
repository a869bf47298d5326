"""G.711 against the values of the ITU's own tables, and there and back again."""

from array import array

import pytest

from softphone.media.g711 import BLOCK, CODECS, PCMA, PCMU

# ITU-T G.711 table 2: decoder output (14-bit scale) of each segment's first code and of the
# extremes.
U_LAW = {
    0x80: 8031,
    0x8F: 4191,
    0x9F: 2079,
    0xAF: 1023,
    0xBF: 495,
    0xCF: 231,
    0xDF: 99,
    0xEF: 33,
    0xFE: 2,
    0xFF: 0,
}
# ITU-T G.711 table 1: the same of A-law (13-bit scale), before every second bit is turned over.
A_LAW = {0xFF: 4032, 0xF0: 2112, 0xE0: 1056, 0xD0: 528, 0xC0: 264, 0xB0: 132, 0xA0: 66, 0x80: 1}


@pytest.mark.parametrize(("code", "value"), U_LAW.items())
def test_u_law_codes_have_the_itus_values(code, value):
    assert PCMU.decode(bytes([code, code ^ 0x80])).tolist() == [value * 4, -value * 4]


@pytest.mark.parametrize(("code", "value"), A_LAW.items())
def test_a_law_codes_have_the_itus_values(code, value):
    line = code ^ 0x55
    assert PCMA.decode(bytes([line, line ^ 0x80])).tolist() == [value * 8, -value * 8]


@pytest.mark.parametrize(
    ("codec", "milliwatt"),
    [(PCMU, "1E0B0B1E9E8B8B9E"), (PCMA, "34212134B4A1A1B4")],
    ids=["PCMU", "PCMA"],
)
def test_the_digital_milliwatt_is_a_thousand_hertz_sine(codec, milliwatt):
    samples = codec.decode(bytes.fromhex(milliwatt))
    low, high = abs(samples[0]), abs(samples[1])
    assert samples.tolist() == [-low, -high, -high, -low, low, high, high, low]
    assert high / low == pytest.approx(2.414, rel=0.03)  # sin 67.5 degrees to sin 22.5
    assert codec.encode(samples).hex().upper() == milliwatt


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_code_comes_back_as_itself(codec):
    codes = bytes(range(256))
    again = codec.encode(codec.decode(codes))
    differing = [code for code in codes if again[code] != code]
    assert differing == ([0x7F] if codec is PCMU else [])  # u-law has two zeros, samples only one


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_no_sample_comes_back_further_away_than_half_a_step(codec):
    samples = array("h", range(-32768, 32768))
    for sample, back in zip(samples, codec.decode(codec.encode(samples)), strict=True):
        room = 644 if abs(sample) > 32000 else max((abs(sample) + 132) / 32, 8)
        assert abs(back - sample) <= room, sample


@pytest.mark.parametrize(("codec", "silence"), [(PCMU, 0xFF), (PCMA, 0xD5)], ids=["PCMU", "PCMA"])
def test_silence_has_its_well_known_byte(codec, silence):
    assert codec.encode(array("h", bytes(2 * BLOCK))) == bytes([silence]) * BLOCK
