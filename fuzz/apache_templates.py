"""Apache virtual hosts: what is accepted is whole as Apache reads it, and an edit changes what it says and no more."""

import re

from fuzz import apache_reader
from scalarizr.apache import template
from scalarizr.apache.syntax import BadSyntax, parse
from scalarizr.apache.template import CertificatePaths, HostText, check_template
from scalarizr.errors import InvalidParameter

LONGEST = 1024
WORDS = (
    b"<VirtualHost *:80>\n",
    b"<VirtualHost 10.0.0.1:443 [::1]:443>\n",
    b"</VirtualHost>\n",
    b"<Directory />\n",
    b"</Directory>\n",
    b"<IfModule mod_ssl.c>\n",
    b"</IfModule>\n",
    b"ServerName www.example.com\n",
    b"ServerAlias ",
    b"SSLEngine on\n",
    b"SSLCertificateFile ",
    b"SSLCertificateKeyFile ",
    b"SSLCertificateChainFile ",
    b"Include ",
    b"LoadModule ",
    b"Define A b\n",
    b"CustomLog ",
    b"ErrorLog ",
    b'"|/bin/sh"',
    b"RewriteMap a prg:",
    b"<Macro A>\n",
    b"Use A\n",
    b"${A}",
    b"\\\n",
    b"\\",
    b'"',
    b"'",
    b"#",
    b"\xc2\xa0",
    b"\xc2\x85",
    b"\xef\xbb\xbf",
    b"\v",
    b"\r\n",
)
_REFUSED = re.compile(rb"<?(include\w*|load\w*|perl\w*|lua\w*|macro|use|md\w*cmd|mdchallengedns01)", re.IGNORECASE)
_PATHS = CertificatePaths("/etc/ssl/a.crt", "/etc/ssl/a key", "/etc/ssl/chain.crt")
_TLS = {b"sslengine", b"sslcertificatefile", b"sslcertificatekeyfile", b"sslcertificatechainfile"}


def check(data: bytes) -> None:
    """The first byte: bit 0: any directive. What follows is the text."""
    how, content = (data[0] if data else 0), data[1:].decode("utf-8", "ignore")
    any_directive = bool(how & 1)
    # A template has its lines ended likewise before it is read.
    _check_reader(content.replace("\r\n", "\n").replace("\r", "\n"))
    try:
        host = check_template(content, "template", any_directive=any_directive)
    except InvalidParameter as error:
        assert len(str(error)) < 2000
        line = re.search(r"in line (\d+)", str(error.facts["got"]))
        lines = content.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        assert line is None or 1 <= int(line[1]) <= lines, (error, lines)
        return
    try:
        read = apache_reader.read(host.text.encode())
    except apache_reader.Unreadable:
        return  # Apache's own check refuses it
    assert any(line.name == b"<virtualhost" for line in read), "no virtual host is left"
    if not any_directive:
        for line in read:
            assert not _REFUSED.fullmatch(line.name), line
            assert b"$" not in line.name, line
    assert [number for number, _line in host.lines] == list(range(1, len(host.lines) + 1))
    _check_edits(host, read)


def _check_reader(content: str) -> None:
    """What the agent takes for whole, Apache reads likewise or refuses."""
    try:
        ours = parse(content)
    except BadSyntax as error:
        assert 1 <= error.line <= content.count("\n") + 1
        return
    try:
        theirs = apache_reader.read(content.encode())
    except apache_reader.Unreadable:
        return
    said = [
        (("<" if one.is_section else "") + one.name, one.arguments, tuple(f"<{name}" for name, _rest in one.within))
        for one in ours
    ]
    assert [_in_bytes(*one) for one in said] == [tuple(line) for line in theirs], (ours, theirs)


def _in_bytes(name: str, arguments: str, within: tuple[str, ...]) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    return name.encode().lower(), arguments.encode(), tuple(one.encode().lower() for one in within)


