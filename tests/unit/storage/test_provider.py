"""What the types of all clouds share: patience, the provider's words without secrets, the instance's metadata."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from provider_server import Answer, ProviderServer, Request
from scalarizr.errors import Busy, NotSupported, PermissionRefused
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.storage.provider import OfRequest, instance_metadata, patiently, sdk, told, until_accepted


class Metadata(ProviderServer):
    """Answers what it is told to."""

    given = Answer(200, "web-1\n")

    def answer(self, _request: Request) -> None:
        raise self.given


@pytest.fixture(scope="module")
def metadata() -> Iterator[Metadata]:
    server = Metadata()
    yield server
    server.close()


class Throttled(Exception):
    """Too much to do."""


def test_a_call_is_made_again_as_long_as_that_may_help() -> None:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise Throttled
        return "done"

    assert patiently(call, lambda failure: isinstance(failure, Throttled)) == "done" and len(calls) == 3
    with pytest.raises(Throttled):
        patiently(lambda: (_ for _ in ()).throw(Throttled), lambda _failure: True, limit=0.3)
    calls.clear()
    with pytest.raises(Throttled):
        patiently(call, lambda _failure: False)
    assert len(calls) == 1


def test_what_another_request_still_holds_is_tried_again_but_not_what_is_forbidden() -> None:
    answers = [Busy("still attaching"), PermissionRefused("not allowed")]

    def action() -> None:
        raise answers.pop(0)

    with pytest.raises(PermissionRefused):
        until_accepted(action)
    answers.extend([Busy("a"), Busy("b"), Busy("c")])
    with pytest.raises(Busy):
        until_accepted(action, limit=0.5)


def test_an_sdk_that_is_not_installed_is_named_with_what_installs_it() -> None:
    with pytest.raises(NotSupported, match=r"install `scalarizr\[gce\]`"):
        sdk("no_such_module_anywhere", "Google", "gce")


def test_a_providers_words_are_told_short_and_without_the_credentials_of_the_call() -> None:
    set_platform_access(PlatformAccess({"key": "planted-secret", "nested": {"pass": "another-secret"}}))
    try:
        words = told("Bad key planted-secret\n  for another-secret. " + "x" * 1000)
    finally:
        set_platform_access(None)
    assert words.startswith("Bad key ****** for ******. x") and len(words) <= 400
    assert told("") == "it gave no reason"


def test_what_was_made_for_one_request_is_not_used_for_another() -> None:
    closed = []

    class Thing:
        def close(self) -> None:
            closed.append(self)

    of_request = OfRequest(Thing)
    try:
        set_platform_access(PlatformAccess({"key": "one"}))
        first = of_request.get()
        assert of_request.get() is first
        set_platform_access(PlatformAccess({"key": "one"}))
        assert of_request.get() is not first and closed == [first]
    finally:
        set_platform_access(None)


def test_the_metadata_service_is_believed_only_where_it_says_yes(metadata: Metadata) -> None:
    assert instance_metadata(metadata.url, "/name", {"Metadata-Flavor": "Google"}) == "web-1"
    assert metadata.requests[-1].headers["metadata-flavor"] == "Google"
    for answer in (Answer(404, "no"), Answer(302, "x", {"Location": f"{metadata.url}/name"}), Answer(200, "  \n")):
        metadata.given = answer
        assert instance_metadata(metadata.url, "/name") is None
    for url in ("http://127.0.0.1:1", "https://127.0.0.1:1", "file:///etc/passwd", ""):
        assert instance_metadata(url, "/name", limit=0.5) is None


@pytest.mark.parametrize("name", ["gce_persistent", "cinder", "csvol"])
def test_a_type_is_known_without_its_sdk(name: str) -> None:
    program = (
        "import sys\n"
        "from scalarizr.storage.registry import find_type\n"
        f"find_type({name!r}, 'type')\n"
        "print(sorted({'google', 'grpc', 'openstack', 'keystoneauth1', 'cs', 'requests'} & set(sys.modules)))\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"
