"""Servers that join and leave an upstream: a line comes or goes, the rest stays."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalarizr.nginx.document import Block, make_block
from scalarizr.nginx.parameters import Server, ServerOptions, read_server
from scalarizr.nginx.upstreams import merged, options_for, roles_of, with_server, without_server

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ADDRESS = st.builds("10.0.0.{}{}".format, st.integers(1, 3), st.sampled_from(["", ":80", ":81"]))

HAND_WRITTEN = """\
# mine
upstream a {
    # role 12 port=81 weight=2
    least_conn;
    server 10.0.0.1:81 weight=2;   # the big one
    server 10.0.0.2:81;
    keepalive 8;
}
"""


def block(text: str = HAND_WRITTEN) -> Block:
    return make_block(text, None)


def servers(of: Block) -> list[str]:
    return [" ".join(one.words[1:]) for one in of.directive.all("server")]


def test_a_server_is_put_behind_the_last_one() -> None:
    after = with_server(block(), read_server({"host": "10.0.0.3", "port": 81, "backup": True}))
    assert after.text == HAND_WRITTEN.replace("2:81;\n", "2:81;\n    server 10.0.0.3:81 backup;\n")


def test_a_server_that_is_there_stays_as_a_person_wrote_it() -> None:
    before = block()
    assert with_server(before, read_server("10.0.0.1:81")) is before
    changed = with_server(before, read_server({"host": "10.0.0.1", "port": 81, "weight": 9}))
    assert changed.text == HAND_WRITTEN.replace("weight=2;   #", "weight=9;   #")


def test_no_port_is_port_80() -> None:
    before = block("upstream a {\n    server 10.0.0.1;\n}\n")
    assert with_server(before, read_server("10.0.0.1:80")) is before
    assert servers(with_server(before, read_server("10.0.0.1:81"))) == ["10.0.0.1", "10.0.0.1:81"]


def test_a_server_without_a_port_leaves_on_all_of_its_ports() -> None:
    before = block("upstream a {\n    server 10.0.0.1:81;\n    server 10.0.0.1:82;\n    server 10.0.0.11:81;\n}\n")
    assert servers(without_server(before, read_server("10.0.0.1"))) == ["10.0.0.11:81"]
    assert servers(without_server(before, read_server("10.0.0.1:82"))) == ["10.0.0.1:81", "10.0.0.11:81"]


def test_the_last_one_leaves_a_placeholder_that_the_next_one_replaces() -> None:
    before = block("upstream a {\n    server 10.0.0.1;\n}\n")
    empty = without_server(before, read_server("10.0.0.1"))
    assert servers(empty) == ["127.0.0.1 down"] and "placeholder" in empty.text
    assert without_server(empty, read_server("127.0.0.1")) is empty
    assert with_server(empty, read_server("10.0.0.1")).text == before.text
    assert servers(with_server(empty, read_server("127.0.0.1"))) == ["127.0.0.1"]


@pytest.mark.parametrize(
    "text",
    ["upstream a { server 10.0.0.1; }\n", "upstream a { }", "upstream a {\n}\n", "upstream a {server 10.0.0.1;}"],
)
def test_any_way_of_writing_it_can_be_edited(text: str) -> None:
    before = block(text)
    after = with_server(before, read_server("10.0.0.9:81"))
    assert servers(after) == [*servers(before), "10.0.0.9:81"]
    assert servers(without_server(after, read_server("10.0.0.9"))) == (servers(before) or ["127.0.0.1 down"])


@unhurried
@given(st.lists(st.tuples(st.booleans(), ADDRESS), max_size=8))
def test_comings_and_goings_end_in_the_set_that_they_mean(edits: list[tuple[bool, str]]) -> None:
    edited, expected = block("upstream a {\n    server 127.0.0.1 down; # placeholder: no server yet\n}\n"), []
    for comes, address in edits:
        server = read_server(address)
        host, port = server.host, server.options.port or 80
        if comes:
            edited = with_server(edited, server)
            expected += [] if (host, port) in expected else [(host, port)]
        else:
            edited = without_server(edited, server)
            expected = [
                one for one in expected if one[0] != host or (server.options.port is not None and one[1] != port)
            ]
    present = [one for one in servers(edited) if "down" not in one]
    assert [(one.partition(":")[0], int(one.partition(":")[2] or 80)) for one in present] == expected
    assert ("placeholder" in edited.text) == (not expected)


def test_roles_are_read_from_the_name_and_options_from_the_comment() -> None:
    assert roles_of(block("upstream a__12_13 {}")) == ["12", "13"] and roles_of(block()) == []
    assert options_for(block(), "12") == [ServerOptions(port=81, weight=2)]
    assert options_for(block(), "13") == [ServerOptions()]


def test_what_the_caller_says_of_a_server_counts_before_the_destination_s_options() -> None:
    options = ServerOptions(port=81, weight=2, max_fails=1, fail_timeout=5)
    assert merged(read_server("10.0.0.1"), options).options == options
    said = read_server({"host": "10.0.0.1", "port": 90, "weight": 1, "max_fails": 0, "down": True})
    assert merged(said, options).options == ServerOptions(port=90, weight=1, max_fails=0, fail_timeout=5, down=True)
    assert merged(Server("unix:/run/a", ServerOptions()), options).options.port is None
