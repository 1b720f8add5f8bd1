"""What fuzzing found, each held by a test: `docs/fuzzing.md` says how it was looked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalarizr.apache import syntax as apache_syntax
from scalarizr.apache import template as apache_template
from scalarizr.environment import queryenv
from scalarizr.environment.queryenv import QueryEnv
from scalarizr.errors import InvalidParameter, OutsideFailure
from scalarizr.nginx import syntax as nginx_syntax
from scalarizr.nginx.document import Document
from scalarizr.nginx.names import location
from scalarizr.nginx.parameters import read_proxy
from scalarizr.nginx.template import check_template
from scalarizr.rpc.call import InvalidRequest, ParseError, split_batch
from scalarizr.rpc.types import checker
from scalarizr.settings.address import BadAddress, read_address
from scalarizr.settings.keys import load_key_rules
from scalarizr.settings.load import BadSettings, line_of, load_settings
from scalarizr.settings.model import Environment

NOT_WHITE_TO_NGINX = ["\u00a0", "\u0085", "\u2003", "\u2028", "\u3000"]
HOST = "<VirtualHost *:80>\n{}\n</VirtualHost>\n"


class Answered(QueryEnv):
    """A control plane whose answer is known."""

    def __init__(self, content: bytes) -> None:
        super().__init__(Environment(source="queryenv", url="https://control.invalid", server_id="s"), None)
        self._content = content

    def _signature(self, fields: dict[str, str], date: str) -> str:
        return ""

    def _exchange(self, command: str, path: str, body: str, headers: dict[str, str]) -> bytes:
        return self._content


def template(content: str) -> Any:
    return check_template(content, None, "templates[0].content", any_directive=False)


# nginx


@pytest.mark.parametrize("space", NOT_WHITE_TO_NGINX)
def test_what_is_no_white_space_to_nginx_cannot_begin_a_comment_that_hides_the_end_of_a_block(space: str) -> None:
    """nginx sees `y#` and a `;`, where a comment was seen up to the end of the line."""
    hidden = f"add_header X y{space}# ; }} include /etc/passwd; server {{\n listen 81;\n"
    with pytest.raises(InvalidParameter, match=r"a \} without its \{"):
        template(hidden)


@pytest.mark.parametrize("space", NOT_WHITE_TO_NGINX)
def test_a_first_line_that_only_looks_empty_is_not_taken_off(space: str) -> None:
    """Without it the second line would be a directive of its own."""
    made = template(f"{space}\ninclude /etc/passwd;")
    assert made.lines == ((1, space), (2, "include /etc/passwd;"))
    assert made.names == {space}


def test_all_braces_behind_a_dollar_belong_to_the_word() -> None:
    """nginx goes on with the word, where a block was seen to begin."""
    with pytest.raises(InvalidParameter, match=r"a \} without its \{"):
        template("error_page ${{ a; }")
    assert nginx_syntax.parse("set $a ${{b;")[0].words == ["set", "$a", "${{b"]


def test_a_refused_directive_is_refused_on_whichever_line_of_its_name_it_stands() -> None:
    with pytest.raises(InvalidParameter, match="the directive"):
        template("x\\ncontent_by_lua_block { }")


@pytest.mark.parametrize(
    "directive",
    [
        'return 200 "01 }\n ){2b";',
        "return 200 \\\n}\n;",
        "return 200 a}b${{c;",
        'return 200 "a\\" }\n {";',
        "return 200 \\};",
    ],
)
def test_a_brace_that_is_text_ends_no_block_of_a_managed_file(directive: str) -> None:
    blocks = [
        "# proxy a.example\nserver {\n    listen 80;\n    " + directive + "\n}\n",
        "# proxy b.example\nserver {\n    listen 81;\n}\n",
    ]
    document = Document("/etc/nginx/proxies.include", "".join(blocks))
    assert [block.text for block in document.blocks] == blocks
    assert [block.owner for block in document.blocks] == ["a.example", "b.example"]


def test_blocks_nested_without_end_are_refused_by_name() -> None:
    with pytest.raises(InvalidParameter, match="nested deeper than 100"):
        template("a{" * 60_000 + "}" * 60_000)


def test_an_error_does_not_give_back_a_whole_template() -> None:
    with pytest.raises(InvalidParameter) as refused:
        template("a" * 100_000)
    assert len(str(refused.value)) < 500


def test_a_number_of_thousands_of_digits_is_no_fail_timeout() -> None:
    described = {"hostname": "a.example", "backends": [{"host": "10.0.0.1", "fail_timeout": "9" * 5000}]}
    with pytest.raises(InvalidParameter, match="expected seconds"):
        read_proxy(described, any_directive=False)


@pytest.mark.parametrize("pattern", ["~ a{99999999999999}", "~ " + "(" * 490])
def test_a_regular_expression_that_cannot_be_compiled_is_refused_by_name(pattern: str) -> None:
    with pytest.raises(InvalidParameter, match="a regular expression"):
        location(pattern, "location")


# Apache


@pytest.mark.parametrize("space", NOT_WHITE_TO_NGINX)
def test_what_is_no_white_space_to_apache_is_part_of_the_word(space: str) -> None:
    read = apache_syntax.parse(f"{space}# Include x\nServerName{space}a b\n")
    assert [(one.name, one.arguments) for one in read] == [(f"{space}#", "Include x"), (f"ServerName{space}a", "b")]


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("Include> /etc/passwd", "the directive Include"),
        ('"Include>" /etc/passwd', "the directive Include"),
        ("LoadModule> a /tmp/a.so", "the directive LoadModule"),
        ('CustomLog> "|/bin/sh -c id" combined', "CustomLog through a program"),
        ("RewriteMap> a prg:/bin/sh", "a RewriteMap that runs a program"),
    ],
)
def test_a_directive_is_refused_also_with_a_bracket_that_apache_takes_off_its_name(line: str, refused: str) -> None:
    """To Apache `Include>` is `Include` (ap_build_config in server/config.c)."""
    with pytest.raises(InvalidParameter, match=f"in line 2: {refused}"):
        apache_template.check_template(HOST.format(line), "template", any_directive=False)


def test_a_long_line_that_is_no_section_is_refused_at_once() -> None:
    """It took the cube of its length: a quarter of a minute for 4,000 characters."""
    with pytest.raises(InvalidParameter, match="is no section"):
        apache_template.check_template(HOST.format("<a" + " " * 200_000 + "b"), "template", any_directive=False)


def test_a_section_is_read_as_before() -> None:
    [opened] = apache_syntax.parse("<Directory  \t/var/www >\n</Directory>")
    assert (opened.name, opened.arguments, opened.closes) == ("Directory", "/var/www", 1)
    with pytest.raises(apache_syntax.BadSyntax, match="is no section"):
        apache_syntax.parse("<Directory/ x>\n</Directory>")


def test_sections_nested_without_end_are_refused_by_name() -> None:
    """Each kept all those around it: the memory that took grew with the square of their number."""
    with pytest.raises(InvalidParameter, match="nested deeper than 100"):
        apache_template.check_template(
            HOST.format("<a>\n" * 20_000 + "</a>\n" * 20_000), "template", any_directive=False
        )


def test_a_quoted_directive_name_with_a_variable_in_it_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="name is a variable"):
        apache_template.check_template(HOST.format('" a ${B}" x'), "template", any_directive=False)


@pytest.mark.parametrize("text", ["<{0}>\n", "</{0}>\n", "<a>\n</{0}>\n"])
def test_an_error_does_not_give_back_the_whole_name_of_a_section(text: str) -> None:
    with pytest.raises(apache_syntax.BadSyntax) as refused:
        apache_syntax.parse(text.format("x" * 100_000))
    assert len(str(refused.value)) < 200


# QueryEnv


@pytest.mark.parametrize("encoding", ["x-unknown", "hex", "idna", "undefined"])
def test_an_answer_in_an_unknown_encoding_is_refused_in_words(encoding: str) -> None:
    answer = f'<?xml version="1.0" encoding="{encoding}"?><a/>'.encode()
    with pytest.raises(OutsideFailure, match="not the XML that it should be"):
        Answered(answer).roles()


def test_an_answer_nested_without_end_is_refused_in_words() -> None:
    with pytest.raises(OutsideFailure, match="nested too deeply"):
        Answered(b"<a>" * 5000 + b"</a>" * 5000).farm_role_params("1")


def test_an_answer_with_very_many_names_is_read() -> None:
    """It took the square of their number: three seconds for 20,000."""
    many = 300_000
    answer = b"<a>" + b"".join(b"<b%d/>" % number for number in range(many)) + b"</a>"
    assert len(Answered(answer).farm_role_params("1")) == many


def test_an_index_of_thousands_of_digits_is_none() -> None:
    answer = b'<a><roles><role id="1"><hosts><host index="%b"/></hosts></role></roles></a>' % (b"1" * 5000)
    assert Answered(answer).roles()[0].servers[0].index is None


def test_a_metric_whose_id_has_thousands_of_digits_is_refused_in_words() -> None:
    metric = b"<metric><id>%b</id><retrieve-method>read</retrieve-method></metric>" % (b"1" * 5000)
    with pytest.raises(OutsideFailure, match="unknown form"):
        Answered(b"<a><metrics>" + metric + b"</metrics></a>").metrics()


def test_a_virtual_host_of_empty_lines_is_read() -> None:
    """Finding no port in it took the square of their number."""
    raw = b"\n" * 3_000_000
    [host] = Answered(b"<a><vhosts><vhost hostname='h'><raw>" + raw + b"</raw></vhost></vhosts></a>").virtual_hosts()
    assert host.port == 80
    assert queryenv._VIRTUAL_HOST.search("\n\n  <VirtualHost  *:8080 >\n")


# Settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = " + "[" * 5000, "nested deeper than any settings file"),
        ("[api]\nqueue = " + "1" * 5000, "a number of thousands of digits"),
        ("[api]\nqueue = 0x" + "f" * 5000, "line 2: .api. queue: got a number of thousands of digits"),
        ('[api]\nlisten = "a:' + "1" * 5000 + '"', 'expected an address such as "0.0.0.0:8010"'),
        ("[" + "a" * 5000 + "]", "is no section"),
        ("[api]\n" + "a" * 5000 + " = 1", "is no setting"),
        ('"api"."a\\nb" = 1', "scalarizr.toml: .api. "),
    ],
)
def test_a_file_of_settings_is_refused_in_words_that_name_it(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "scalarizr.toml").write_text(text)
    with pytest.raises(BadSettings, match=said) as refused:
        load_settings(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path}/scalarizr.toml")
    assert len(str(refused.value)) < 1500


def test_an_error_does_not_give_back_a_whole_network(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text('[web]\nallow = ["*"]\nfrom = ["' + "a" * 50_000 + '"]\n')
    path.chmod(0o600)
    with pytest.raises(BadSettings, match="an address or a network") as refused:
        load_key_rules(tmp_path, ["nginx"], {})
    assert len(str(refused.value)) < 1000


def test_a_port_of_thousands_of_digits_is_no_port() -> None:
    with pytest.raises(BadAddress):
        read_address("0.0.0.0:" + "1" * 5000)


def test_looking_for_the_line_of_a_section_takes_no_longer_than_reading_it() -> None:
    """A line of one bracket and many spaces took the cube of its length."""
    assert line_of("x = '''\n[" + " " * 500_000 + "\n'''\n[ api\t]\nqueue = 1\n", "api", "queue") == 5


# JSON-RPC


@pytest.mark.parametrize(
    "last", [b'{"jsonrpc": "2.0", "method": "a", "id": "\xff"}', b'{"jsonrpc": "2.0", "method": "\\x", "id": 2}']
)
def test_nothing_of_a_batch_is_run_where_one_request_of_it_is_no_json(last: bytes) -> None:
    with pytest.raises(ParseError):
        split_batch(b'[{"jsonrpc": "2.0", "method": "a", "id": 1}, ' + last + b"]")


def test_a_batch_of_other_things_than_requests_is_still_answered_one_by_one() -> None:
    assert len(split_batch(b'[1, {"foo": "boo"}, []]') or ()) == 3
    with pytest.raises(InvalidRequest):
        split_batch(b"[]")


@pytest.mark.parametrize(
    "make", [lambda name: {name: 1}, lambda name: {"a": {name: 1}}], ids=["name-of-a-key", "key-inside"]
)
def test_an_error_does_not_give_back_a_whole_key(make: Callable[[str], Any]) -> None:
    with pytest.raises(InvalidParameter) as refused:
        checker(dict[str, dict[str, list[int]] | list[int]])(make("k" * 100_000), "p")
    assert len(str(refused.value)) < 500
