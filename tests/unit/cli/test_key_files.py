"""Changing keys: whatever is cut off at any instant, the agent starts, and an old or a new key is accepted."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalarizr.cli import key_files
from scalarizr.cli.key_files import KeyFiles, kinds_of
from scalarizr.envelope.key import ServerKey, make_key_text
from scalarizr.envelope.keyring import Keyring, keys_directory, read_keyring
from scalarizr.errors import AlreadyExists, InvalidParameter, NotFound, Refused, ScalarizrError
from scalarizr.settings.load import load_settings


class Cut(BaseException):
    """The program ends here."""


class Etc:
    """A configuration directory with a default key."""

    def __init__(self, directory: Path) -> None:
        self.etc = directory
        self.keys = keys_directory(directory)
        self.keys.mkdir(parents=True)
        (self.keys / "default").write_bytes(make_key_text())
        self.files = KeyFiles(directory, load_settings(directory))

    def accepted(self, identity: str) -> set[bytes]:
        """Read everything as an agent that starts does; gives the keys that are accepted under an id."""
        ring: Keyring = read_keyring(self.keys, self.keys / "default", self.files.rules(), time.time())
        offer = ring.offer(identity, "127.0.0.1", time.time())
        known = {ServerKey.from_file(path).raw for path in self.keys.iterdir() if path.is_file()}
        return {key.raw for key in offer.keys if key.raw in known} if offer.problem is None else set()

    def raw(self, identity: str) -> bytes:
        return ServerKey.from_file(self.keys / identity).raw


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    return Etc(tmp_path)


def cut_off_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """End the program at a step of writing or removing."""
    left = [steps]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise Cut
            left[0] -= 1
            return real(*arguments, **options)

        return step

    for name in ("write_file", "_remove"):
        monkeypatch.setattr(key_files, name, counted(getattr(key_files, name)))


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("overlap", [3600.0, 0.0])
@pytest.mark.parametrize("identity", ["guest", "default"])
def test_a_rotation_that_is_cut_off_locks_nobody_out(
    etc: Etc, monkeypatch: pytest.MonkeyPatch, identity: str, overlap: float, steps: int
) -> None:
    etc.files.add("guest", ["read-only"], [], None)
    old = etc.raw(identity)
    with monkeypatch.context() as patched:
        cut_off_after(patched, steps)
        try:
            etc.files.rotate(identity, overlap)
            finished = True
        except Cut:
            finished = False
    accepted = etc.accepted(identity)
    if overlap:
        assert old in accepted, "who has the old key is let in, as far as it came"
    assert finished or accepted
    assert etc.raw(identity) in accepted
    etc.files.rotate(identity, 0)
    assert etc.accepted(identity) == {etc.raw(identity)} and old not in etc.accepted(identity)


@pytest.mark.parametrize("steps", range(2))
def test_a_key_that_was_made_by_half_is_none(etc: Etc, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    with monkeypatch.context() as patched:
        cut_off_after(patched, steps)
        with pytest.raises(Cut):
            etc.files.add("guest", ["*"], [], None)
    assert etc.accepted("guest") == set() and len(etc.accepted("default")) == 1


@pytest.mark.parametrize("steps", range(3))
@pytest.mark.parametrize("identity", ["guest", "default"])
def test_a_revocation_counts_from_its_first_step(
    etc: Etc, monkeypatch: pytest.MonkeyPatch, identity: str, steps: int
) -> None:
    etc.files.add("guest", ["*"], [], None)
    with monkeypatch.context() as patched:
        cut_off_after(patched, steps)
        with pytest.raises(Cut):
            etc.files.revoke(identity)
    assert bool(etc.accepted(identity)) == (steps == 0)
    other = "default" if identity == "guest" else "guest"
    assert len(etc.accepted(other)) == 1


def test_a_second_predecessor_is_refused_until_the_first_ones_time_is_over(etc: Etc) -> None:
    first = etc.raw("default")
    etc.files.rotate("default", 3600)
    second = etc.raw("default")
    with pytest.raises(Refused, match="Nothing was changed; wait, or rotate with --overlap 0"):
        etc.files.rotate("default", 3600)
    assert etc.accepted("default") == {first, second}
    etc.files.rotate("default", 0)
    assert etc.accepted("default") == {etc.raw("default")} and not {first, second} & etc.accepted("default")
    etc.files.rotate("default", 3600)
    assert len(etc.accepted("default")) == 2


def test_what_a_person_wrote_stays(etc: Etc) -> None:
    rules = etc.etc / "keys.toml"
    rules.write_text('# Ours.\n[guest]  # the guest\nallow = [\n  "www.*",\n]\n')
    rules.chmod(0o600)
    (etc.keys / "guest").write_bytes(make_key_text())
    etc.files.rotate("guest", 3600)
    etc.files.add("other", ["system.*"], ["10.0.0.0/8"], time.time() + 3600)
    etc.files.revoke("other")
    assert "# Ours.\n[guest]  # the guest\n" in rules.read_text() and 'allow = [\n  "www.*",\n]' in rules.read_text()
    assert set(etc.files.rules()) == {"default", "guest"}


def test_a_default_key_that_was_revoked_stays_so_when_a_new_file_comes(etc: Etc) -> None:
    etc.files.revoke("default")
    (etc.keys / "default").write_bytes(make_key_text())
    assert etc.accepted("default") == set()
    with pytest.raises(NotFound, match="there are: none"):
        etc.files.rotate("default", 0)


def test_nothing_is_overwritten(etc: Etc) -> None:
    (etc.keys / "https").write_text("somebody's")
    for identity in ("https", "default"):
        with pytest.raises(AlreadyExists):
            etc.files.add(identity, ["*"], [], None)
    (etc.keys / "dangling").symlink_to("/nowhere")
    with pytest.raises(AlreadyExists):
        etc.files.add("dangling", ["*"], [], None)
    assert (etc.keys / "https").read_text() == "somebody's" and not (etc.etc / "keys.toml").exists()


@pytest.mark.parametrize(
    ("identity", "allow", "sources", "error", "words"),
    [
        ("../x", ["*"], [], InvalidParameter, "1 to 64 letters"),
        ("x", ["system.unam"], [], InvalidParameter, "system.uname, perhaps"),
        ("x", ["system._log"], [], ScalarizrError, "--allow: got 'system._log', expected \"namespace.method\""),
        ("x", ["sytem.*"], [], ScalarizrError, "--allow: got 'sytem.\\*', expected a namespace"),
        ("x", ["*"], ["example.com"], ScalarizrError, "--from: got 'example.com'"),
    ],
)
def test_a_mistake_leaves_everything_as_it_was(
    etc: Etc, identity: str, allow: list[str], sources: list[str], error: type[ScalarizrError], words: str
) -> None:
    with pytest.raises(error, match=words):
        etc.files.add(identity, allow, sources, None)
    assert [path.name for path in etc.keys.iterdir()] == ["default"] and not (etc.etc / "keys.toml").exists()


def test_the_kinds_of_methods_are_known_without_building_anything() -> None:
    assert kinds_of(("nginx.reconfigure", "nginx.make_proxy", "system.uname", "nginx.*", "*", "read-only")) == {
        "nginx.reconfigure": "operation",
        "nginx.make_proxy": "command",
        "system.uname": "query",
    }
