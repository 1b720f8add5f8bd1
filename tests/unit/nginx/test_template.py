"""Templates: raw directives from callers."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalarizr.errors import InvalidParameter
from scalarizr.nginx.syntax import parse
from scalarizr.nginx.template import check_template

unhurried = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_lines_keep_their_numbers_and_a_wrapper_is_taken_off() -> None:
    template = check_template(
        "\n\nserver {\n  gzip on;\n\n  # why\n  expires 1d;\n}\n", None, "content", any_directive=False
    )
    assert template.lines == ((4, "  gzip on;"), (5, ""), (6, "  # why"), (7, "  expires 1d;"))
    assert template.names == {"gzip", "expires"} and not template.answers


def test_locations_that_a_server_template_has_are_known() -> None:
    content = "location = /a { return 204; }\nlocation ~ ^/b { proxy_pass http://x; }"
    template = check_template(content, None, "content", any_directive=False)
    assert template.locations == {"= /a", "~ ^/b"} and template.answers and not template.hands_on


@pytest.mark.parametrize("name", ["proxy_pass http://x", "return 204", "fastcgi_pass x", "root /srv", "alias /srv"])
def test_what_answers_is_told_from_what_adds(name: str) -> None:
    assert check_template(f"{name};", "/", "content", any_directive=False).answers
    assert check_template(f"{name};", "/", "content", any_directive=False).hands_on != name.startswith(
        ("root", "alias")
    )


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("allow all;\ninclude /etc/shadow;", 2),
        ("location /x {\n\n INCLUDE x;\n}", 3),
        ("load_module x;", 1),
        ("content_by_lua_block { }", 1),
        ("perl_set $a b;", 1),
        ("js_import x;", 1),
        ("'include' /etc/passwd;", 1),
        ("inc\\lude x;", 0),
        ("a 1;\n}\nserver {", 2),
        ("a 1;\nlocation / {", 2),
        ("a 1;\nb", 2),
        ("a\x001;", 1),
        ('a "', 1),
        ("}", 1),
        ("server { a 1; } server { b 1; }", 1),
    ],
)
def test_what_is_refused_is_refused_with_its_line(content: str, line: int) -> None:
    if not line:
        check_template(content, "/", "content", any_directive=False)
        return
    with pytest.raises(InvalidParameter) as caught:
        check_template(content, "/", "content", any_directive=False)
    assert f"line {line}" in caught.value.facts["got"]


def test_the_settings_lift_the_list() -> None:
    assert check_template("include x;", "/", "content", any_directive=True).names == {"include"}


def test_a_template_has_its_limit() -> None:
    with pytest.raises(InvalidParameter, match="262144 at most"):
        check_template("#" * 300_000, "/", "content", any_directive=False)


@unhurried
@given(st.text("ab1{};#\"'\\ \n\r\t$/~", max_size=40), st.sampled_from([None, "/"]))
def test_whatever_is_let_through_stays_within_its_block(content: str, where: str | None) -> None:
    try:
        template = check_template(content, where, "content", any_directive=False)
    except InvalidParameter:
        return
    text = "server {\n" + "".join(f"{line}\n" for _number, line in template.lines) + "}\nbehind 1;\n"
    server, behind = parse(text)
    assert server.is_block and behind.words == ["behind", "1"]
    assert {one.name for one in server.children} == template.names
