"""The environment from files: `roles.toml`, `metrics.toml`, `virtual_hosts.toml`, `certificates/`.

Each is read when it is asked for, and again when it changed. A mistake in one is told with file, line and key.
"""

import os
import re
import threading
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from scalarizr.environment.source import Certificate, Metric, Role, Server, VirtualHost
from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure, nearest
from scalarizr.secret import Secret

_LARGEST = 1 << 20
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TABLE = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(?:#.*)?")


class _Seen(NamedTuple):
    signature: tuple[int, int, int] | None
    content: Any


class LocalFiles:
    """The local source.

    :param directory: where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[str, _Seen] = {}
        self._guard = threading.Lock()

    def roles(self) -> list[Role]:
        roles: list[Role] = self._file("roles.toml", _read_roles)
        return list(roles)

    def role(self, farm_role_id: str) -> Role:
        for role in self.roles():
            if role.id == str(farm_role_id):
                return role
        raise NotFound(
            f"There is no role {str(farm_role_id)[:60]} in {self._directory / 'roles.toml'}.",
            {"farm_role_id": str(farm_role_id)[:60]},
        )

    def metrics(self) -> list[Metric]:
        metrics: list[Metric] = self._file("metrics.toml", _read_metrics)
        return list(metrics)

    def virtual_hosts(self) -> list[VirtualHost]:
        described: list[tuple[dict[str, Any], int]] = self._file("virtual_hosts.toml", _read_virtual_hosts)
        return [self._virtual_host(entry, line) for entry, line in described]

    def farm_role_params(self, farm_role_id: str) -> dict[str, Any]:
        self.role(farm_role_id)
        return {}

    def certificate(self, certificate_id: str | None) -> Certificate:
        if certificate_id is not None and not _ID.fullmatch(str(certificate_id)):
            raise InvalidParameter(
                "ssl_certificate_id",
                repr(certificate_id)[:60],
                "letters, digits, `-` and `_`, at most 64 of them",
            )
        stem = self._directory / "certificates" / (str(certificate_id) if certificate_id is not None else "default")
        texts = {ending: _text(stem.with_name(f"{stem.name}.{ending}")) for ending in ("crt", "key", "ca")}
        for ending in ("crt", "key"):
            if texts[ending] is None:
                raise NotFound(
                    f"There is no file {stem}.{ending}: the environment has no such certificate.",
                    {"file": f"{stem}.{ending}"},
                )
        return Certificate(
            id=None if certificate_id is None else str(certificate_id),
            certificate=texts["crt"] or "",
            key=Secret(texts["key"] or ""),
            chain=texts["ca"],
        )

    def _file(self, name: str, read: Any) -> Any:
        path = self._directory / name
        try:
            status = os.stat(path)
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        except FileNotFoundError:
            signature = None
        except OSError as error:
            raise OutsideFailure(f"{path} cannot be read: {error.strerror}.", {"file": str(path)}) from error
        with self._guard:
            seen = self._seen.get(name)
            if seen is None or seen.signature != signature:
                text = _text(path) or ""
                seen = self._seen[name] = _Seen(signature, read(path, text, _toml(path, text)))
            return seen.content

    def _virtual_host(self, entry: dict[str, Any], line: int) -> VirtualHost:
        entry = dict(entry)
        file = entry.pop("template_file", None)
        path = self._directory / "virtual_hosts.toml"
        if file is not None:
            if "template" in entry:
                raise _mistake(path, line, "template_file", "template and template_file", "one of the two")
            place = self._directory / file
            inside = place.resolve().is_relative_to(self._directory.resolve())
            if not inside:
                raise _mistake(path, line, "template_file", repr(file), f"a file below {self._directory}")
            text = _text(place)
            if text is None:
                raise NotFound(f"{place}, which {path}, line {line} names, does not exist.", {"file": str(place)})
            entry["template"] = text
        return VirtualHost(**entry)


def _text(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            raw = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutsideFailure(f"{path} cannot be read: {error.strerror}.", {"file": str(path)}) from error
    if len(raw) > _LARGEST:
        raise OutsideFailure(f"{path} is larger than 1 MiB.", {"file": str(path)})
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise OutsideFailure(f"{path}, line {line}: is not UTF-8 text.", {"file": str(path), "line": line}) from None


def _toml(path: Path, text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        line = int(match[1]) if match else text.count("\n") + 1
        words = str(error)[: match.start()] if match else str(error).removesuffix(" (at end of document)")
        raise OutsideFailure(f"{path}, line {line}: is not TOML: {words}.", {"file": str(path), "line": line}) from None


def _mistake(path: Path, line: int, key: str, got: str, expected: str) -> OutsideFailure:
    return OutsideFailure(
        f"{path}, line {line}: {key}: got {got}, expected {expected}.",
        {"file": str(path), "line": line, "key": key},
    )


def _read_roles(path: Path, text: str, data: dict[str, Any]) -> list[Role]:
    _only(path, text, data, ["roles"])
    roles = []
    tables = data.get("roles", {})
    if not isinstance(tables, dict):
        raise _mistake(path, _line_of_key(text, "roles"), "roles", "a value", "tables such as [roles.1234]")
    for identity, table in tables.items():
        line = _line_of_table(text, f"roles.{identity}", 0)
        if not isinstance(table, dict):
            raise _mistake(path, _line_of_key(text, identity), identity, repr(table)[:60], "a table")
        servers = []
        for entry in _checked(
            path, text, line, table, {"name": str, "behaviours": list[str], "servers": list[Any]}
        ).get("servers", []):
            where = _line_of_key(text, "servers", after=line)
            if not isinstance(entry, dict):
                raise _mistake(path, where, "servers", repr(entry)[:60], 'tables such as { private = "10.0.0.11" }')
            kinds = {
                "private": str,
                "public": str,
                "cloud_location": str,
                "index": int,
                "replication_master": bool,
            }
            servers.append(Server(**_checked(path, text, where, entry, {**kinds, "status": str}, inline=True)))
        roles.append(
            Role(
                id=str(identity),
                name=table.get("name", ""),
                behaviours=tuple(table.get("behaviours", ())),
                servers=tuple(servers),
            )
        )
    return roles


def _read_metrics(path: Path, text: str, data: dict[str, Any]) -> list[Metric]:
    metrics = []
    for number, entry in enumerate(_entries(path, text, data, "metrics")):
        line = _line_of_table(text, "metrics", number)
        kinds = {"id": int, "name": str, "path": str, "retrieve_method": str}
        checked = _checked(path, text, line, entry, kinds, required=tuple(kinds))
        if checked["retrieve_method"] not in ("execute", "read"):
            raise _mistake(
                path,
                _line_of_key(text, "retrieve_method", after=line),
                "retrieve_method",
                repr(checked["retrieve_method"]),
                '"execute" or "read"',
            )
        metrics.append(Metric(**checked))
    return metrics


def _read_virtual_hosts(path: Path, text: str, data: dict[str, Any]) -> list[tuple[dict[str, Any], int]]:
    hosts = []
    for number, entry in enumerate(_entries(path, text, data, "virtual_hosts")):
        line = _line_of_table(text, "virtual_hosts", number)
        kinds = {"hostname": str, "port": int, "ssl": bool, "template": str, "template_file": str}
        entry = dict(entry)
        if type(entry.get("ssl_certificate_id")) is int:
            entry["ssl_certificate_id"] = str(entry["ssl_certificate_id"])
        hosts.append(
            (
                _checked(path, text, line, entry, {**kinds, "ssl_certificate_id": str}, required=("hostname",)),
                line,
            )
        )
    return hosts


def _entries(path: Path, text: str, data: dict[str, Any], name: str) -> list[Any]:
    _only(path, text, data, [name])
    entries = data.get(name, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        line = _line_of_key(text, name) or _line_of_table(text, name, 0)
        raise _mistake(path, line, name, "something else", f"tables that begin with [[{name}]]")
    return entries


def _only(path: Path, text: str, data: dict[str, Any], known: list[str]) -> None:
    for name in data:
        if name not in known:
            line = _line_of_table(text, name, 0) or _line_of_key(text, name)
            raise _mistake(path, line, name, "an unknown name", " or ".join(known))


def _checked(
    path: Path,
    text: str,
    line: int,
    table: dict[str, Any],
    kinds: dict[str, Any],
    *,
    required: tuple[str, ...] = (),
    inline: bool = False,
) -> dict[str, Any]:
    """Check a table's keys and types; a mistake names the line of its key."""
    for key, value in table.items():
        where = line if inline else _line_of_key(text, key, after=line) or line
        if key not in kinds:
            close = nearest(key, kinds)
            expected = f"{close}, perhaps" if close else "one of " + ", ".join(kinds)
            raise _mistake(path, where, key, "an unknown key", expected)
        try:
            msgspec.convert(value, kinds[key])
        except msgspec.ValidationError:
            words = {str: "text", int: "a whole number", bool: "true or false"}
            raise _mistake(path, where, key, repr(value)[:60], words.get(kinds[key], "a list of texts")) from None
    for key in required:
        if key not in table:
            raise _mistake(path, line, key, "nothing", "a value: it must be given")
    return table


def _line_of_table(text: str, name: str, number: int) -> int:
    """Find the `number`-th header `[name]` or `[[name]]`."""
    for line, row in enumerate(text.splitlines(), 1):
        match = _TABLE.fullmatch(row)
        if match and re.sub(r"[\s\"']", "", match[2]) == name:
            if number == 0:
                return line
            number -= 1
    return 0


def _line_of_key(text: str, key: str, after: int = 0) -> int:
    pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=")
    for line, row in enumerate(text.splitlines(), 1):
        if line > after:
            if after and _TABLE.fullmatch(row):
                break
            if pattern.match(row):
                return line
    return after
