"""The table of settings, the list of servers, and what an operator reads when the file is wrong."""

import random
from pathlib import Path

import pytest

from failover.config.properties import parse
from failover.config.settings import SETTINGS, ServerLine, SettingsError, differences, read

SAMPLE = Path(__file__).parents[2] / "servers.properties"
ONE = "server1=10.0.0.1:5060\n"


def servers(text, **options):
    return [(line.name, line.address) for line in read(text, "f", **options).servers]


def faults(text, **options):
    with pytest.raises(SettingsError) as caught:
        read(text, "servers.properties", **options)
    return str(caught.value).split("\n")


def test_servers_properties_shows_every_setting_at_its_default_with_a_sentence_above():
    text = SAMPLE.read_text(encoding="utf-8")
    lines = text.split("\n")
    shown = {entry.key: entry for entry in parse(text)[0] if "." in entry.key}
    assert list(shown) == [setting.key for setting in SETTINGS]
    for setting in SETTINGS:
        assert shown[setting.key].value == setting.default
        sentence = lines[shown[setting.key].line - 2]
        assert sentence.startswith("# ") and sentence.endswith("."), setting.key


def test_the_sample_file_is_good_and_keeps_the_document_s_promise():
    settings = read(SAMPLE.read_text(encoding="utf-8"), "servers.properties")
    assert settings.servers == (
        ServerLine("server1", ("127.0.0.1", 5070)),
        ServerLine("server2", ("127.0.0.1", 5080)),
    )
    assert settings.listen == ("0.0.0.0", 5060)
    assert settings.promise == "a killed server is noticed at once, a hung one within 0.2 s"


def test_the_pages_of_servers_are_urls_by_name_and_nothing_that_could_run_in_a_browser():
    links = "server1 http://10.0.0.1:8071/, 10-0-0-2  https://[::1]/x?y=1"
    assert read(f"{ONE}admin.links={links}", "f").links == {
        "server1": "http://10.0.0.1:8071/",
        "10-0-0-2": "https://[::1]/x?y=1",
    }
    for wrong in ("server1", "http://10.0.0.1/", "server1 javascript:alert(1)", "a b http://c/"):
        assert faults(f"{ONE}admin.links={wrong}")[0].startswith(
            f"servers.properties:2: admin.links: '{wrong}' is not a server and its page; write"
        )
    old, new = read(ONE, "f"), read(f"{ONE}admin.links=a http://b/", "f")
    assert differences(old, new) == ["admin.links nothing -> a http://b/"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("server1=10.0.0.1:5060", [("server1", ("10.0.0.1", 5060))]),
        ("server1 = 10.0.0.1 : 5060", [("server1", ("10.0.0.1", 5060))]),
        ("server1: 10.0.0.1:5060", [("server1", ("10.0.0.1", 5060))]),
        ("10.0.0.1:5060", [("10.0.0.1:5060", ("10.0.0.1", 5060))]),
        ("10.0.0.1 : 5060", [("10.0.0.1:5060", ("10.0.0.1", 5060))]),
        ("10.0.0.1\\:5060", None),
        ("[::1]:5070", [("[::1]:5070", ("::1", 5070))]),
        ("[::1] : 5070", [("[::1]:5070", ("::1", 5070))]),
        ("server1=[2001:db8:0::1]:5070", [("server1", ("2001:db8::1", 5070))]),
        (
            "b=10.0.0.2:5060\na=10.0.0.1:5060\n10.0.0.3:5060",
            [
                ("b", ("10.0.0.2", 5060)),
                ("a", ("10.0.0.1", 5060)),
                ("10.0.0.3:5060", ("10.0.0.3", 5060)),
            ],
        ),
        (
            "127.0.0.1:5070\n127.0.0.1:5080",
            [("127.0.0.1:5070", ("127.0.0.1", 5070)), ("127.0.0.1:5080", ("127.0.0.1", 5080))],
        ),
    ],
)
def test_server_lines_in_every_form_of_the_document(text, expected):
    if expected is None:
        faults(text)
    else:
        listen = "forwarder.listen=[::]:5060" if "[" in text else ""
        assert servers(f"{text}\n{listen}") == expected


def test_names_of_computers_are_looked_up_when_the_file_is_read():
    known = {"alpha.example": "10.0.0.1", "beta": "10.0.0.2"}

    def resolve(host, ipv6):
        if host not in known:
            raise ValueError(f"no address is known for '{host}'")
        return known[host]

    assert servers("alpha.example:5060\nserver2=beta:5062", resolve=resolve) == [
        ("alpha.example:5060", ("10.0.0.1", 5060)),
        ("server2", ("10.0.0.2", 5062)),
    ]
    assert faults("gamma : 5060", resolve=resolve) == [
        "servers.properties:1: no address is known for 'gamma'"
    ]


