"""Settings and rules of keys: a file is read as it says or refused in one paragraph that names it, and no secret."""

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from scalarizr.api.namespaces import ALIASES, NAMESPACES
from scalarizr.settings.key_id import is_key_id
from scalarizr.settings.key_rules import FILE_NAME as RULES
from scalarizr.settings.keys import load_key_rules
from scalarizr.settings.load import FILE_NAME, BadSettings, load_settings, where_set
from scalarizr.settings.model import Settings
from scalarizr.settings.quantities import Seconds, Size

LONGEST = 1024
_FIELDS = [field for section in msgspec.structs.fields(Settings) for field in msgspec.structs.fields(section.type)]
WORDS = (
    *(f"\n[{section.name}]\n".encode() for section in msgspec.structs.fields(Settings)),
    *dict.fromkeys(f"{field.name} = ".encode() for field in _FIELDS),
    *(
        b'"8 MiB"',
        b'"10 min"',
        b"true",
        b"[]",
        b"{}",
        b"nan",
        b"inf",
        b"0x10",
        b"1e3",
        b"-1",
        b"1979-05-27T07:32:00Z",
        b'"""',
        b"'''",
        b"\\u0000",
        b"[[",
        b"]]",
        b".",
        b"allow = ",
        b'"read-only"',
        b'"nginx.*"',
        b'from = ["10.0.0.0/8"]',
        b"expires = ",
        b"enabled = ",
    ),
)
_ETC = Path(tempfile.mkdtemp(prefix="fuzz-settings-"))
atexit.register(shutil.rmtree, _ETC, ignore_errors=True)
_SECRET = "mongodb://user:pass-word"


def check(data: bytes) -> None:
    """The first byte: bit 0: the settings, or the rules of keys. What follows is the file."""
    rules = bool(data and data[0] & 1)
    path = _ETC / (RULES if rules else FILE_NAME)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data[1:])
    try:
        if rules:
            _check_rules(load_key_rules(_ETC, NAMESPACES, ALIASES))
        else:
            _check_settings(load_settings(_ETC))
    except BadSettings as error:
        told = str(error)
        assert told.startswith(str(path)) and len(told) < 3000, told
        assert _SECRET not in told, "an error shows a password"
        place = re.match(re.escape(str(path)) + r", line (\d+)", told)
        lines = (
            data[1:].count(b"\n") + data[1:].count(b"\r") + 20 * len(re.findall(rb"[\v\f\x1c-\x1e\x85\xe2]", data[1:]))
        )
        assert place is None or int(place[1]) <= lines + 1, (told, lines)
    if not rules:
        for section, key in (("api", "listen"), ("mongodb", "uri")):
            assert where_set(_ETC, section, key).startswith(str(path))


def _check_settings(settings: Settings) -> None:
    for section in msgspec.structs.fields(Settings):
        for field in msgspec.structs.fields(section.type):
            value = getattr(getattr(settings, section.name), field.name)
            if isinstance(value, Path):
                assert value.is_absolute() and "\0" not in str(value), (field.name, value)
            elif isinstance(value, Size | Seconds):
                assert 0 <= value < 10**30, (field.name, value)
            elif type(value) is int:
                assert 0 <= value < 1 << 31, (field.name, value)
    listen = settings.api.listen
    for address in [listen] if isinstance(listen, str) else listen:
        host, colon, port = address.rpartition(":")
        assert host and colon and 0 <= int(port) <= 65535
    assert listen and settings.api.envelopes and set(settings.api.envelopes) <= {"founding", "sealed"}
    assert 1 <= settings.api.clock_skew <= 86400 and settings.api.connections >= 1 and settings.api.queue >= 1
    # What was read can be written and read again: what is left of it is a plain value.
    assert msgspec.json.encode(settings, enc_hook=str)


def _check_rules(rules: dict[str, Any]) -> None:
    assert "default" in rules
    for identity, rule in rules.items():
        assert is_key_id(identity) and "/" not in identity
        assert type(rule.enabled) is bool and isinstance(rule.allow, tuple)
        for pattern in rule.allow:
            assert pattern in ("*", "read-only") or pattern.partition(".")[0] in NAMESPACES, pattern


def seeds() -> dict[str, bytes]:
    """Make files as administrators write them."""
    made = {
        "api": b'[api]\nlisten = ["0.0.0.0:8010", "[::]:8010"]\nmax_body = "8 MiB"\nclock_skew = "5 min"\n'
        b'envelopes = ["sealed"]\nconnections = 2048\n',
        "paths": b'[paths]\nstate = "state"\nkey = "/etc/k"\n',
        "dotted": b'api.listen = "127.0.0.1:1"\napi.queue = 8\n',
        "inline": b'logs = { max_size = "1 MB", keep = 3 }\n[postgresql]\nvolume = { type = "ebs", id = "v" }\n',
        "secret": f'[mongodb]\nuri = "{_SECRET}@h/"\nmonitoring_agent = {{ package = "p", sha256 = "x" }}\n'.encode(),
        "bad-secret": f'[mongodb]\nuri = ["{_SECRET}@h/"]\n'.encode(),
        "unknown-section": b"[nginxx]\n",
        "unknown-key": b'[api]\nlisen = "x"\n',
        "kind": b"[api]\nqueue = true\n",
        "choice": b'[nginx]\nmanager = "upstart"\n',
        "no-listen": b"[api]\nlisten = []\n",
        "broken": b'[api\nlisten = "x"',
        "date": b"[api]\nqueue = 1979-05-27T07:32:00Z\n",
        "numbers": b"[api]\nqueue = 0xff\nreplay_entries = 1_000\nidle_timeout = 1.5e1\n",
        "array": b"[[api]]\nqueue = 1\n",
        "multi-line": b"[ec2]\nregion = \"\"\"\na\nb\"\"\"\nzone = '''x'''\n",
        "no-utf-8": b"[api]\n# \xff\n",
    }
    rules = {
        "keys": b'[default]\nallow = ["*"]\n[web]\nallow = ["nginx.*", "app.list_virtual_hosts", "read-only"]\n'
        b'from = ["10.0.0.0/8", "2001:db8::/32"]\nexpires = 2027-01-31T00:00:00Z\nenabled = true\n'
        b"made = 2026-01-31 00:00:00+02:00\n",
        "no-allow": b"[web]\nenabled = false\n",
        "bad-id": b'["../x"]\nallow = ["*"]\n',
        "bad-moment": b'[w]\nallow = ["*"]\nexpires = 2027-01-31\n',
        "bad-network": b'[w]\nallow = ["*"]\nfrom = ["10.0.0.1/8"]\n',
        "bad-pattern": b'[w]\nallow = ["nginx.*.x"]\n',
        "no-section": b"a = 1\n",
    }
    return {name: b"\0" + text for name, text in made.items()} | {f"rules-{n}": b"\1" + t for n, t in rules.items()}