def _check_edits(host: HostText, read: list[apache_reader.Line]) -> None:
    others = [line for line in read if line.name not in _TLS]
    with_tls = template.with_certificate(host, _PATHS, 443)
    assert [line for line in _read(with_tls) if line.name not in _TLS] == others, "more was edited than the certificate"
    for line in _read(with_tls):
        if line.name == b"sslcertificatefile":
            assert line.rest == b"/etc/ssl/a.crt", line
        if line.name == b"sslcertificatekeyfile":
            assert line.rest == b'"/etc/ssl/a key"', line
    if not any(b"<virtualhost" in line.within for line in read if line.name == b"<virtualhost"):  # Apache refuses that
        again = template.with_certificate(with_tls, _PATHS, 443)
        assert again.text == with_tls.text, "the same edit again changes more"
    plain = template.without_certificate(host)
    assert _read(plain) == others, "without its certificate it is another host"
    assert not template.speaks_tls(plain) and template.certificate_of(plain) is None
    moved = template.with_port(host, 80, 8080)
    assert _without_places(_read(moved)) == _without_places(read)
    assert len(_read(moved)) == len(read)
    named = template.with_name(host, "www.example.com", "new.example.com")
    assert [line for line in _read(named) if line.name != b"servername"] == [
        line for line in read if line.name != b"servername"
    ]
    try:
        placed = template.at_port(host, "www.example.com", 80, "template")
    except InvalidParameter:
        return
    extra = _read(placed)
    assert len(extra) >= len(read) and {line.name for line in extra} <= {line.name for line in read} | {b"servername"}


def _read(host: HostText) -> list[apache_reader.Line]:
    try:
        return apache_reader.read(host.text.encode())
    except apache_reader.Unreadable as error:
        raise AssertionError(f"Apache could not read this: {error}: {host.text!r}") from None


def _without_places(lines: list[apache_reader.Line]) -> list[object]:
    return [(line.name, None if line.name == b"<virtualhost" else line.rest) for line in lines]


def seeds() -> dict[str, bytes]:
    """Make virtual hosts as people write them."""
    plain = (
        b"<VirtualHost *:80>\n    ServerName www.example.com\n    ServerAlias example.com\n    DocumentRoot /var/www\n"
        b"    <Directory /var/www>\n        Require all granted\n    </Directory>\n</VirtualHost>\n"
    )
    tls = (
        b"<VirtualHost *:443>\n    ServerName www.example.com\n    SSLEngine on\n    SSLCertificateFile /old.crt\n"
        b"    SSLCertificateKeyFile \\\n        /old.key\n</VirtualHost>\n"
    )
    end = b"</VirtualHost>\n"
    made = {
        "plain": plain,
        "tls": tls,
        "both": plain + tls,
        "conditional": b"<IfModule mod_ssl.c>\n" + tls + b"</IfModule>\n",
        "addresses": plain.replace(b"*:80", b"10.0.0.1:80 [::1]:80"),
        "no-name": b"<VirtualHost *:80>\nDocumentRoot /x\n</VirtualHost>",
        "include": plain.replace(end, b"    Include /etc/passwd\n" + end),
        "quoted-include": plain.replace(end, b'    "Include" /etc/passwd\n' + end),
        "continued": plain.replace(b"DocumentRoot /var/www", b"Document\\\nRoot /var/www"),
        "piped-log": plain.replace(end, b'    CustomLog "|/bin/sh -c x" combined\n' + end),
        "variable": plain.replace(end, b"    Define A /x\n    ErrorLog ${A}/e.log\n" + end),
        "rewrite": plain.replace(end, b"    RewriteMap a prg:/bin/x\n" + end),
        "comment": b"# a <comment> \\\nof two lines\n" + plain,
        "crlf": plain.replace(b"\n", b"\r\n"),
        "mark": b"\xef\xbb\xbf" + plain,
        "unbalanced": plain.replace(b"    </Directory>\n", b""),
        "quotes": plain.replace(end, b'    Header set A "b \\" c" \'d\'\n' + end),
        "macro": b"<Macro H>\n" + plain + b"</Macro>\nUse H\n",
        "utf-8": plain.replace(b"example.com", "пример".encode()),
    }
    return {name: b"\0" + text for name, text in made.items()} | {"include-any": b"\1" + made["include"]}