def test_a_name_is_looked_up_in_the_family_that_the_forwarder_listens_in():
    asked = []

    def resolve(host, ipv6):
        asked.append((host, ipv6))
        return "2001:db8::1" if ipv6 else "10.0.0.1"

    assert servers("alpha:5070\nforwarder.listen=[::]:5060", resolve=resolve) == [
        ("alpha:5070", ("2001:db8::1", 5070))
    ]
    assert servers("alpha:5070", resolve=resolve) == [("alpha:5070", ("10.0.0.1", 5070))]
    assert asked == [("alpha", True), ("alpha", False)]


def test_a_server_at_any_address_of_this_computer_is_the_forwarder_itself_if_that_listens_on_all():
    own = {"192.0.2.1"}.__contains__
    said = ["servers.properties:1: me is the forwarder's own address 0.0.0.0:5060"]
    assert faults("me=192.0.2.1:5060", here=own) == said
    assert servers("other=192.0.2.1:5070", here=own) and servers("other=192.0.2.2:5060", here=own)
    behind_nat = (
        "me=203.0.113.9:5060\nforwarder.listen=10.0.0.1:5060\nforwarder.advertise=203.0.113.9"
    )
    assert faults(behind_nat) == [
        "servers.properties:1: me is the forwarder's own address 10.0.0.1:5060"
    ]


@pytest.mark.parametrize(
    "line, fault",
    [
        (
            "hartbeat.interval=0.1",
            "unknown key 'hartbeat.interval' (did you mean 'heartbeat.interval'?)",
        ),
        ("heartbeat.fal : 4", "unknown key 'heartbeat.fal' (did you mean 'heartbeat.fall'?)"),
        ("colour.scheme=dark", "unknown key 'colour.scheme'"),
        ("heartbeat.fall=three", "heartbeat.fall: 'three' is not a whole number from 1 to 100"),
        ("heartbeat.fall=0", "heartbeat.fall: '0' is not a whole number from 1 to 100"),
        (
            "heartbeat.interval=1e-3",
            "heartbeat.interval: '1e-3' is not a time in seconds from 0.005 to 60",
        ),
        (
            "heartbeat.interval=0.001",
            "heartbeat.interval: '0.001' is not a time in seconds from 0.005 to 60",
        ),
        (
            "forwarder.policy=random",
            "forwarder.policy: 'random' is not a policy; it is either first-live or call-id",
        ),
        ("forwarder.convergence=", "forwarder.convergence: '' is not the name of a header"),
        (
            "forwarder.convergence=X Session",
            "forwarder.convergence: 'X Session' is not the name of a header",
        ),
        (
            "forwarder.convergence=v",
            "forwarder.convergence: Via names a message, not a session; Call-ID, From, To or "
            "a header of your own may do",
        ),
        ("forwarder.secret.file=a\\u0000b", "forwarder.secret.file: not the name of a file"),
        (
            "forwarder.listen=localhost:5060",
            "forwarder.listen: 'localhost' is not an IP address in 'localhost:5060'",
        ),
        (
            "forwarder.listen=0.0.0.0:0",
            "forwarder.listen: port 0 would be a different port at every start; phones need to "
            "know it",
        ),
        ("server2=10.0.0.2", "server2: '10.0.0.2' has no port; write 10.0.0.2:PORT"),
        (
            "server2=10.0.0.2:70000",
            "server2: '70000' is not a port in '10.0.0.2:70000' (0 to 65535)",
        ),
        ("10.0.0.2:70000", "'70000' is not a port in '10.0.0.2:70000' (0 to 65535)"),
        ("server2=10.0.0.2:0", "server2: a server cannot have port 0"),
        (
            "server2=::1:5060",
            "server2: '::1:5060' is not host:port; IPv6 goes in brackets, as in [::1]:5060",
        ),
        ("server2=10.0.0.1:5060", "10.0.0.1:5060 is on line 1 already, as server1"),
        ("server1=10.0.0.9:5060", "'server1' is on line 1 already"),
        (
            "phones=10.0.0.9:5060",
            "'phones' is the name of the phones' side; give the server another",
        ),
        ("server2=127.0.0.1:5060", "server2 is the forwarder's own address 0.0.0.0:5060"),
        ("127.0.0.5:5060", "127.0.0.5:5060 is the forwarder's own address 0.0.0.0:5060"),
        (
            "server2=[::1]:5070",
            "server2 has an IPv6 address and forwarder.listen=0.0.0.0:5060 is IPv4: one forwarder "
            "speaks one of them; "
            "listen on [::]:5060, or run a second forwarder",
        ),
        ("limit.rate=many", "limit.rate: 'many' is not a whole number from 0 to 999999"),
        (
            "limit.exempt=10.0.0.1/8",
            "limit.exempt: '10.0.0.1/8' has bits beyond its length; write 10.0.0.0/8 or 192.0.2.7, "
            "for example",
        ),
        (
            "registration.listen=127.0.0.1:5060",
            "registration.listen needs a port other than forwarder.listen's",
        ),
        (
            "registration.listen=127.0.0.1:0",
            "registration.listen: port 0 would be a different port at every start; servers need to "
            "know it",
        ),
        (
            "registration.allow=10.0.0.1/8",
            "registration.allow: '10.0.0.1/8' has bits beyond its length; write 10.0.0.0/8 or "
            "192.0.2.7, for example",
        ),
        ("registration.foreign=maybe", "registration.foreign: 'maybe' is neither yes nor no"),
        (
            "registration.timeout=0",
            "registration.timeout: '0' is not a time in seconds from 0.5 to 3600",
        ),
        ("server2=\\u12", "'\\u12' is not a character: \\u takes four hexadecimal digits"),
    ],
)
def test_a_fault_says_where_and_what(line, fault):
    assert faults(ONE + line) == [f"servers.properties:2: {fault}"]


