"""Fetching a package: a private copy, checked, and gone afterwards."""

import hashlib
import socket
import threading
from pathlib import Path

import pytest

from scalarizr.errors import NotConfigured, NotFound, Refused, TimedOut
from scalarizr.mongodb import package
from scalarizr.settings.model import MonitoringAgent

CONTENT = b"content of a package"
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.tar.gz"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "monitoring"
    path.mkdir()
    return path


@pytest.mark.parametrize("checksum", [SUM, SUM.upper(), "", None])
def test_a_copy_is_there_while_it_is_used(source: Path, directory: Path, checksum: str | None) -> None:
    setting = str(source) if checksum is None else MonitoringAgent(package=str(source), sha256=checksum)
    with package.fetched(setting, directory) as (copy, digest):
        assert copy.read_bytes() == CONTENT and digest == SUM and copy.stat().st_mode & 0o777 == 0o600
        source.write_bytes(b"another one")
        assert copy.read_bytes() == CONTENT
    assert list(directory.iterdir()) == []


def test_another_content_than_the_checksum_says_is_not_handed_out(source: Path, directory: Path) -> None:
    with (
        pytest.raises(Refused, match="not the one that the settings name"),
        package.fetched(MonitoringAgent(package=str(source), sha256="0" * 64), directory),
    ):
        raise AssertionError("it was handed out")
    assert list(directory.iterdir()) == []


def test_one_that_is_too_large_is_refused(source: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "LARGEST_PACKAGE", len(CONTENT) - 1)
    with pytest.raises(Refused, match="larger than"), package.fetched(str(source), directory):
        raise AssertionError("it was handed out")
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        (None, NotConfigured),
        ("", NotConfigured),
        (MonitoringAgent(), NotConfigured),
        ("http://127.0.0.1:1/package", NotConfigured),
        (MonitoringAgent(package="https://127.0.0.1:1/package", sha256="12"), NotConfigured),
        ("relative/path", NotFound),
        ("/", NotFound),
        ("file:///etc/passwd", NotFound),
        ("ftp://127.0.0.1/x", NotFound),
    ],
)
def test_what_names_no_package_says_so(
    setting: str | MonitoringAgent | None, kind: type[Exception], directory: Path
) -> None:
    with pytest.raises(kind, match="Nothing was changed"), package.fetched(setting, directory):
        raise AssertionError("it was handed out")
    assert list(directory.iterdir()) == []


def test_one_that_comes_byte_by_byte_is_given_up_in_time(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "_WHOLE", 0.0)
    given_up = threading.Event()

    def send_one_byte(listener: socket.socket) -> None:
        connection, _address = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx")
            given_up.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = threading.Thread(target=send_one_byte, args=(listener,))
        sender.start()
        try:
            setting = MonitoringAgent(package=f"http://127.0.0.1:{listener.getsockname()[1]}/package", sha256=SUM)
            with pytest.raises(TimedOut, match="did not come within"), package.fetched(setting, directory):
                raise AssertionError("it was handed out")
        finally:
            given_up.set()
            sender.join(60)
    assert list(directory.iterdir()) == []
