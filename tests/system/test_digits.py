"""Numbers have ASCII digits wherever text of the network or of a file is read. int() and \\d take
those of all scripts, so that a port in Arabic digits would be one to us, and none to the program
behind us."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from prepaid import read_balances

from failover.config.settings import SettingsError, read
from plumbing.address import parse_address
from plumbing.http_request_parser import Authority
from sip.digest import Credentials
from sip.errors import RemoteProtocolError
from sip.header import CSeq
from sip.message import parse
from sip.sdp import SessionDescription
from sip.uri import Uri
from sip.via import Via
from slee_mock.services.tariff import Tariff
from slee_mock.store.redis_url import RedisPlace
from stage.observation.from_events import TARIFF

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = (
    "failover",
    "sip",
    "plumbing",
    "slee_mock",
    "softphone",
    "stage",
    "bootstrap",
    "forwarder.py",
    "demo.py",
)
ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")

NUMBERS = {
    "the port of a URI": (Uri.parse, "sip:bob@failover.test:", "5060", ""),
    "the port of a URI with an address": (Uri.parse, "sip:bob@[::1]:", "5060", ";lr"),
    "the version in a Via": (Via.parse, "SIP/", "2.0", "/UDP a.test;branch=z9hG4bK1"),
    "the port in a Via": (Via.parse, "SIP/2.0/UDP a.test:", "5060", ";branch=z9hG4bK1"),
    "a sent-by with blanks": (Via.parse, "SIP/2.0/UDP a.test : ", "5060", ";branch=z9hG4bK1"),
    "a CSeq": (CSeq.parse, "", "1", " INVITE"),
    "a status": (lambda text: parse(text.encode()), "SIP/2.0 ", "200", " OK\r\n\r\n"),
    "the port of a session description": (
        lambda text: SessionDescription.parse(text.encode()),
        "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio ",
        "4000",
        " RTP/AVP 0\r\n",
    ),
    "an address in a file": (parse_address, "192.0.2.1:", "5060", ""),
    "an address on the web": (lambda text: Authority.parse(text, "Host"), "localhost:", "8060", ""),
    "a server of the file": (lambda text: read(text, "test"), "server1=192.0.2.1:", "5060", ""),
    "a server without a name": (lambda text: read(text, "test"), "192.0.2.1:", "5060", ""),
    "a setting": (
        lambda text: read(text, "test"),
        "server1=192.0.2.1:5060\nlimit.rate=",
        "200",
        "",
    ),
    "a tariff's fee": (Tariff.parse, "", "0.10", "+0.05/10s"),
    "a tariff's unit": (Tariff.parse, "0.10+0.05/", "10", "s"),
    "a Redis' database": (RedisPlace.parse, "redis://127.0.0.1:6379/", "0", ""),
}


@pytest.mark.parametrize(
    "script", [ARABIC, WIDE, SUPERSCRIPT], ids=["Arabic", "wide", "superscript"]
)
@pytest.mark.parametrize("case", NUMBERS.values(), ids=list(NUMBERS))
def test_a_number_in_other_digits_is_none(case, script):
    read_it, before, number, after = case
    read_it(before + number + after)
    with pytest.raises((ValueError, SettingsError, RemoteProtocolError)) as refused:
        read_it(before + number.translate(script) + after)
    assert "invalid literal" not in str(refused.value), (
        "it is refused with a sentence of ours, not by int()"
    )


def test_a_balance_in_other_digits_is_none(tmp_path):
    file = tmp_path / "balances"
    file.write_text("alice:1.50\nbob:١.٥٠\n", encoding="utf-8")
    with pytest.raises(ValueError, match="balances:2: "):
        read_balances(str(file))


def test_a_number_of_five_thousand_digits_gets_a_sentence_that_is_short():
    for read_it, text in [
        (parse_address, "192.0.2.1:"),
        (RedisPlace.parse, "redis://127.0.0.1:6379/"),
    ]:
        with pytest.raises(ValueError, match="not a"):
            read_it(text + "1" * 5000)


def test_schemes_and_names_are_compared_as_ascii():
    for text in (
        "ſip:bob@failover.test",
        "ſips:bob@failover.test",
    ):  # the old long s, which lower() makes an s of
        with pytest.raises(RemoteProtocolError):
            Uri.parse(text)
    with pytest.raises(RemoteProtocolError, match="not a Via"):
        Via.parse("ſIP/2.0/UDP a.test;branch=z9hG4bK1")
    with pytest.raises(RemoteProtocolError, match="not Digest"):
        Credentials.parse('Dıgest\u2003username="a"')


@pytest.mark.parametrize("blank", ["\x1f", "\x85", "\xa0", "\u2003"])
def test_only_blanks_of_ascii_stand_between_the_parts_of_a_via(blank):
    for text in ("SIP/2.0/UDP{}a.test;branch=z9hG4bK1", "SIP/2.0/UDP a.test{};branch=z9hG4bK1"):
        with pytest.raises(RemoteProtocolError):
            Via.parse(text.format(blank))


def test_what_the_demo_reads_of_a_bill_has_ascii_digits():
    assert TARIFF.search("0.10 + 0.05 / 10 s") and not TARIFF.search("٠.١٠ + ٠.٠٥ / ١٠ s")


def product_files():
    for name in PRODUCT:
        path = ROOT / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def test_no_pattern_takes_digits_of_all_scripts():
    """In patterns for text, `\\d` stands beside re.ASCII, or it is written [0-9]. Those for octets
    know ASCII only."""
    for path in product_files():
        source = path.read_text(encoding="utf-8")
        for call in ast.walk(ast.parse(source)) if r"\d" in source else ():
            if not isinstance(call, ast.Call) or not ast.unparse(call.func).startswith("re."):
                continue
            text = " ".join(
                part.value
                for part in ast.walk(call)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            )
            flags = ast.unparse(call)
            assert not re.search(r"\\d", text) or "re.ASCII" in flags, (
                f"{path}, line {call.lineno}: {flags}"
            )
