"""Cinder volumes through the whole agent and openstacksdk, against a server that answers as the references of Keystone,
Cinder and Nova say.
"""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloud_contract import CloudContract
from openstack_server import ACCESS, SERVER, OpenstackServer, problem
from provider_server import Answer, Devices
from scalarizr.errors import (
    InvalidParameter,
    NotConfigured,
    NotSupported,
    OutsideFailure,
    PermissionRefused,
    TimedOut,
)
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.storage.storage import Storage

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    # The SDK warns, in this process too, of what will be removed from itself.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

_TOO_MANY = {"overLimit": {"code": 429, "message": "Too many requests"}}


class TestCinder(CloudContract):
    type_name = "cinder"
    keys: ClassVar = {"name": "data", "volume_type": "ssd", "avail_zone": "nova"}
    making = "create volume"
    attaching = (
        "attach",
        problem(403, "forbidden", "Maximum number of volumes attached to the instance exceeded."),
        "Maximum number of volumes attached",
    )
    snapshotting = ("create snapshot", "error", "in the state error")
    enlarging = ("extend volume", "fails later", "it has 1 GB as before")
    passing = tuple(
        (call, Answer(status, _TOO_MANY)) for call in ("create volume", "attach", "get volume") for status in (429, 503)
    )
    refusal = (
        (
            problem(413, "overLimit", "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded"),
            OutsideFailure,
            "allowed (10) exceeded. No volume was made",
        ),
        (problem(400, "badRequest", "Invalid volume type"), OutsideFailure, "Invalid volume type"),
        # It is there all the same, until it is deleted.
        ("error", OutsideFailure, "in the state error"),
    )
    impossible = (
        ({"name": ""}, "name"),
        ({"avail_zone": "a\nb"}, "avail_zone"),
        ({"tags": {"scalarizr-key": "x"}}, "tags.scalarizr-key"),
        ({"size": None}, "size"),
        ({"snap": {"type": "ebs", "id": "snap-1"}}, "snap.type"),
        ({"snap": {"id": "../volumes/1"}}, "snap.id"),
        ({"zone": "a"}, "zone"),
    )
    wrong_access = (
        ({"password": "a-wrong-password"}, PermissionRefused, "requires authentication"),
        ({"domain_name": "Nobodys"}, PermissionRefused, "requires authentication"),
        ({"keystone_url": "http://127.0.0.1:1/v3"}, OutsideFailure, "Unable to establish connection"),
        ({"keystone_url": "file:///etc/shadow"}, InvalidParameter, "keystone_url"),
        ({"cloud_location": "Nowhere"}, OutsideFailure, "could not be asked"),
        ({"tenant_name": ""}, InvalidParameter, "tenant_name"),
    )

    @staticmethod
    def serve(devices: Devices) -> OpenstackServer:
        return OpenstackServer(devices)

    def check_requests(self, cloud: Any) -> None:
        made = cloud.calls("POST", "/volumes")[0].body["volume"]
        assert made["availability_zone"] == "nova" and made["metadata"]["role"] == "db"
        assert cloud.calls("POST", "/snapshots")[0].body["snapshot"]["force"] is True
        assert not any(ACCESS["password"] in request.url for request in cloud.requests)

    def test_a_token_that_expires_on_the_way_is_renewed(self, here: Storage, cloud: OpenstackServer) -> None:
        volume = here.create(self.wanted())
        logins = cloud.logins
        cloud.fail("expire tokens", "now")
        here.destroy(volume)
        assert cloud.logins == logins + 1

    @pytest.mark.parametrize("state", ["error", "attaching"])
    def test_what_a_killed_call_made_is_deleted_in_whatever_state_it_is(
        self, here: Storage, cloud: OpenstackServer, state: str
    ) -> None:
        kind = self.kind(here)
        volume, _ours = kind.make(kind.config(**self.wanted()), "a-key")
        if state == "error":
            cloud.volumes[volume.id].status = "error"
        else:
            kind.cloud.attach_volume(volume.id)
        kind.give_up(kind.config(**self.wanted()), "a-key")
        kind.give_up(kind.config(**self.wanted()), "a-key")
        assert cloud.volumes_made() == []

    def test_what_came_to_nothing_is_replaced_when_the_call_comes_again(
        self, here: Storage, cloud: OpenstackServer
    ) -> None:
        kind = self.kind(here)
        first, _ours = kind.make(kind.config(**self.wanted()), "a-key")
        cloud.volumes[first.id].status = "error"
        assert kind.find_made(kind.config(**self.wanted()), "a-key") is None
        second, _ours = kind.make(kind.config(**self.wanted()), "a-key")
        assert cloud.volumes_made() == [second.id] != [first.id]
        kind.delete(second, force=False)

    def test_an_attachment_that_nova_gives_up_is_told(self, here: Storage, cloud: OpenstackServer) -> None:
        cloud.fail("attach", "gives up")
        with pytest.raises(OutsideFailure, match="gave it up: it is available"):
            here.create(self.wanted(client_token="a"))
        here.destroy({"type": "cinder", "id": cloud.volumes_made()[0]})

    def test_a_volume_that_this_server_does_not_let_go_of_stays_and_that_is_told(
        self, here: Storage, cloud: OpenstackServer
    ) -> None:
        volume = here.create(self.wanted())
        cloud.fail("detach", "gives up")
        with pytest.raises(OutsideFailure, match="still attached"):
            here.destroy(volume)
        here.destroy(volume)

    def test_a_volume_that_is_stuck_is_told_with_its_state(
        self, here: Storage, cloud: OpenstackServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        volume = here.detach(here.create(self.wanted()))
        cloud.volumes[volume["id"]].status = "attaching"
        monkeypatch.setattr("scalarizr.storage.volumes.cinder.CinderVolumes._settled.__defaults__", (0.5, ("error",)))
        with pytest.raises(TimedOut, match="It is attaching"):
            here.create(volume)
        cloud.volumes[volume["id"]].status = "available"
        here.destroy(volume)

    def test_a_cinder_that_cannot_grow_what_is_in_use_is_told_so_and_grows_what_is_detached(
        self, here: Storage, cloud: OpenstackServer
    ) -> None:
        volume = here.create(self.wanted())
        cloud.newest = "3.27"
        self.kind(here).close()
        with pytest.raises(NotSupported, match="while it is attached"):
            here.grow(volume, {"size": 2})
        assert cloud.volumes[volume["id"]].size == 1
        grown = here.grow(here.detach(volume), {"size": 2})
        assert grown["size"] == 2 and cloud.volumes[volume["id"]].servers == []
        here.destroy(grown)

    def test_every_form_of_the_credentials_is_taken(self, here: Storage, cloud: OpenstackServer) -> None:
        access = dict(cloud.access)
        for ending in ("", "/", "/v2.0", "/v2.0/tokens", "/v3"):
            given = {**access, "keystone_url": f"{cloud.url}/identity{ending}", "ssl_verify_peer": "0"}
            set_platform_access(PlatformAccess(given))
            here.destroy({"type": "cinder", "id": SERVER})  # there is none of that id
        password = access.pop("password")
        set_platform_access(PlatformAccess({**access, "api_key": password}))
        here.destroy({"type": "cinder", "id": SERVER})

    def test_without_credentials_it_says_what_is_missing(
        self, here: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        set_platform_access(None)
        with pytest.raises(NotConfigured, match="no OpenStack credentials"):
            here.create(self.wanted())
