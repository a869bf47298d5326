"""The command line of a server: what is wrong is a sentence that says what would be right."""

from __future__ import annotations

import pytest

from slee_mock.settings import SettingsError, parse_arguments


def test_without_arguments_it_is_the_readmes_server():
    settings = parse_arguments([])
    assert (settings.name, settings.listen, settings.forwarder) == ("server1", ("127.0.0.1", 5070), ("127.0.0.1", 5060))
    assert settings.users is None and settings.register == ()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen", "0.0.0.0:5070"], r"--listen: nothing can be sent to 0\.0\.0\.0; name one address, as in 127"),
        (["--listen", "[::]:5070"], "--listen: nothing can be sent to ::; name one address"),
        (["--forwarder", "0.0.0.0:5060"], "--forwarder: nothing can be sent to"),
        (["--forwarder", "127.0.0.1:0"], "--forwarder: nobody can be reached at port 0; name the one"),
        (["--forwarder", "127.0.0.1"], "--forwarder: '127.0.0.1' has no port"),
        (["--listen", "localhost:5070"], "--listen: 'localhost' is not an IP address"),
        (["--tariff", "free"], "--tariff: 'free' is not a tariff; write set-up fee"),
        (["--name", " "], "--name must be a printable name"),
        (["--users", "/nowhere/users"], "--users: cannot read /nowhere/users: No such file"),
        (["--beat", "soon"], "--beat: 'soon' is not a time"),
    ],
)
def test_each_fault_names_its_remedy(arguments, sentence):
    with pytest.raises(SettingsError, match=sentence):
        parse_arguments(arguments)


@pytest.mark.parametrize(("lines", "sentence"), [
    ("alice", "users:1: a line is user:password"),
    ("# ours\n\nalice:a\nalice:b", "users:4: there are two lines for alice; keep one"),
])  # fmt: skip
def test_the_line_of_a_faulty_user_is_named(tmp_path, lines, sentence):
    (tmp_path / "users").write_text(lines)
    with pytest.raises(SettingsError, match=sentence):
        parse_arguments(["--users", str(tmp_path / "users")])
