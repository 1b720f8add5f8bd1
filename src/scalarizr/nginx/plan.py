"""The managed files while they are changed: read from a transaction, edited as documents, written back to it."""

import contextlib
import glob
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from scalarizr.changes.transaction import Transaction
from scalarizr.errors import OutsideFailure
from scalarizr.nginx.check import ports_in
from scalarizr.nginx.default_sites import disable_default_sites
from scalarizr.nginx.document import Block, Document, KnownDocuments, make_block
from scalarizr.nginx.main_config import decoded, include_managed_files, listening_address, listening_port
from scalarizr.nginx.names import upstream_base
from scalarizr.nginx.render import CONNECTION
from scalarizr.nginx.syntax import BadSyntax, Directive, parse

UPSTREAMS, PROXIES, ERROR_PAGES = "app-servers.include", "proxies.include", "error-pages.include"
_HASH = ("server_names_hash_max_size", "server_names_hash_bucket_size")
_NAMES = re.compile(r"^[ \t]*server_name[ \t]+([^;]+);", re.MULTILINE)
_HEADS = {
    UPSTREAMS: "# The upstreams of the proxies in proxies.include. Kept by scalarizr.\n",
    PROXIES: "# The reverse proxies. Kept by scalarizr.\n"
    f"map $http_upgrade {CONNECTION} {{\n    default upgrade;\n    '' '';\n}}\n",
}
_ERROR_PAGES = b"""\
# Error pages of all sites of this server: yours to edit, scalarizr never writes it again. Such as:
# error_page 502 503 504 /sorry.html;
"""


