"""What callers may name: whatever is let through is one word, or one location, in nginx's configuration."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalarizr.errors import InvalidParameter
from scalarizr.nginx import names
from scalarizr.nginx.syntax import parse

unhurried = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
TRICKS = [
    ";",
    "{",
    "}",
    "#",
    '"',
    "'",
    "\\",
    "\n",
    "\r",
    "\t",
    " ",
    "$",
    "|",
    "~",
    "^",
    "(",
    ")",
    "*",
    "\x00",
    "…",
]
ANY = st.text(st.sampled_from([*"abAB019.-_/:[]%=@", *TRICKS]) | st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.from_regex(r"(\*\.|\.)?[a-zA-Z0-9_-]{1,9}(\.[a-z0-9-]{1,6}){0,3}(\.\*)?", fullmatch=True)
LOCATIONS = st.builds(
    lambda modifier, rest: modifier + rest,
    st.sampled_from(["", "= ", "^~ ", "~ ", "~* ", "~  "]),
    st.from_regex(r"/[a-z0-9/._~!$&()*+,=:@%-]{0,12}", fullmatch=True) | ANY,
)
ADDRESSES = st.one_of(
    st.ip_addresses().map(str),
    st.builds("{}:{}".format, st.ip_addresses(v=4), st.integers(0, 70000)),
    st.builds("[{}]:{}".format, st.ip_addresses(v=6), st.integers(0, 70000)),
    NAMES,
    st.from_regex(r"unix:/[A-Za-z0-9._/@+-]{0,30}", fullmatch=True),
)


def accepted(check: object, text: str) -> object:
    try:
        return check(text, "x")  # type: ignore[operator]
    except InvalidParameter as error:
        assert error.facts["parameter"] == "x"
        assert len(error.facts["got"]) < 200
        return None


@unhurried
@given(NAMES | ANY)
def test_a_name_is_one_word(text: str) -> None:
    name = accepted(names.server_name, text)
    if name is not None:
        (one,) = parse(f"server_name {name};")
        assert one.words == ["server_name", name] and not one.is_block


@unhurried
@given(LOCATIONS | ANY)
def test_a_location_is_one_block(text: str) -> None:
    location = accepted(names.location, text)
    if location is not None:
        (one,) = parse(f"location {location} {{ return 204; }}")
        modifier, _, rest = text.strip().partition(" ")
        expected = [modifier, rest.strip()] if modifier in ("=", "^~", "~", "~*") and rest else [text.strip()]
        assert one.words == ["location", *expected] and one.is_block
        assert [child.words for child in one.children] == [["return", "204"]]


@unhurried
@given(ADDRESSES | ANY)
def test_an_address_is_one_word_with_its_port(text: str) -> None:
    found = accepted(names.address, text)
    if found is not None:
        host, port = found  # type: ignore[misc]
        word = host if port is None else f"{host}:{port}"
        (one,) = parse(f"server {word} weight=1;")
        assert one.words == ["server", word, "weight=1"]
        assert port is None or 1 <= port <= 65535
        # What was understood is understood the same again.
        assert names.address(word, "x") == (host, port)


@unhurried
@given(NAMES, LOCATIONS | ANY, st.lists(st.from_regex(r"[A-Za-z0-9.-]{1,8}", fullmatch=True), max_size=3))
def test_an_upstream_s_name_is_one_word_that_nginx_can_be_asked_for(text: str, where: str, roles: list[str]) -> None:
    hostname, location = accepted(names.server_name, text), accepted(names.location, where)
    if hostname is None or location is None:
        return
    for hashed in (True, False):
        name = names.upstream_name(names.upstream_base(str(hostname), hashed=hashed), str(location), roles)
        assert parse(f"proxy_pass http://{name};")[0].words == ["proxy_pass", f"http://{name}"]
        assert parse(f"upstream {name} {{}}")[0].words == ["upstream", name]


def test_two_locations_never_share_an_upstream() -> None:
    locations = ["/", "/a", "/a/", "/a/b", "~ ^/a", "~ ^/b", "~* ^/a", "= /a", "^~ /a", "~ ^/(a|b)", "~ ^/(a b)"]
    written = [names.location(one, "x") for one in locations]
    made = {one: names.upstream_name("base", one, []) for one in written if one != "/a/"}
    assert len(set(made.values())) == len(made)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("WWW.Example.COM", "www.example.com"),
        ("*.example.com", "*.example.com"),
        (".example.com", ".example.com"),
        ("www.example.*", "www.example.*"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("_", "_"),
        ("a_b.example.com", "a_b.example.com"),
    ],
)
def test_names_of_all_kinds(text: str, expected: str) -> None:
    assert names.server_name(text, "hostname") == expected


@pytest.mark.parametrize(
    "text", ["", "~^www", "a b", "a..b", "-a.b", "a;b", "*", "www.*.com", "a." + "b" * 64, "a." * 130]
)
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(InvalidParameter):
        names.server_name(text, "hostname")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.11", ("10.0.0.11", None)),
        ("10.0.0.11:8080", ("10.0.0.11", 8080)),
        ("fd00::1", ("[fd00::1]", None)),
        ("[fd00:0::1]:80", ("[fd00::1]", 80)),
        ("App.internal:81", ("app.internal", 81)),
        ("unix:/run/app.sock", ("unix:/run/app.sock", None)),
    ],
)
def test_addresses_of_all_kinds(text: str, expected: tuple[str, int | None]) -> None:
    assert names.address(text, "host") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.256",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "[::1",
        "fe80::1%eth0",
        "a b",
        "unix:",
        "unix:/a/../b",
        "a:b:c",
        "1.2.3",
        "0x7f.1",
        "0x7f000001",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InvalidParameter):
        names.address(text, "host")


@pytest.mark.nginx
def test_nginx_itself_takes_what_is_let_through(tmp_path: Path) -> None:
    texts = [
        "/",
        "/a,b",
        "/a%20b",
        "/$uri",
        "= /x",
        "^~ /(a)",
        "~ ^/(a|b){2}$",
        r"~* \.(jpg|png)$",
        '~ "a b"',
        "~ a;b",
        "~ }",
    ]
    written = [names.location(text, "x") for text in texts]
    hosts = [
        names.server_name(text, "x") for text in ("*.example.com", ".a-b.c_d", "www.example.*", "bücher.example", "_")
    ]
    servers = [names.address(text, "x") for text in ("10.0.0.1:81", "fd00::1", "[::1]:82", "unix:/run/a@b.sock")]
    upstream = "".join(f"server {host if port is None else f'{host}:{port}'};\n" for host, port in servers)
    locations = "".join(f"location {text} {{ return 204; }}\n" for text in written)
    (tmp_path / "nginx.conf").write_text(
        "pid nginx.pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"
        f"upstream {names.upstream_name('base', written[6], ['1'])} {{\n{upstream}}}\n"
        f"server {{\nlisten unix:{tmp_path}/s;\nserver_name {' '.join(hosts)};\n{locations}}}\n}}\n"
    )
    program = shutil.which("nginx")
    assert program is not None
    command = [program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-t", "-q"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
