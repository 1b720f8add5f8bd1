"""What an upload is cut into, and how it is fed and broken off."""

import hashlib
import threading
import time
from collections.abc import Iterator

import pytest

from scalarizr.objectstore.upload import PartDigests, Upload, part_size, several_at_once

MIB = 2**20


@pytest.mark.parametrize("size", [None, 0, 1, 10**9, 75 * 10**9, 10**11, 10**12, 4 * 10**12])
def test_every_size_fits_into_the_parts_that_s3_takes_and_into_memory(size: int | None) -> None:
    piece = part_size(size)
    assert piece % MIB == 0 and 8 * MIB <= piece <= 512 * MIB
    assert (size or 0) / piece <= 10_000
    assert several_at_once(piece) * piece <= max(48 * MIB, piece)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 250, 300])
@pytest.mark.parametrize("step", [1, 7, 100, 1000])
def test_the_tag_is_the_one_that_s3_gives(size: int, step: int) -> None:
    data = bytes(index % 251 for index in range(size))
    digests = PartDigests(100)
    for start in range(0, size, step):
        digests.update(data[start : start + step])
    parts = [hashlib.md5(data[start : start + 100]).digest() for start in range(0, size, 100)]
    if len(parts) < 2:
        assert digests.tag() == hashlib.md5(data).hexdigest()
    else:
        assert digests.tag() == f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"
    assert PartDigests(None).tag() is None


def test_an_upload_gets_what_is_given_and_its_end() -> None:
    upload = Upload(lambda source: str(sum(map(len, source))), lambda: None)
    for _ in range(100):
        upload.give(b"x" * 10)
    assert upload.end() == "1000"


def test_whoever_feeds_an_upload_hears_of_its_failure_even_while_it_waits() -> None:
    release = threading.Event()

    def put(source: Iterator[bytes]) -> str:
        next(source)
        release.wait(10)
        raise ConnectionError("gone")

    upload = Upload(put, release.set)  # the first wait lets it fail
    with pytest.raises(ConnectionError):
        for _ in range(100):
            upload.give(b"x")


def test_a_wait_for_a_slow_store_can_be_ended() -> None:
    def put(source: Iterator[bytes]) -> str:
        next(source)
        ended.wait(20)
        return "".join("x" for _ in source)

    def stop() -> None:
        raise InterruptedError

    ended = threading.Event()
    upload = Upload(put, stop)
    began = time.monotonic()
    with pytest.raises(InterruptedError):
        for _ in range(100):
            upload.give(b"x")
    upload.abandon(limit=0.5)
    assert time.monotonic() - began < 10
    ended.set()
