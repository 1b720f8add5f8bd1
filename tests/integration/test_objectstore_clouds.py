"""Google's and Azure's stores, as far as a small server that answers as their documentation says can prove it."""

import base64
import hashlib
from collections.abc import Iterator

import pytest

from scalarizr.errors import NotFound, OutsideFailure, PermissionRefused
from scalarizr.objectstore.opening import open_store
from scalarizr.objectstore.store import Store
from scalarizr.platform_access import PlatformAccess
from small_object_server import ACCOUNT, ACCOUNT_KEY, SmallObjectServer

MIB = 2**20


@pytest.fixture
def server() -> Iterator[SmallObjectServer]:
    with SmallObjectServer() as running:
        yield running


@pytest.fixture(params=["gs", "azure"])
def store(request: pytest.FixtureRequest, server: SmallObjectServer) -> Store:
    if request.param == "gs":
        access = PlatformAccess({"json_key": server.google_key})
        return open_store("gs://bucket/a/prefix", server.endpoint_url, access, patience=60)
    keys = PlatformAccess({"account_name": ACCOUNT, "account_key": ACCOUNT_KEY})
    return open_store("azure://bucket/a/prefix", server.azure_url, keys, patience=60)


@pytest.mark.parametrize("count", [1, 20])
def test_objects_come_back_as_they_went_and_were_read_back_to_see_it(
    store: Store, server: SmallObjectServer, count: int
) -> None:
    sent = [hashlib.shake_128(str(number).encode()).digest(MIB) for number in range(count)]
    stored = store.put_stream("x/y", sent)
    whole = hashlib.sha256(b"".join(sent)).hexdigest()
    assert stored == (count * MIB, whole)
    # Its entity tags tell nothing of the content: it was read back.
    assert any(line.startswith("GET ") and line.endswith("bucket/a/prefix/x/y") for line in server.seen)
    assert hashlib.sha256(b"".join(store.get_stream("x/y"))).hexdigest() == whole
    assert [(entry.path, entry.size) for entry in store.list("x")] == [("x/y", count * MIB)]
    assert store.delete_all("x") == 1 and store.list() == [] and store.size("x/y") is None
    with pytest.raises(NotFound):
        store.get_bytes("x/y")


def test_what_arrives_changed_is_refused(store: Store, server: SmallObjectServer) -> None:
    server.harms = True
    with pytest.raises(OutsideFailure, match="is not what was sent"):
        store.put_stream("x", [b"x" * MIB] * 20)
    assert server.objects == {}


def test_a_small_object_that_cannot_be_replaced_stays(store: Store, server: SmallObjectServer) -> None:
    store.put_bytes("a", b"old")
    server.full = True
    with pytest.raises(PermissionRefused, match="QuotaExceeded"):
        store.put_bytes("a", b"new")
    assert store.get_bytes("a") == b"old"


def test_wrong_credentials_are_refused_without_showing_them(server: SmallObjectServer) -> None:
    key = base64.b64encode(b"planted-wrong-key-0123").decode()
    wrong = PlatformAccess({"account_name": ACCOUNT, "account_key": key})
    with pytest.raises(PermissionRefused, match="AuthenticationFailed") as caught:
        open_store("azure://bucket/a", server.azure_url, wrong, patience=2).put_bytes("x", b"x")
    assert key not in str(caught.value) and "planted-wrong" not in str(caught.value)
