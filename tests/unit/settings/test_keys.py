"""What may be laid down of keys, what is said of every mistake, and how a program changes it in place."""

import os
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalarizr.settings.key_id import is_key_id
from scalarizr.settings.key_rules import KeyRules
from scalarizr.settings.keys import load_key_rules
from scalarizr.settings.keys_file import add_section, moment, remove_section, set_value
from scalarizr.settings.load import BadSettings

NAMESPACES = ["system", "nginx", "operation"]
ALIASES = {"www": "nginx"}


def load(etc: Path, text: str) -> dict[str, KeyRules]:
    path = etc / "keys.toml"
    path.write_text(text)
    path.chmod(0o600)
    return load_key_rules(etc, NAMESPACES, ALIASES)


def test_without_a_file_the_default_key_may_do_everything(tmp_path: Path) -> None:
    assert load_key_rules(tmp_path, NAMESPACES, ALIASES) == {"default": KeyRules(allow=("*",))}


def test_all_that_can_be_laid_down_is_read(tmp_path: Path) -> None:
    rules = load(
        tmp_path,
        '[web]\nallow = ["www.*", "nginx.make_proxy", "read-only", "www.*"]\nfrom = ["10.0.0.0/8", "::1"]\n'
        "expires = 2027-01-31T12:00:00+02:00\nmade = 2026-01-01T00:00:00Z\nprevious_until = 2026-01-02T00:00:00Z\n"
        "enabled = false\n[default]\nenabled = true\n",
    )
    assert rules["default"] == KeyRules()
    assert rules["web"] == KeyRules(
        allow=("nginx.*", "nginx.make_proxy", "read-only"),
        sources=("10.0.0.0/8", "::1/128"),
        expires=datetime(2027, 1, 31, 10, tzinfo=UTC).timestamp(),
        made=datetime(2026, 1, 1, tzinfo=UTC).timestamp(),
        previous_until=datetime(2026, 1, 2, tzinfo=UTC).timestamp(),
        enabled=False,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[a]\nallow = ["*"]\nalow = 1\n', r"line 3: \[a\] alow is nothing that a key has; did you mean allow\?"),
        ("\n[a]\nenabled = true\n", r"line 2: \[a\] lacks allow: what the key may call"),
        ('[a]\nallow = "system.*"\n', r"line 2: \[a\] allow: got 'system.\*', expected a list of texts"),
        ("[a]\nallow = [1]\n", "expected a list of texts"),
        ('[a]\nallow = ["sistem.*"]\n', r"got 'sistem.\*', expected a namespace that there is: system, perhaps"),
        ('[a]\nallow = ["postgresql.*"]\n', "a namespace that there is: one of system, nginx, operation"),
        ('[a]\nallow = ["system"]\n', 'expected "namespace.method"'),
        ('[a]\nallow = ["system.get_*"]\n', 'expected "namespace.method"'),
        ('[a]\nallow = ["System.uname"]\n', 'expected "namespace.method"'),
        ('[a]\nallow = ["*.uname"]\n', 'expected "namespace.method"'),
        ('[a]\nallow = ["system.uname\\n"]\n', 'expected "namespace.method"'),
        ('[a]\nallow = []\nfrom = ["10.0.0.1/8"]\n', r"line 3: \[a\] from: got '10.0.0.1/8'.*host bits set"),
        ('[a]\nallow = []\nfrom = ["example.com"]\n', "expected an address or a network"),
        ("[a]\nallow = []\nfrom = []\n", "at least one network"),
        ('[a]\nallow = []\nfrom = "10.0.0.0/8"\n', "a list of texts"),
        ("[a]\nallow = []\nexpires = 2027-01-31\n", "expected a moment with its zone"),
        ("[a]\nallow = []\nexpires = 2027-01-31T00:00:00\n", "expected a moment with its zone"),
        ("[a]\nallow = []\nexpires = 5\n", "expected a moment with its zone"),
        ("[a]\nallow = []\nenabled = 1\n", "expected true or false"),
        ('["a/b"]\nallow = []\n', r"\[a/b\] is no id of a key"),
        ('["../x"]\nallow = []\n', "is no id of a key"),
        ("a = 1\n", "line 1: a stands outside of a key's section"),
        ("[a]\nallow = [\n", "is not TOML"),
    ],
)
def test_every_mistake_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadSettings, match=words) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/keys.toml, line ")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path, mode: int) -> None:
    load(tmp_path, "")
    (tmp_path / "keys.toml").chmod(mode)
    with pytest.raises(BadSettings, match="others may write it"):
        load_key_rules(tmp_path, NAMESPACES, ALIASES)


@pytest.mark.root
def test_a_file_of_another_user_is_not_believed(tmp_path: Path) -> None:
    load(tmp_path, "")
    os.chown(tmp_path / "keys.toml", 12345, 0)
    with pytest.raises(BadSettings, match="belongs to user 12345"):
        load_key_rules(tmp_path, NAMESPACES, ALIASES)


@given(st.text(max_size=70))
def test_an_id_is_a_plain_file_name(text: str) -> None:
    if is_key_id(text):
        assert Path("keys", text).name == text and text.isascii() and text.isprintable() and not text.startswith("-")


BY_HAND = """\
# Ours.
[a]  # the first
# Why it is there.
allow = [
  "system.*",
  "nginx.*",
]
"expires" = 2027-01-31T00:00:00Z  # the contract's end

[ "b" ]
allow = ["*"]"""


def test_a_section_is_added_behind_what_a_person_wrote(tmp_path: Path) -> None:
    until = moment(1_800_000_000.7)
    text = add_section(BY_HAND, "c", {"allow": ["read-only", 'a"b\\'], "expires": until, "enabled": False})
    assert text.startswith(BY_HAND)
    assert tomllib.loads(text)["c"] == {"allow": ["read-only", 'a"b\\'], "expires": until, "enabled": False}
    assert add_section("", "c", {"allow": ["*"]}).startswith("# What each key")


def test_a_section_is_taken_out_and_the_others_stay_as_they_were() -> None:
    assert tomllib.loads(remove_section(BY_HAND, "a")) == {"b": {"allow": ["*"]}}
    assert remove_section(BY_HAND, "b") == BY_HAND[: BY_HAND.index('\n[ "b"')]


def test_one_line_is_put_replaced_and_taken_out() -> None:
    until = moment(1_800_000_000)
    put = set_value(BY_HAND, "b", "previous_until", until)
    assert put.endswith(f'[ "b" ]\nprevious_until = {until:%FT%TZ}\nallow = ["*"]')
    assert set_value(put, "b", "previous_until", None) == BY_HAND
    replaced = set_value(BY_HAND, "a", "expires", until)
    assert tomllib.loads(replaced)["a"]["expires"] == until and "# Why it is there." in replaced
    assert set_value(BY_HAND, "b", "enabled", False).count("enabled = false") == 1


@pytest.mark.parametrize("text", ['a = { allow = ["*"] }\n', 'a.allow = ["*"]\n', '[a]\nmade = """\n[b]\n"""\n'])
def test_a_form_that_is_not_understood_is_left_to_a_person(text: str) -> None:
    with pytest.raises(BadSettings, match="Nothing was changed; edit it by hand"):
        remove_section(text, "a")
