"""Enabling mod_ssl the distribution's way: Debian's links; Red Hat's files in conf.modules.d and conf.d.

Red Hat's package brings the line that loads the module (`conf.modules.d/00-ssl.conf`) and, with it, `conf.d/ssl.conf`:
`Listen 443` and a default virtual host, which Apache cannot read without the module. The two come and go together.
"""

import os
import re
from pathlib import Path

from scalarizr.apache.description import Description
from scalarizr.apache.program import ApacheProgram
from scalarizr.apache.syntax import BadSyntax, parse
from scalarizr.changes.live_file import read_state
from scalarizr.changes.transaction import Transaction
from scalarizr.errors import NotConfigured, Refused

_DEPENDS = re.compile(rb"^#\s*Depends:\s*(.+)$", re.MULTILINE)
_LOADS = re.compile(rb"^([ \t]*)(LoadModule[ \t]+ssl_module\b)", re.MULTILINE | re.IGNORECASE)
_WOULD_LOAD = re.compile(rb"^([ \t]*)#+[ \t]*(LoadModule[ \t]+ssl_module\b)", re.MULTILINE | re.IGNORECASE)
_MODULE_FILES = ("modules/mod_ssl.so", "/usr/lib64/httpd/modules/mod_ssl.so", "/usr/lib/httpd/modules/mod_ssl.so")
_RED_HAT_FILE = "conf.modules.d/00-ssl.conf"
_DISABLED = ".disabled"
# What Red Hat's default virtual host says, beside certificate and key.
_AS_PACKAGED = re.compile(
    r"errorlog|transferlog|customlog|loglevel|ssl(engine|protocol|proxyprotocol|ciphersuite|proxyciphersuite"
    r"|honorcipherorder|options)|files|filesmatch|directory|browsermatch|setenvif"
)


def enable(transaction: Transaction, program: ApacheProgram, modules: frozenset[str]) -> frozenset[str]:
    """Plan that mod_ssl is loaded.

    :param modules: those that are loaded.
    :return: those that will be.
    :raises NotConfigured: it is not installed.
    """
    if "ssl_module" in modules:
        return modules
    if program.is_debian:
        _enable_on_debian(transaction, program.config_dir, "ssl", set())
    else:
        _enable_on_red_hat(transaction, program)
    return modules | {"ssl_module"}


def disable(transaction: Transaction, program: ApacheProgram, described: Description) -> None:
    """Plan that mod_ssl is not loaded any more.

    :param described: the live configuration.
    :raises Refused: it is loaded elsewhere than in the distribution's place.
    """
    if "ssl_module" not in described.modules:
        return
    if program.is_debian:
        for name in ("ssl.load", "ssl.conf"):
            path = program.config_dir / "mods-enabled" / name
            if transaction.exists(path):
                transaction.unlink(path)
    else:
        _disable_on_red_hat(transaction, program)
    loading = [path for path in described.files if transaction.exists(path) and _LOADS.search(_read(transaction, path))]
    if loading or not transaction.plan:
        where = (
            f"in {', '.join(map(str, loading))}, a place of somebody's own" if loading else "as a part of Apache itself"
        )
        raise Refused(f"mod_ssl is loaded {where}. Nothing was changed.")


def untouched_default_host(transaction: Transaction, program: ApacheProgram) -> Path | None:
    """Find the file with the default virtual host of Red Hat's package where nobody has made a site of it.

    It goes with the module: one `<VirtualHost>` without a name, a document root or anything else of its own, with the
    certificate for localhost that the package made; around it nothing but `Listen` and what mod_ssl wants.
    """
    for name in () if program.is_debian else program.layout.default_tls_sites:
        site = program.config_dir / name
        if transaction.exists(site) and _is_as_packaged(_read(transaction, site), program.layout.own_certificate):
            return site
    return None


def _is_as_packaged(content: bytes, own_certificate: tuple[str, str]) -> bool:
    try:
        directives = parse(content.decode("utf-8", "surrogateescape"))
    except BadSyntax:
        return False
    hosts = [one for one in directives if one.called("virtualhost")]
    names = dict(
        zip(("sslcertificatefile", "sslcertificatekeyfile"), map(os.path.basename, own_certificate), strict=True)
    )
    for one in directives:
        name = one.name.lower()
        if one in hosts:
            continue
        if not one.within:
            if name != "listen" and not name.startswith("ssl"):
                return False
        elif name in names:
            if [os.path.basename(word) for word in one.words] != [names[name]]:
                return False
        elif not _AS_PACKAGED.fullmatch(name):
            return False
    return len(hosts) == 1


def _enable_on_debian(transaction: Transaction, config_dir: Path, module: str, seen: set[str]) -> None:
    if module in seen:
        return
    seen.add(module)
    load = config_dir / "mods-available" / f"{module}.load"
    content = transaction.read(load)
    if content is None:
        raise NotConfigured(f"There is no {load}: mod_{module} is not installed. Nothing was changed.")
    match = _DEPENDS.search(content)
    for needed in match[1].decode().split() if match else []:
        _enable_on_debian(transaction, config_dir, needed, seen)
    for ending in ("load", "conf"):
        available = config_dir / "mods-available" / f"{module}.{ending}"
        enabled = config_dir / "mods-enabled" / f"{module}.{ending}"
        if os.path.exists(available) and not transaction.exists(enabled):
            transaction.link(enabled, f"../mods-available/{module}.{ending}")


def _enable_on_red_hat(transaction: Transaction, program: ApacheProgram) -> None:
    path = program.config_dir / _RED_HAT_FILE
    content = transaction.read(path)
    if content is not None and _WOULD_LOAD.search(content):
        transaction.write(path, _WOULD_LOAD.sub(rb"\1\2", content))
    else:
        module = next((name for name in _MODULE_FILES if os.path.exists(program.config_dir / name)), None)
        if module is None:
            raise NotConfigured("mod_ssl is not installed: install the package mod_ssl. Nothing was changed.")
        transaction.write(path, (content or b"") + f"LoadModule ssl_module {module}\n".encode())
    for name in program.layout.default_tls_sites:
        site, aside = program.config_dir / name, program.config_dir / f"{name}{_DISABLED}"
        if transaction.exists(aside) and not transaction.exists(site):
            transaction.restore(site, read_state(aside))
            transaction.unlink(aside)


def _disable_on_red_hat(transaction: Transaction, program: ApacheProgram) -> None:
    path = program.config_dir / _RED_HAT_FILE
    content = transaction.read(path)
    if content is not None and _LOADS.search(content):
        transaction.write(path, _LOADS.sub(rb"\1#\2", content))
    site = untouched_default_host(transaction, program)
    if site is not None:
        transaction.restore(site.with_name(f"{site.name}{_DISABLED}"), read_state(site))
        transaction.unlink(site)


def _read(transaction: Transaction, path: Path) -> bytes:
    return transaction.read(path) or b""
