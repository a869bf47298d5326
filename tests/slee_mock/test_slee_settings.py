"""The command line of a server: what is wrong is a sentence that says what would be right."""

from __future__ import annotations

import pytest

from slee_mock.settings import SettingsError, parse_arguments
from slee_mock.store.open_store import store_name
from slee_mock.store.redis_url import RedisPlace


def test_without_arguments_it_is_the_readmes_server():
    settings = parse_arguments([])
    assert (settings.name, settings.listen, settings.forwarder) == (
        "server1",
        ("127.0.0.1", 5070),
        ("127.0.0.1", 5060),
    )
    assert settings.users is None and settings.register == ()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--listen", "0.0.0.0:5070"],
            r"--listen: nothing can be sent to 0\.0\.0\.0; name one address, as in 127",
        ),
        (["--listen", "[::]:5070"], "--listen: nothing can be sent to ::; name one address"),
        (["--forwarder", "0.0.0.0:5060"], "--forwarder: nothing can be sent to"),
        (
            ["--forwarder", "127.0.0.1:0"],
            "--forwarder: nobody can be reached at port 0; name the one",
        ),
        (["--forwarder", "127.0.0.1"], "--forwarder: '127.0.0.1' has no port"),
        (["--listen", "localhost:5070"], "--listen: 'localhost' is not an IP address"),
        (["--tariff", "free"], "--tariff: 'free' is not a tariff; write set-up fee"),
        (["--name", " "], "--name: it must be a printable name"),
        (["--users", "/nowhere/users"], "--users: cannot read /nowhere/users: No such file"),
        (["--digest", "MD4"], "--digest: 'MD4' is not one of MD5, SHA-256, as in"),
        *(
            (["--forwarder-page", url], "--forwarder-page: .* is not the URL of a page, as in http")
            for url in (
                "127.0.0.1:8060",
                "javascript:alert(1)",
                "http://",
                "http://x:y/",
                "http://a b/",
            )
        ),
        (["--beat", "soon"], "--beat: 'soon' is not a time"),
    ],
)
def test_each_fault_names_its_remedy(arguments, sentence):
    with pytest.raises(SettingsError, match=sentence):
        parse_arguments(arguments)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("alice", "users:1: a line is user:password"),
        ("# ours\n\nalice:a\nalice:b", "users:4: there are two lines for alice; keep one"),
    ],
)
def test_the_line_of_a_faulty_user_is_named(tmp_path, lines, sentence):
    (tmp_path / "users").write_text(lines)
    with pytest.raises(SettingsError, match=sentence):
        parse_arguments(["--users", str(tmp_path / "users")])


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (
            "http://127.0.0.1",
            "'http://' is not known here; write a file's name, redis://127.0.0.1:6379/0 or",
        ),
        (
            "redis://localhost:6379",
            "'localhost' is not an IP address in 'localhost:6379'; write it as in redis://127",
        ),
        ("redis://127.0.0.1", "'127.0.0.1' has no port"),
        ("redis://127.0.0.1:0/0", "nobody can be reached at port 0"),
        ("redis://127.0.0.1:6379/one", "'one' is not a database's number"),
        ("redis://bob:secret@127.0.0.1:6379", "a password stands alone here, behind a colon"),
        ("redis://127.0.0.1:6379,127.0.0.2:6379", "several addresses are those of Sentinels"),
        (
            "redis+sentinel://127.0.0.1:26379",
            "the master's name is missing; write it behind the Sentinels",
        ),
        (
            "redis+sentinel://:secret@127.0.0.1:26379,sentinel2:26379/m/0",
            "'sentinel2' is not an IP address",
        ),
    ],
)
def test_a_faulty_address_of_the_store_is_told_with_a_good_one_and_without_its_password(
    where, sentence
):
    with pytest.raises(SettingsError, match=f"--store: .*{sentence}") as told:
        parse_arguments(["--store", where])
    assert "secret" not in str(told.value)


def test_the_stores_address_is_shown_without_its_password():
    where = "redis+sentinel://:s%40cret@10.0.0.1:26379,[2001:db8::1]:26380/calls/2"
    settings = parse_arguments(["--store", where])
    assert settings.store == where and "cret" not in repr(settings)
    place = RedisPlace.parse(where)
    assert (place.password, place.master, place.db) == ("s@cret", "calls", 2)
    assert place.addresses == (("10.0.0.1", 26379), ("2001:db8::1", 26380))
    assert store_name(where) == "redis+sentinel://10.0.0.1:26379,[2001:db8::1]:26380/calls/2"


def test_a_file_from_an_editor_that_marks_its_texts_has_its_first_user_too(tmp_path):
    (tmp_path / "users").write_text("alice: a:b \n\n# ours\nbob:c", encoding="utf-8-sig")
    assert parse_arguments(["--users", str(tmp_path / "users")]).users == {
        "alice": " a:b ",
        "bob": "c",
    }
