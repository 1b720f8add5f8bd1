"""Virtual hosts' texts: checked, and edited only where the agent has to."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalarizr.apache import template as host
from scalarizr.apache.syntax import BadSyntax, parse
from scalarizr.apache.template import CertificatePaths, HostText, check_template, read_host
from scalarizr.errors import InvalidParameter

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PATHS = CertificatePaths("/k/a.crt", "/k/a.key", "/k/a-ca.crt")
NO_CHAIN = CertificatePaths("/k/a.crt", "/k/a.key", None)
TEXT = """\
# 100 % of $this is ünï: <VirtualHost *:1> SSLEngine on
#   SSLCertificateFile /not/mine \\
#   continued
<VirtualHost *:80 [::]:80>
    ServerName www.example.com
    <If "%{HTTP_HOST} > 'a'">
        # nested
    </If>
    CustomLog /var/log/a.log "%h > %{User-Agent}i \\
        %t"
</VirtualHost>
"""


def checked(text: str) -> HostText:
    return check_template(text, "template", any_directive=False)


def refusal(text: str, *, any_directive: bool = False) -> str:
    with pytest.raises(InvalidParameter) as caught:
        check_template(text, "template", any_directive=any_directive)
    assert caught.value.facts["parameter"] == "template"
    return str(caught.value.facts["got"])


def names(text: HostText) -> list[str]:
    return [f"{one.name} {one.arguments}".strip() for one in text.directives()]


def test_a_text_stays_as_it_was_sent() -> None:
    assert checked(TEXT).text == TEXT
    assert checked(TEXT.rstrip("\n")).text == TEXT and checked(TEXT.replace("\n", "\r\n")).text == TEXT
    assert [number for number, _line in checked(TEXT).lines] == list(range(1, 12))


def in_host(text: str) -> str:
    return f"<VirtualHost *:80>\n{text}\n</VirtualHost>\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ServerName x\n", "without <VirtualHost>"),
        (in_host("<Directory /x>"), "line 3: </VirtualHost> where </Directory> is expected"),
        (in_host("a\x07b"), "line 2: a control character"),
        (in_host("Include /etc/shadow"), "line 2: the directive Include"),
        (in_host("  INCLUDEOPTIONAL x"), "line 2: the directive INCLUDEOPTIONAL"),
        (in_host('"Include" /etc/shadow'), "line 2: the directive Include"),
        (in_host("'Include'/etc/shadow"), "line 2: the directive Include"),
        (in_host("Incl\\\nude /etc/shadow"), "line 2: the directive Include"),
        (in_host("<Location />\n\nLoadFile x\n</Location>"), "line 4: the directive LoadFile"),
        ("LoadModule x y\n" + in_host(""), "line 1: the directive LoadModule"),
        ("<Perl>\n</Perl>\n" + in_host(""), "line 1: the directive Perl"),
        (in_host("LuaHookLog x y"), "line 2: the directive LuaHookLog"),
        (in_host("ErrorLog |/bin/x"), "line 2: ErrorLog through a program"),
        (in_host('CustomLog "|$/bin/x a" common'), "line 2: CustomLog through a program"),
        (in_host("TransferLog '||/bin/x'"), "line 2: TransferLog through a program"),
        # A quote that is not closed holds all the rest.
        (in_host('ErrorLog "|/bin/touch /tmp/x'), "line 2: ErrorLog through a program"),
        # Variables are put in before a line is looked at.
        ('Define P "|/bin/x"\n' + in_host('ErrorLog "${P}"'), "line 1: a variable that is more than"),
        ("Define P \"'|/bin/x'\"\n" + in_host("ErrorLog ${P}"), "line 1: a variable that is more than"),
        ('Define I "Include /etc/shadow"\n' + in_host("${I}"), "line 1: a variable that is more than"),
        ("Define I nclude\n" + in_host("I${I} /etc/shadow"), "line 3: a directive whose name is a variable"),
        ("Define I Include\n" + in_host("${I}\\\n /etc/shadow"), "line 3: a directive whose name is a variable"),
        ("Define A acro\n<M${A} M $x>\n</Macro>\n" + in_host(""), "line 3: </Macro> where </M> is expected"),
        ("Define A acro\n<M${A} M $x>\n</M>\n" + in_host(""), "line 2: a directive whose name is a variable"),
        (in_host('ErrorLog "${NONE}|/bin/x"'), "line 2: ErrorLog through a program"),
        # A macro's text is complete only when it is used.
        ("<Macro M $x>\n$x /etc/shadow\n</Macro>\n" + in_host("Use M Include"), "line 1: the directive Macro"),
        (in_host("Use M Include"), "line 2: the directive Use"),
        (in_host("RewriteMap a prg:/bin/x"), "line 2: a RewriteMap that runs a program"),
        (in_host("RewriteMap a 'PRG:/bin/x'"), "line 2: a RewriteMap that runs a program"),
        (in_host("RewriteMap a ${A}g:/bin/x"), "line 2: a RewriteMap that runs a program"),
        ("SSLRandomSeed startup exec:/bin/x\n" + in_host(""), "line 1: a SSLRandomSeed that runs a program"),
        ("SSLPassPhraseDialog |/bin/x\n" + in_host(""), "line 1: a SSLPassPhraseDialog that runs a program"),
        ("MDNotifyCmd /bin/x\n" + in_host(""), "line 1: the directive MDNotifyCmd"),
    ],
)
def test_what_is_refused_is_refused_with_its_line(text: str, words: str) -> None:
    assert words in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "ErrorLog ${APACHE_LOG_DIR}/error.log",
        "Define ROOT /srv/www-1\nDefine TO https://b.example.com:8443/?a=b\nDocumentRoot ${ROOT}/html",
        "RewriteMap a txt:/etc/map",
        "# Include /etc/shadow",
        "# ErrorLog |x \\\nInclude /etc/shadow",
        'LogFormat "%h | %u" piped',
        "RewriteRule ^ /includes/load [L]",
        "SSLRandomSeed startup file:/dev/urandom 256",
    ],
)
def test_what_only_looks_like_it_passes(text: str) -> None:
    assert checked(in_host(text)).text == in_host(text)


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    text = check_template("\ufeff<VirtualHost *:80>\r\n</VirtualHost>\r\n", "template", any_directive=False).text
    assert text == "<VirtualHost *:80>\n</VirtualHost>\n"


def test_the_settings_lift_the_list_and_sizes_have_a_limit() -> None:
    text = in_host("Include x\nErrorLog |y\nUse M")
    assert check_template(text, "template", any_directive=True).text == text
    assert "characters" in refusal("#" * 300_000, any_directive=True)


def test_a_certificate_s_paths_are_replaced_and_only_they() -> None:
    lines = (
        "    SSLEngine on\n    SSLCertificateFile /old/a.crt\n    sslcertificatekeyfile \\\n      /old/a.key\n"
        "    SSLCertificateChainFile \\\n        /old/ca.crt\n"
    )
    text = TEXT.replace("    CustomLog", f"{lines}    CustomLog")
    made = host.with_certificate(checked(text), PATHS, 80).text
    expected = (
        "    SSLEngine on\n    SSLCertificateFile /k/a.crt\n    sslcertificatekeyfile /k/a.key\n"
        "    SSLCertificateChainFile /k/a-ca.crt\n"
    )
    assert made == TEXT.replace("    CustomLog", f"{expected}    CustomLog")
    without = host.with_certificate(checked(text), NO_CHAIN, 80)
    assert "    #SSLCertificateChainFile" in without.text and "#/old/ca.crt\n" in without.text
    assert host.certificate_of(without) == "/k/a.crt" and host.speaks_tls(without)
    parse(without.text)


def test_a_text_without_tls_gets_it_where_its_port_is() -> None:
    two = TEXT + "<VirtualHost *:81>\n    ServerName b\n</VirtualHost>\n"
    made = host.with_certificate(checked(two), PATHS, 80)
    assert made.text.count("SSLEngine on") == 2 and made.text.count("SSLCertificateFile /k/a.crt") == 1
    assert names(made).index("SSLEngine on") < names(made).index("VirtualHost *:81")
    again = host.with_certificate(read_host(made.text.encode()), PATHS, 80)
    assert again.text == made.text


def test_tls_is_turned_off_by_comments() -> None:
    made = host.with_certificate(checked(TEXT), PATHS, 80)
    off = host.without_certificate(made)
    assert not host.speaks_tls(off) and host.certificate_of(off) is None
    assert "    #SSLEngine on\n" in off.text
    assert [name for name in names(off) if not name.startswith("SSL")] == names(checked(TEXT))


def test_port_and_name_are_changed_where_they_stand() -> None:
    assert host.with_port(checked(TEXT), 80, 8080).text == TEXT.replace("*:80 [::]:80", "*:8080 [::]:8080")
    assert host.with_port(checked(TEXT), 81, 8080).text == TEXT
    made = host.with_name(
        checked(TEXT.replace("ServerName www", "ServerName https://WWW")), "www.example.com", "new.net"
    )
    assert "    ServerName https://new.net\n" in made.text
    assert host.with_name(checked(TEXT), "other", "new.net").text == TEXT
    assert host.with_name(checked(TEXT.replace("example.com", "example.com:80")), "www.example.com", "n").text == (
        TEXT.replace("www.example.com", "n:80")
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<VirtualHost *:80>\nServerName a\n</VirtualHost>\n", "<VirtualHost *:8080>\nServerName a\n</VirtualHost>\n"),
        ("<VirtualHost *>\n</VirtualHost>\n", "<VirtualHost *>\n    ServerName n.example.com\n</VirtualHost>\n"),
        (
            "<VirtualHost 10.0.0.1:8080>\nServerName a\n</VirtualHost>\n",
            "<VirtualHost 10.0.0.1:8080>\nServerName a\n</VirtualHost>\n",
        ),
        (
            "<VirtualHost [::1]:80>\nServerName a\n</VirtualHost>\n",
            "<VirtualHost [::1]:8080>\nServerName a\n</VirtualHost>\n",
        ),
        (
            "<VirtualHost *:80>\nServerName a\n</VirtualHost>\n<VirtualHost *:8080>\n</VirtualHost>\n",
            "<VirtualHost *:80>\nServerName a\n</VirtualHost>\n"
            "<VirtualHost *:8080>\n    ServerName n.example.com\n</VirtualHost>\n",
        ),
    ],
)
def test_a_host_is_brought_to_its_port_and_has_a_name(before: str, after: str) -> None:
    assert host.at_port(checked(before), "n.example.com", 8080, "template").text == after


def test_of_several_hosts_one_has_to_be_on_the_port() -> None:
    two = "<VirtualHost *:80>\n</VirtualHost>\n<VirtualHost *:81>\n</VirtualHost>\n"
    with pytest.raises(InvalidParameter, match="on the ports 80, 81"):
        host.at_port(checked(two), "n", 8080, "template")


LINE = st.sampled_from(
    [
        "    ServerName www.example.com",
        "    # SSLEngine on",
        "    # SSLCertificateFile x \\",
        "    SSLEngine off",
        "    SSLEngine On",
        '    SSLCertificateFile "/a b/c.crt"',
        "    SSLCertificateKeyFile \\",
        "    SSLCertificateChainFile /ca \\",
        "      /continued",
        "    <Directory '/x>y'>\n    </Directory>",
        '    LogFormat "a > \\"b\\" \'c\' %h $x ünï" d',
        "",
    ]
)


@unhurried
@given(st.lists(LINE, max_size=7), st.sampled_from([PATHS, NO_CHAIN]), st.booleans())
def test_editing_keeps_every_line_that_it_does_not_mean(lines: list[str], paths: CertificatePaths, twice: bool) -> None:
    text = "<VirtualHost *:80>\n" + "".join(f"{line}\n" for line in lines) + "</VirtualHost>\n"
    try:
        before = checked(text)
    except (InvalidParameter, BadSyntax):
        return
    made = host.with_certificate(before, paths, 80)
    assert host.speaks_tls(made) and host.certificate_of(made) == "/k/a.crt"
    assert host.with_certificate(read_host(made.text.encode()), paths, 80).text == made.text
    if twice:
        made = host.without_certificate(made)
        assert not host.speaks_tls(made)
    own = [one for one in before.directives() if not one.name.lower().startswith("ssl")]
    kept = [one for one in made.directives() if not one.name.lower().startswith("ssl")]
    assert [(one.name, one.words) for one in kept] == [(one.name, one.words) for one in own]
    numbers = [number for number, _line in made.lines if number]
    assert numbers == sorted(numbers)


def test_bytes_that_are_no_utf_8_come_back_as_they_were() -> None:
    raw = TEXT.encode() + b"# caf\xe9\n"
    assert read_host(raw).text.encode("utf-8", "surrogateescape") == raw
