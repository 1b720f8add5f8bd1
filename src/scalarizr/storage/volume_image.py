"""A block device's content in an object store: parts of a fixed span, compressed, and a manifest that is written last.

A span of nothing but zeros has no part. Every part and the manifest are known by their SHA-256; memory is bounded
whatever the device's size.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure
from scalarizr.objectstore.store import Store
from scalarizr.operations.progress import current
from scalarizr.storage.block_copy import PIECE, is_zero, pieces_of, put, put_zeros
from scalarizr.storage.opened_device import opened, reported

SPAN = 256 << 20
_FORMAT = 1
_LEVEL = 1
_MOST_PARTS = 1 << 17
_MANIFEST = "manifest.json"
_PART = re.compile(r"part-[0-9]{6}\.zst", re.ASCII)
# What a decoder may need: the level above never makes frames with larger windows.
_DECODER_MEMORY = 64 << 20
_UNSYNCED = 64 << 20


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part.

    :param index: which span of the device it holds.
    :param name: its object.
    :param size: bytes in the store.
    :param sha256: of those.
    :param content_sha256: of the span.
    """

    index: int
    name: str
    size: int
    sha256: str
    content_sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an image consists of.

    :param format: of this file.
    :param size: the device's bytes.
    :param span: bytes of the device that a part holds; the last one may be shorter.
    :param parts: those that hold anything but zeros.
    """

    format: int
    size: int
    span: int
    parts: list[Part]


class Kept(msgspec.Struct, frozen=True):
    """An image in a store.

    :param manifest_sha256: of its manifest: whoever knows that knows everything.
    :param size: bytes of all its parts.
    """

    manifest_sha256: str
    size: int


def keep(store: Store, directory: str, device: Path, size: int, words: str) -> Kept:
    """Put a device's content into a store.

    :param directory: where in the store; whatever is there already is of an earlier, interrupted try.
    :param size: bytes of the device.
    :param words: what is done, for people.
    """
    parts = []
    with opened(device, os.O_RDONLY) as descriptor:
        for index in range(-(-size // SPAN)):
            start, end = index * SPAN, min((index + 1) * SPAN, size)
            current().progress(start, size, "bytes", words)
            with reported(device):
                part = _keep_part(store, directory, descriptor, index, start, end)
            if part is not None:
                parts.append(part)
    data = msgspec.json.encode(Manifest(_FORMAT, size, SPAN, parts))
    store.put_bytes(f"{directory}/{_MANIFEST}", data)
    return Kept(hashlib.sha256(data).hexdigest(), sum(part.size for part in parts))


def _keep_part(store: Store, directory: str, descriptor: int, index: int, start: int, end: int) -> Part | None:
    pieces = pieces_of(descriptor, start, end)
    zeros = 0
    first = b""
    for piece in pieces:
        if not is_zero(piece):
            first = piece
            break
        zeros += len(piece)
    if not first:
        return None
    content = hashlib.sha256()

    def whole() -> Iterator[bytes]:
        for _time in range(zeros // PIECE):
            yield bytes(PIECE)
        if zeros % PIECE:
            yield bytes(zeros % PIECE)
        yield first
        yield from pieces

    name = f"part-{index:06}.zst"
    stored = store.put_stream(f"{directory}/{name}", _compressed(whole(), content), size_hint=end - start)
    return Part(index, name, stored.size, stored.sha256, content.hexdigest())


def _compressed(pieces: Iterator[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    import zstandard

    chunker = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).chunker(chunk_size=1 << 20)
    for piece in pieces:
        digest.update(piece)
        yield from chunker.compress(piece)
    yield from chunker.finish()  # type: ignore[no-untyped-call]


def read_manifest(store: Store, directory: str, sha256: str) -> Manifest:
    """Give an image's manifest.

    :param sha256: what it has to be.
    :raises NotFound: there is none: then there is no image.
    :raises OutsideFailure: it is another one, or none of ours.
    """
    data = store.get_bytes(f"{directory}/{_MANIFEST}", limit=64 << 20)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OutsideFailure(
            f"{store.url}: the manifest in {directory} is not the one that the snapshot names: its SHA-256 differs. "
            "Nothing was made of it."
        )
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise OutsideFailure(f"{store.url}: the manifest in {directory} cannot be read: {error}.") from error
    spans = -(-manifest.size // manifest.span) if manifest.span > 0 else 0
    indices = [part.index for part in manifest.parts]
    if (
        manifest.format != _FORMAT
        or not 0 < spans <= _MOST_PARTS
        or indices != sorted(set(indices))
        or not all(0 <= index < spans for index in indices)
        or not all(_PART.fullmatch(part.name) for part in manifest.parts)
    ):
        raise OutsideFailure(f"{store.url}: the manifest in {directory} is none that this release can read.")
    return manifest


def restore(store: Store, directory: str, manifest: Manifest, device: Path, words: str) -> None:
    """Write an image onto a device that is new, and compare every checksum.

    :raises OutsideFailure: a part is missing, or is not what was kept: the device holds nothing of use then.
    """
    parts = {part.index: part for part in manifest.parts}
    with opened(device, os.O_RDWR | os.O_EXCL) as descriptor:
        capacity = os.lseek(descriptor, 0, os.SEEK_END)
        if capacity < manifest.size:
            raise InvalidParameter("storage_config.size", str(capacity), f"at least {manifest.size} bytes")
        for index in range(-(-manifest.size // manifest.span)):
            start, end = index * manifest.span, min((index + 1) * manifest.span, manifest.size)
            current().progress(start, manifest.size, "bytes", words)
            part = parts.get(index)
            with reported(device):
                if part is None:
                    put_zeros(descriptor, start, end - start)
                else:
                    _restore_part(store, directory, part, descriptor, start, end)
                os.fsync(descriptor)
        with reported(device):
            put_zeros(descriptor, manifest.size, min(capacity - manifest.size, 1 << 20))
            if capacity - manifest.size > 1 << 20:
                put_zeros(descriptor, capacity - (1 << 20), 1 << 20)
            os.fsync(descriptor)


def _restore_part(store: Store, directory: str, part: Part, descriptor: int, start: int, end: int) -> None:
    import zstandard

    path = f"{directory}/{part.name}"
    stored, content = hashlib.sha256(), hashlib.sha256()
    place, size, unsynced = start, 0, 0
    decoder = zstandard.ZstdDecompressor(max_window_size=_DECODER_MEMORY).decompressobj()
    wrong = f"{store.url}: {path} is not what was kept there"
    try:
        for piece in store.get_stream(path):
            stored.update(piece)
            size += len(piece)
            for small in _slices(piece):
                plain = decoder.decompress(small)
                if place + len(plain) > end:
                    raise OutsideFailure(f"{wrong}: it holds more than its span. Nothing was made of it.")
                content.update(plain)
                for some in _slices(plain):
                    put(descriptor, place, some)
                    place += len(some)
                unsynced += len(plain)
                if unsynced >= _UNSYNCED:
                    os.fsync(descriptor)
                    unsynced = 0
    except NotFound as error:
        raise OutsideFailure(f"{store.url}: {path} is missing. Nothing was made of the snapshot.") from error
    except zstandard.ZstdError as error:
        raise OutsideFailure(f"{wrong}: it cannot be unpacked. Nothing was made of the snapshot.") from error
    whole = place == end and size == part.size
    if not whole or stored.hexdigest() != part.sha256 or content.hexdigest() != part.content_sha256:
        raise OutsideFailure(f"{wrong}: its SHA-256 differs. Nothing was made of the snapshot.")


def _slices(data: bytes, size: int = 1 << 16) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def remove(store: Store, directory: str) -> None:
    """Delete an image: its manifest first, so that there is none any more from then on."""
    store.delete(f"{directory}/{_MANIFEST}")
    store.delete_all(directory)
