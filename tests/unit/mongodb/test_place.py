"""What the setting of the server says, what a server says of itself, and the passwords that are kept."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scalarizr.errors import NotConfigured
from scalarizr.mongodb.package import shown
from scalarizr.mongodb.passwords import KeptPasswords
from scalarizr.mongodb.place import Address, Login, read_place
from scalarizr.mongodb.server import is_writable, state_of
from scalarizr.secret import Secret


def test_without_a_setting_the_server_is_on_this_host() -> None:
    assert [str(address) for address in read_place(None).addresses] == ["127.0.0.1:27017"]
    assert read_place("").login is None


def test_hosts_credentials_and_tls_are_read() -> None:
    place = read_place("mongodb://us%40er:p%2Fw@[::1]:27018,db.example.com/?tls=true&authSource=other&replicaSet=rs0")
    assert [str(address) for address in place.addresses] == ["[::1]:27018", "db.example.com:27017"]
    assert place.login == Login("us@er", Secret("p/w"), "other") and dict(place.tls) == {"tls": True}
    assert read_place("mongodb://u:p@h/db").login == Login("u", Secret("p"), "db")
    socket = read_place("mongodb://%2Ftmp%2Fmongodb-27017.sock").addresses[0]
    assert (str(socket), socket.is_local) == ("/tmp/mongodb-27017.sock", True)


def test_what_is_local_is_known() -> None:
    assert Address("127.8.0.1").is_local and Address("localhost").is_local and Address("::1").is_local
    assert not Address("10.0.0.1").is_local and not Address("localhost.example.com").is_local


@pytest.mark.parametrize("uri", ["x", "mongodb://", "mongodb://u:planted@h:99999", "mongodb://u:planted:x@h@/"])
def test_a_useless_setting_is_not_shown(uri: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        read_place(uri)
    assert "planted" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# Answers of mongod 4.4 to 8.0 to `hello` and `isMaster`, by MongoDB's manual: the fields that tell the state.
@pytest.mark.parametrize(
    ("hello", "words"),
    [
        ({"isWritablePrimary": True}, None),
        ({"ismaster": True, "msg": "isdbgrid"}, None),
        ({"isWritablePrimary": True, "readOnly": True}, "is read-only"),
        ({"isWritablePrimary": False, "secondary": True, "setName": "rs0"}, "has no primary now"),
        ({"isWritablePrimary": False, "secondary": False, "setName": "rs0"}, "starts, or recovers"),
        ({"isWritablePrimary": False, "secondary": False, "isreplicaset": True}, "never initiated"),
        ({"isWritablePrimary": False, "arbiterOnly": True, "setName": "rs0"}, "is an arbiter"),
        ({}, "takes no changes now"),
    ],
)
def test_each_state_of_a_server_has_its_own_words(hello: dict[str, Any], words: str | None) -> None:
    assert is_writable(hello) == (words is None)
    assert words is None or words in state_of(hello)


def test_kept_passwords_are_of_one_user_and_nobody_else_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "private.d" / "mongodb.json"
    kept = KeptPasswords(path, "scalr")
    assert kept.all() == []
    kept.keep([Secret("new"), Secret("old")])
    assert kept.all() == [Secret("new"), Secret("old")] and KeptPasswords(path, "other").all() == []
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("damaged")
    assert kept.all() == []


def test_a_url_is_shown_without_what_may_be_secret_in_it() -> None:
    assert shown("https://user:planted@host:1/a/b?token=planted#planted") == "https://host:1/a/b"
    assert shown("/a/file?x") == "/a/file?x"


def test_neither_the_namespace_nor_what_supervises_imports_the_driver() -> None:
    modules = "scalarizr.api.mongodb, scalarizr.mongodb.users, scalarizr.mongodb.monitoring, scalarizr.mongodb.keeper"
    code = (
        f"import sys, {modules}; print(sorted({{'pymongo', 'zstandard', 'ssl', 'urllib.request'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