class Plan:
    """One change of the proxies.

    :param transaction: what it is read from and written back to.
    :param config_dir: nginx's.
    :param main: its main configuration.
    :param known: the files as they were the last time.
    :ivar for_all_names: the proxy `_` is among what is written.
    """

    def __init__(self, transaction: Transaction, config_dir: Path, main: Path, known: KnownDocuments) -> None:
        self.transaction = transaction
        self.for_all_names = False
        self._known = known
        self._directory = config_dir
        self._main = main
        self._read: dict[str, tuple[str, Document]] = {}

    @property
    def upstreams(self) -> Document:
        return self._document(UPSTREAMS)

    @property
    def proxies(self) -> Document:
        return self._document(PROXIES)

    @property
    def documents(self) -> list[Document]:
        """What was read, for mapping lines back."""
        return [document for _text, document in self._read.values()]

    def servers_of(self, hostname: str) -> list[Block]:
        """Give the servers of a proxy."""
        found = []
        its_name = re.compile(rf"[\s\"']{re.escape(hostname)}[\s\"';]")
        for block in self.proxies.of("server"):
            if not its_name.search(block.text):
                continue
            names = [name for one in block.directive.all("server_name") for name in one.words[1:]]
            if names == [hostname] or (block.owner == hostname and hostname in names):
                found.append(block)
        return found

    def servers_of_all(self, hostnames: Collection[str]) -> dict[str, list[Block]]:
        """Give the servers of each of several proxies."""
        if len(hostnames) == 1:
            return {hostname: self.servers_of(hostname) for hostname in hostnames}
        found: dict[str, list[Block]] = {}
        for block in self.proxies.of("server"):
            owner = block.owner
            if owner is None:
                names = [name for one in block.directive.all("server_name") for name in one.words[1:]]
                owner = names[0] if len(names) == 1 else None
            if owner in hostnames:
                assert owner is not None
                found.setdefault(owner, []).append(block)
        return found

    def upstreams_of_all(self, hostnames: Collection[str]) -> dict[str, list[Block]]:
        """Give the upstreams of each of several proxies."""
        if len(hostnames) == 1:
            return {hostname: self.upstreams_of(hostname) for hostname in hostnames}
        found: dict[str, list[Block]] = {}
        bases: dict[str, str] = {}
        for block in self.upstreams.of("upstream"):
            owner = block.owner
            if owner is None:
                bases = bases or {
                    upstream_base(hostname, hashed=hashed): hostname
                    for hostname in hostnames
                    for hashed in (True, False)
                }
                owner = bases.get(block.label) or bases.get(block.label.partition("_")[0])
            if owner in hostnames:
                assert owner is not None
                found.setdefault(owner, []).append(block)
        return found

    def upstreams_of(self, hostname: str) -> list[Block]:
        """Give the upstreams of a proxy."""
        bases = {upstream_base(hostname, hashed=True), upstream_base(hostname, hashed=False)}
        return [
            block
            for block in self.upstreams.of("upstream")
            if block.owner == hostname
            or (block.owner is None and any(block.label == one or block.label.startswith(f"{one}_") for one in bases))
        ]

    def store(self) -> None:
        """Write what changed back, with everything that has to go with it."""
        if self.for_all_names:
            self._make_it_the_default()
        texts = {name: document.text for name, (_text, document) in self._read.items()}
        changed = {name for name, (text, _document) in self._read.items() if texts[name] != text}
        for name in self._read.keys() - changed:
            self._known.keep(self._read[name][1], texts[name])
        if not changed:
            return
        managed = [self._directory / name for name in (ERROR_PAGES, UPSTREAMS, PROXIES)]
        missing = [path for path in managed if not self.transaction.exists(path)]
        for path in missing:
            if path.name == ERROR_PAGES:
                self.transaction.write(path, _ERROR_PAGES)
            else:
                self._document(path.name)
                changed.add(path.name)
        if PROXIES in changed:
            self._size_the_name_hash()
        for name in sorted(changed):
            document = self._read[name][1]
            text = document.text
            self.transaction.write(self._directory / name, text.encode("utf-8", "surrogateescape"))
            self._known.keep(document, text)
        include_managed_files(self.transaction, self._main, managed)
        if PROXIES in changed:
            self._take_the_default_sites_out()

    def _take_the_default_sites_out(self) -> None:
        for gone in self._disable_default_sites():
            note = f"# {gone} claimed a port of a proxy as its default server: it was taken out. Put it back by hand.\n"
            written = self.transaction.read(self._directory / PROXIES) or b""
            self.transaction.write(self._directory / PROXIES, written + note.encode())

    def _disable_default_sites(self) -> list[str]:
        ports = ports_in(self.proxies.text.encode("utf-8", "surrogateescape"))
        listens = [listen for block in self.servers_of("_") for listen in block.directive.all("listen")]
        return disable_default_sites(self.transaction, self._main, ports, set(map(listening_port, listens)))

    def _document(self, name: str) -> Document:
        if name not in self._read:
            path = self._directory / name
            content = self.transaction.read(path)
            text = _HEADS[name] if content is None else decoded(content, path)
            document = self._known.read(str(path), text)
            if name == PROXIES and CONNECTION not in " ".join(_map_names(document)):
                document.put(make_block(_HEADS[PROXIES].partition("\n")[2], None), 0)
            self._read[name] = (text if content is not None else "", document)
        return self._read[name][1]

    def _size_the_name_hash(self) -> None:
        """Size nginx's table of names for ours, once, unless somebody else does."""
        document = self._read[PROXIES][1]
        names = [name for found in _NAMES.findall(document.text) for name in found.split()]
        longest = max(map(len, names), default=0)
        if len(set(names)) <= 300 and longest <= 40:
            wanted: list[str] = []
        elif self._somebody_sizes_it():
            wanted = []
        else:
            # A bucket holds at least one name with its pointers (ngx_hash.h).
            wanted = [
                f"server_names_hash_max_size {max(_power(2 * len(set(names))), 1024)};\n",
                f"server_names_hash_bucket_size {max(_power(longest + 32), 128)};\n",
            ]
        present = [block for block in document.blocks if block.kind in _HASH]
        if [block.text.strip() for block in present] != [line.strip() for line in wanted]:
            document.remove(present)
            place = next((number for number, block in enumerate(document.blocks) if block.kind == "server"), None)
            for line in reversed(wanted):
                document.put(make_block(line, None), place if place is not None else len(document.blocks))

    def _somebody_sizes_it(self) -> bool:
        return any(one.name in _HASH for one in self._directives_elsewhere("server_names_hash_"))

    def _make_it_the_default(self) -> None:
        """Let the proxy for all other names be the default server wherever nobody else says to be that."""
        remembered = self.transaction.remember()
        self._disable_default_sites()  # they go with this change, should it be one
        taken = {
            listening_address(listen)
            for one in self._directives_elsewhere("default")
            for listen in ([one] if one.name == "listen" else one.all("listen"))
            if _says_default(listen)
        }
        self.transaction.return_to(remembered)
        blocks = [block for block in self.proxies.of("server") if "default" in block.text]
        taken |= {
            listening_address(listen)
            for block in blocks
            if block.owner != "_"
            for listen in block.directive.all("listen")
            if _says_default(listen)
        }
        for block in self.servers_of("_"):
            text = block.text
            for listen in reversed(block.directive.all("listen") if block.owner == "_" else []):
                if not _says_default(listen) and listening_address(listen) not in taken:
                    text = f"{text[: listen.end - 1]} default_server{text[listen.end - 1 :]}"
            if text != block.text:
                marked = block.replaced(text)
                marked.origins = block.origins
                self.proxies.swap(block, marked)

    def _directives_elsewhere(self, mentioned: str) -> Iterator[Directive]:
        """Give the directives of `http {}` in files that are not the agent's, as far as a word is mentioned there."""
        seen = {str(self._directory / name) for name in (UPSTREAMS, PROXIES, ERROR_PAGES)}
        waiting = [str(self._main)]
        while waiting:
            path = waiting.pop()
            if path in seen or len(seen) > 500:
                continue
            seen.add(path)
            with contextlib.suppress(OutsideFailure, BadSyntax):
                text = (self.transaction.read(Path(path)) or b"").decode("utf-8", "replace")
                if mentioned not in text and "include" not in text:
                    continue
                tops = parse(text)
                found = tops + [child for top in tops if top.name == "http" for child in top.children]
                yield from found
                for one in [
                    *found,
                    *(inner for server in found if server.name == "server" for inner in server.children),
                ]:
                    if one.name == "include" and len(one.words) > 1:
                        waiting += glob.glob(os.path.join(self._directory, one.words[1]))


def _says_default(listen: Directive) -> bool:
    return not {"default_server", "default"}.isdisjoint(listen.words[2:])


def _map_names(document: Document) -> list[str]:
    return [word for block in document.of("map") for word in block.directive.words]


def _power(number: int) -> int:
    return 1 << max(number - 1, 1).bit_length()