def test_all_faults_are_shown_at_once_in_the_order_of_the_lines():
    said = faults(
        "server1=10.0.0.1\nheartbeat.rise=x\n# fine\nhartbeat.interval=1\nheartbeat.rise=2\n\\u1"
    )
    assert [line.split(":")[1] for line in said] == ["1", "2", "4", "5", "6"]


def test_a_file_without_servers_is_told_how_to_name_one():
    remedy = (
        "add a line such as server1=127.0.0.1:5070, or registration.listen for servers to come to"
    )
    assert faults("# nothing yet") == [f"servers.properties: no server; {remedy}"]
    assert servers("registration.listen=127.0.0.1:5065") == []


def test_advertise_takes_the_listen_port_unless_it_names_one():
    assert read(ONE + "forwarder.advertise=203.0.113.5", "f").advertise == ("203.0.113.5", 5060)
    assert read(ONE + "forwarder.advertise=sip.example:5080", "f").advertise == (
        "sip.example",
        5080,
    )
    assert read(ONE, "f").advertise is None


def test_the_header_that_names_a_session_may_be_written_short_or_in_any_case():
    assert read(ONE, "f").convergence == "Call-ID"
    assert read(ONE + "forwarder.convergence=i", "f").convergence == "Call-ID"
    assert read(ONE + "forwarder.convergence=x-SESSION", "f").convergence == "X-Session"


def test_an_empty_admin_listen_turns_the_pages_off():
    assert read(ONE + "admin.listen=", "f").admin is None


def test_differences_are_said_as_an_operator_would():
    old = read("a=10.0.0.1:5060\nb=10.0.0.2:5060", "f")
    new = read("b=10.0.0.2:5060\nc=10.0.0.3:5060\nheartbeat.fall=4\nforwarder.secret.file=", "f")
    assert differences(old, new) == [
        "- a 10.0.0.1:5060",
        "+ c 10.0.0.3:5060",
        "forwarder.secret.file forwarder.secret -> nothing",
        "heartbeat.fall 3 -> 4",
    ]
    assert differences(old, read("b=10.0.0.2:5060\na=10.0.0.1:5060", "f")) == ["order b, a"]
    assert differences(old, old) == []
    assert differences(read(ONE, "f"), read(f"{ONE}10.0.0.2:5060", "f")) == ["+ 10.0.0.2:5060"]
    new = read(
        f"{ONE}forwarder.path=yes\nforwarder.names=sip.example.com, [2001:db8::1]:5060\n"
        "heartbeat.interval=2\npassive.seconds=2.5\nforwarder.secret.file=s.0\nlimit.exempt=\nadmin.listen=",
        "f",
    )
    assert differences(read(ONE, "f"), new) == [
        "forwarder.names nothing -> sip.example.com, [2001:db8::1]:5060",
        "forwarder.path no -> yes",
        "forwarder.secret.file forwarder.secret -> s.0",
        "heartbeat.interval 0.05 -> 2",
        "passive.seconds 3 -> 2.5",
        "limit.exempt 127.0.0.0/8, ::1/128 -> nothing",
        "admin.listen 127.0.0.1:8060 -> nothing",
    ]


SCRAPS = [
    *(setting.key for setting in SETTINGS),
    *("server1", "10.0.0.1", "[::1]", "x.y", "5060", "10.0.0.2:5060", "0.1"),
    *("=", ":", " ", "\n", "\\", "\\u", "ä", "\0"),
]


@pytest.mark.parametrize("seed", range(300))
def test_any_file_gives_settings_or_located_faults(seed):
    dice = random.Random(seed)
    text = "".join(dice.choices(SCRAPS, k=dice.randrange(31)))
    try:
        assert read(text, "f").servers
    except SettingsError as error:
        assert error.faults and all(fault.text for fault in error.faults)
