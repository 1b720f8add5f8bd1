"""Which key a message may be made with: by id, address and time, with nothing told to a stranger."""

import base64
import time
from pathlib import Path
from typing import Any

import pytest

from scalarizr.envelope import founding, sealed
from scalarizr.envelope.envelopes import UNVERIFIED, Envelopes, OpenedMessage, RefusedMessage
from scalarizr.envelope.key import ServerKey
from scalarizr.envelope.keyring import BadKey, Keyring, NamedKey, previous_file, read_keyring
from scalarizr.envelope.replay import ReplayStores
from scalarizr.settings.key_rules import KeyRules
from wire import founding_message, random_key, sealed_message

TEXT = b'{"method": "x", "params": {}, "id": 1}'
DEFAULT, MONITORING, OLD, LOCAL = (random_key() for _ in range(4))


class Door:
    """A server with the keys `default`, `monitoring` (rotated, expires) and `local` (only from some networks)."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))
        rules = KeyRules(expires=self.now + 100, previous_until=self.now + 50)
        self.keys = [
            NamedKey("default", KeyRules(), DEFAULT),
            NamedKey("monitoring", rules, MONITORING, OLD),
            NamedKey("local", KeyRules(sources=("127.0.0.0/8", "fd00::/8")), LOCAL),
        ]
        self.envelopes = Envelopes(
            Keyring(self.keys), ("founding", "sealed"), ReplayStores(300, 1000), lambda: self.now
        )

    def founding(self, key: ServerKey, *identities: str, address: str = "127.0.0.1") -> OpenedMessage:
        body, headers = founding_message(key, TEXT)
        made: dict[bytes, bytes | None] = {name.lower().encode(): value.encode() for name, value in headers.items()}
        if identities:
            made[b"x-key-id"] = identities[0].encode() if len(identities) == 1 else None
        return self.envelopes.open(body, made, "/system", address)

    def sealed(self, key: ServerKey, address: str = "127.0.0.1", **header: Any) -> OpenedMessage:
        token = sealed_message(key, "/system", TEXT, **header)
        return self.envelopes.open(token, {b"content-type": b"application/jose"}, "/system", address)


def refused(call: Any, *arguments: Any, **options: Any) -> RefusedMessage:
    with pytest.raises(RefusedMessage) as caught:
        call(*arguments, **options)
    assert str(caught.value) == UNVERIFIED and not caught.value.verified
    return caught.value


@pytest.fixture
def door() -> Door:
    return Door()


def test_a_message_is_opened_with_the_key_that_it_names(door: Door) -> None:
    assert door.founding(DEFAULT).key == "default"
    with pytest.raises(RefusedMessage, match="seen before"):
        door.founding(DEFAULT, "default")  # it opens, and is the same message once more
    assert door.founding(MONITORING, "monitoring").key == "monitoring"
    assert door.sealed(DEFAULT).key == door.sealed(DEFAULT, kid="default").key == "default"
    assert door.sealed(MONITORING, kid="monitoring").key == "monitoring"


def test_the_answer_is_sealed_with_the_key_of_the_question(door: Door) -> None:
    answer = door.sealed(OLD, kid="monitoring").seal(b"answer")
    assert sealed.open_token(OLD, answer.body)[1] == b"answer"
    answer = door.founding(MONITORING, "monitoring").seal(b"answer")
    headers = dict(answer.headers)
    assert founding.open_body(MONITORING, answer.body, headers["Date"], headers["X-Signature"]) == b"answer"


@pytest.mark.parametrize(
    "identity", ["monitoring", "nobody", "", "-", "../default", "keys/default", "default.previous"]
)
def test_another_id_than_the_keys_own_is_refused_in_the_same_words(door: Door, identity: str) -> None:
    refused(door.founding, DEFAULT, identity)
    refused(door.sealed, DEFAULT, kid=identity)
    refused(door.sealed, MONITORING)


@pytest.mark.parametrize("kid", [None, 5, True, ["default"], {"default": 1}, 1.5])
def test_an_id_that_is_no_text_is_refused(door: Door, kid: object) -> None:
    refused(door.sealed, DEFAULT, kid=kid)


def test_two_ids_in_the_head_are_refused_whichever_they_are(door: Door) -> None:
    refused(door.founding, DEFAULT, "default", "default")


def test_a_header_beside_the_id_of_a_sealed_message_is_refused(door: Door) -> None:
    for header in ({}, {"kid": "monitoring"}):
        token = sealed_message(MONITORING if header else DEFAULT, "/system", TEXT, **header)
        for value in (b"monitoring", b"default", None):
            headers: dict[bytes, bytes | None] = {b"content-type": b"application/jose", b"x-key-id": value}
            refused(door.envelopes.open, token, headers, "/system", "127.0.0.1")


def test_a_key_is_accepted_until_it_expires_and_not_in_that_second(door: Door) -> None:
    door.now += 99
    door.sealed(MONITORING, kid="monitoring")
    door.now += 1
    assert refused(door.sealed, MONITORING, kid="monitoring").problem == "the key has expired"
    assert refused(door.founding, MONITORING, "monitoring").key == "monitoring"


def test_the_key_before_a_rotation_is_accepted_until_its_time_is_over(door: Door) -> None:
    door.now += 49
    door.sealed(OLD, kid="monitoring")
    door.founding(OLD, "monitoring")
    door.now += 1
    refused(door.sealed, OLD, kid="monitoring")
    refused(door.founding, OLD, "monitoring")
    door.sealed(MONITORING, kid="monitoring")


@pytest.mark.parametrize(
    ("address", "accepted"),
    [
        ("127.0.0.1", True),
        ("::ffff:127.9.9.9", True),
        ("fd00::1", True),
        ("fd00::1%eth0", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("unix", False),
        ("", False),
    ],
)
def test_a_key_with_networks_is_accepted_from_there_only(door: Door, address: str, accepted: bool) -> None:
    if accepted:
        assert door.sealed(LOCAL, address, kid="local").key == "local"
        assert door.founding(LOCAL, "local", address=address).key == "local"
    else:
        assert "address" in str(refused(door.sealed, LOCAL, address, kid="local").problem)
        refused(door.founding, LOCAL, "local", address=address)


def test_the_same_work_is_done_for_every_id(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[ServerKey] = []
    sign, decrypt = founding.sign, sealed.decrypt

    def counted_sign(key: ServerKey, *rest: Any) -> bytes:
        tried.append(key)
        return sign(key, *rest)

    def counted_decrypt(key: ServerKey, token: sealed.Token) -> bytes:
        tried.append(key)
        return decrypt(key, token)

    monkeypatch.setattr(founding, "sign", counted_sign)
    monkeypatch.setattr(sealed, "decrypt", counted_decrypt)
    stranger = random_key()
    for identity, address in (
        ("default", "127.0.0.1"),
        ("monitoring", "127.0.0.1"),
        ("local", "10.0.0.1"),
        ("nobody", "127.0.0.1"),
    ):
        message = founding_message(stranger, TEXT)
        tried.clear()
        headers = {name.lower().encode(): value.encode() for name, value in message[1].items()}
        refused(door.envelopes.open, message[0], {**headers, b"x-key-id": identity.encode()}, "/system", address)
        assert len(tried) == 2, f"a message signed for {identity}"
        tried.clear()
        refused(door.sealed, stranger, address, kid=identity)
        assert len(tried) == 2, f"a message sealed for {identity}"
    tried.clear()
    refused(door.sealed, LOCAL, "10.0.0.1", kid="local")
    assert LOCAL not in tried, "nothing is opened with a key that is not accepted"


def test_a_message_of_one_key_is_no_replay_of_anothers(door: Door) -> None:
    identity = sealed.new_id()
    door.sealed(DEFAULT, jti=identity)
    door.sealed(MONITORING, kid="monitoring", jti=identity)
    with pytest.raises(RefusedMessage, match="seen before"):
        door.sealed(MONITORING, kid="monitoring", jti=identity)
    with pytest.raises(RefusedMessage, match="seen before"):
        door.sealed(OLD, kid="monitoring", jti=identity)


def write(path: Path, key: ServerKey | bytes) -> None:
    path.write_bytes(key if isinstance(key, bytes) else base64.b64encode(key.raw))


def test_keys_are_read_from_their_files(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", DEFAULT)
    write(tmp_path / "monitoring", MONITORING)
    write(previous_file(tmp_path / "monitoring"), OLD)
    rules = {"default": KeyRules(), "monitoring": KeyRules(previous_until=1000.0)}
    ring = read_keyring(tmp_path, tmp_path / "elsewhere", rules, 900.0)
    assert ring.identities == ["default", "monitoring"]
    assert [key.raw for key in ring.offer("monitoring", "", 999.0).keys] == [MONITORING.raw, OLD.raw]
    assert OLD.raw not in [key.raw for key in ring.offer("monitoring", "", 1000.0).keys]
    later = read_keyring(tmp_path, tmp_path / "elsewhere", rules, 1000.0)
    assert [key.raw for key in later.offer("monitoring", "", 1000.0).keys] == [MONITORING.raw]


def test_a_file_without_rules_is_no_key(tmp_path: Path) -> None:
    write(tmp_path / "default", DEFAULT)
    write(tmp_path / "dropped", MONITORING)
    ring = read_keyring(tmp_path, tmp_path / "default", {"default": KeyRules()}, 0.0)
    assert ring.offer("dropped", "", 0.0).problem == "no such key"


def test_a_default_key_that_is_switched_off_needs_no_file(tmp_path: Path) -> None:
    ring = read_keyring(tmp_path, tmp_path / "default", {"default": KeyRules(enabled=False)}, 0.0)
    assert ring.identities == [] and ring.offer(None, "", 0.0).problem == "no such key"


def test_a_key_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path) -> None:
    write(tmp_path / "default", DEFAULT)
    rules = {"default": KeyRules(), "other": KeyRules()}
    with pytest.raises(BadKey, match="other: the key cannot be read: No such file"):
        read_keyring(tmp_path, tmp_path / "default", rules, 0.0)
    write(tmp_path / "other", b"c2hvcnQ=")
    with pytest.raises(BadKey, match="5 bytes, at least 32") as caught:
        read_keyring(tmp_path, tmp_path / "default", rules, 0.0)
    assert "c2hvcnQ" not in str(caught.value) and "short" not in str(caught.value)


@pytest.mark.parametrize("ending", [b"", b"\0", b"\0" * 8])
def test_two_ids_never_have_one_key(tmp_path: Path, ending: bytes) -> None:
    write(tmp_path / "default", DEFAULT)
    write(tmp_path / "other", base64.b64encode(DEFAULT.raw + ending))
    with pytest.raises(BadKey, match="default has the same key as other"):
        read_keyring(tmp_path, tmp_path / "default", {"default": KeyRules(), "other": KeyRules()}, 0.0)
