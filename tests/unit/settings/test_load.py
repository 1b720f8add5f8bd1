"""Settings: what is read, and what is said of every mistake."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalarizr.settings.address import BadAddress, read_address
from scalarizr.settings.change import LIVE, changed_settings
from scalarizr.settings.load import BadSettings, load_settings
from scalarizr.settings.model import Settings
from scalarizr.settings.quantities import Seconds, Size
from scalarizr.settings.template import template


def load(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "scalarizr.toml").write_text(text)
    return load_settings(tmp_path)


def test_without_a_file_the_defaults_count(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    assert settings.api.listen == "0.0.0.0:8010" and settings.api.max_body == 8 << 20
    assert settings.paths.key == tmp_path / "private.d" / "keys" / "default"
    assert settings.environment.directory == tmp_path / "environment"
    assert settings.paths.state == Path("/var/lib/scalarizr")


def test_the_written_file_is_the_defaults_commented_or_not(tmp_path: Path) -> None:
    defaults = load_settings(tmp_path)
    assert load(tmp_path, template()) == defaults
    uncommented = re.sub(r"^# (\w+ = .)", r"\1", template(), flags=re.MULTILINE)
    assert uncommented != template() and load(tmp_path, uncommented) == defaults


def test_relative_paths_are_below_the_directory(tmp_path: Path) -> None:
    settings = load(tmp_path, '[paths]\nstate = "s"\nkey = "k"\n[environment]\ndirectory = "e"\n')
    assert (settings.paths.state, settings.paths.key) == (tmp_path / "s", tmp_path / "k")
    assert settings.environment.directory == tmp_path / "e"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[api]\nlisten = 5\n", r"line 2: \[api\] listen: got 5, expected text or a list"),
        ("[api]\n# x\nmax_bdy = 1\n", r"line 3: \[api\] max_bdy is no setting; did you mean max_body\?"),
        ("\n[apj]\nx = 1\n", r"line 2: \[apj\] is no section; did you mean api\?"),
        ("[zzz]\n", r"\[zzz\] is no section; there are api, paths"),
        ('[api]\nmax_body = "8 XB"\n', r'line 2: .*expected a size such as "8 MiB"'),
        ("[api]\nmax_body = -1\n", "expected a size"),
        ("[api]\nmax_body = 0\n", "expected at least 1"),
        ('[api]\nenvelopes = ["sealed", "plain"]\n', r'line 2: .*expected one of "founding", "sealed"'),
        ("[api]\nenvelopes = []\n", "at least one of"),
        ("[api]\nclock_skew = true\n", "expected a duration"),
        ("[api]\nclock_skew = 0\n", "expected 1 s to 1 d"),
        ('[api]\nlisten = "8010"\n', r"line 2: .*expected an address such as"),
        ('[api]\nlisten = "::1:8010"\n', "IPv6 address in brackets"),
        ('[api]\nlisten = ["127.0.0.1:1", "x:99999"]\n', "expected an address"),
        ("[api]\nqueue = 1.5\n", "expected a whole number"),
        ('[paths]\nstate = ""\n', "expected a path"),
        ('[environment]\nsource = "ldap"\n', 'expected one of "local", "queryenv"'),
        ("[mongodb]\nuri = 5\n", r"got a value that is not shown, expected text"),
        ("api = 3\n", r"line 1: api is a section"),
        ("api.queue = 'x'\n", r"line 1: \[api\] queue"),
        ("[api]\nqueue = \n", r"line 2, column \d+: is not TOML"),
        ("[api\n", r"line 1.*is not TOML"),
        ("[operations]\nparallel = 0\n", "at least 1"),
    ],
)
def test_a_mistake_is_told_with_file_line_key_and_what_was_expected(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BadSettings, match=words) as caught:
        load(tmp_path, text)
    assert str(tmp_path / "scalarizr.toml") in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_text_or_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "scalarizr.toml").write_bytes(b"\n[api]\n# \xff")
    with pytest.raises(BadSettings, match="line 3: is not UTF-8"):
        load_settings(tmp_path)
    (tmp_path / "scalarizr.toml").unlink()
    (tmp_path / "scalarizr.toml").mkdir()
    with pytest.raises(BadSettings, match="cannot be read"):
        load_settings(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"), [("8 MiB", 8 << 20), ("8MiB", 8 << 20), ("1 GB", 10**9), (17, 17), ("1.5 KiB", 1536), ("0", 0)]
)
def test_sizes(text: object, value: int) -> None:
    assert Size.parse(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("2 d", 172800), ("10 min", 600), ("30 s", 30), (0.5, 0.5), ("250 ms", 0.25), ("1 h", 3600)]
)
def test_durations(text: object, value: float) -> None:
    assert Seconds.parse(text) == value


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_a_quantity_is_read_or_refused(value: object) -> None:
    for kind in (Size, Seconds):
        try:
            assert kind.parse(value) >= 0
        except ValueError as error:
            assert "such as" in str(error)


@pytest.mark.parametrize(("text", "address"), [("[::1]:1", ("::1", 1)), ("localhost:8010", ("localhost", 8010))])
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert read_address(text) == address
    with pytest.raises(BadAddress):
        read_address(text.rpartition(":")[0])


def test_changes_are_named_and_live_ones_exist(tmp_path: Path) -> None:
    old, new = load_settings(tmp_path), load(tmp_path, '[api]\nqueue = 5\nlisten = "127.0.0.1:1"\n')
    assert changed_settings(old, new) == ["api.listen", "api.queue"]
    names = {
        f"{section}.{key}" for section in Settings.__struct_fields__ for key in getattr(old, section).__struct_fields__
    }
    assert names >= LIVE


def test_a_number_that_is_too_small_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scalarizr.toml").write_text("[changes]\nkeep = 0\n")
    with pytest.raises(BadSettings, match=r"\[changes\] keep: got 0, expected a whole number, 1 or more"):
        load_settings(tmp_path)
