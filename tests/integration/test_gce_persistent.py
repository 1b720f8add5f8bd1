"""Google's persistent disks through the whole agent and Google's own SDK, against a server that answers as the
reference of Compute Engine says.
"""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloud_contract import CloudContract
from gce_server import ACCOUNT, ZONE, Account, GceServer, problem
from provider_server import Devices
from scalarizr.errors import InvalidParameter, NotFound, OutsideFailure, PermissionRefused, Refused, ScalarizrError
from scalarizr.platform_access import PlatformAccess, set_platform_access
from scalarizr.storage.storage import Storage

# On a busy machine the SDK alone takes ten seconds to load, in every worker.
pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


class TestPersistentDisks(CloudContract):
    type_name = "gce_persistent"
    keys: ClassVar = {"name": "data", "volume_type": "pd-ssd", "zone": ZONE}
    making = "disks.insert"
    attaching = (
        "instances.attachDisk",
        problem(400, "invalid", "Exceeded limit 'maximum_persistent_disks'."),
        "Exceeded limit 'maximum_persistent_disks'",
    )
    snapshotting = (
        "disks.createSnapshot",
        {"code": "QUOTA_EXCEEDED", "message": "Quota 'SNAPSHOTS' exceeded. Limit: 0."},
        "Quota 'SNAPSHOTS' exceeded",
    )
    enlarging = (
        "disks.resize",
        {"code": "QUOTA_EXCEEDED", "message": "Quota 'DISKS_TOTAL_GB' exceeded."},
        "Quota 'DISKS_TOTAL_GB' exceeded. It is as large as before",
    )
    passing = (
        ("disks.insert", problem(503, "backendError", "Backend Error")),
        ("disks.insert", problem(429, "rateLimitExceeded", "Rate Limit Exceeded")),
        ("disks.insert", problem(403, "rateLimitExceeded", "Rate Limit Exceeded")),
        ("operations.get", problem(503, "backendError", "Backend Error")),
        ("authenticate", problem(401, "authError", "Request had invalid authentication credentials.")),
    )
    refusal = (
        ({"code": "QUOTA_EXCEEDED", "message": "Quota 'SSD_TOTAL_GB' exceeded."}, OutsideFailure, "SSD_TOTAL_GB"),
        ({"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "No room."}, OutsideFailure, "No room. No disk was made."),
        (problem(403, "forbidden", "Required 'compute.disks.create' permission"), PermissionRefused, "compute.disks"),
        (problem(403, "quotaExceeded", "Quota exceeded"), OutsideFailure, "Quota exceeded. No disk was made."),
        (problem(400, "invalid", "Disk size cannot be smaller than 10 GB."), OutsideFailure, "smaller than 10 GB"),
    )
    impossible = (
        ({"name": "Data"}, "name"),
        ({"name": "a/../b"}, "name"),
        ({"zone": "europe-west1-c"}, "zone"),
        ({"zone": "../x"}, "zone"),
        ({"tags": {"Role": "db"}}, "tags.Role"),
        ({"tags": {"scalarizr-key": "x"}}, "tags.scalarizr-key"),
        ({"volume_type": "pd/ssd"}, "volume_type"),
        ({"size": None}, "size"),
        ({"size": "50%ROOT"}, "size"),
        ({"snap": {"type": "ebs", "id": "snap-1"}}, "snap.type"),
        ({"snap": {"id": "../disks/boot"}}, "snap.id"),
        ({"iops": 3}, "iops"),
    )
    wrong_access = (
        ({"key": "a-wrong-key"}, InvalidParameter, "base64 of a private key"),
        ({"key": ""}, InvalidParameter, "both"),
        ({"project_id": "a/../b"}, InvalidParameter, "project_id"),
    )

    @staticmethod
    def serve(devices: Devices) -> GceServer:
        return GceServer(devices, Account())

    def check_requests(self, cloud: Any) -> None:
        attached = cloud.calls("POST", "/attachDisk")[0].body
        assert attached["deviceName"] == "data" and attached["autoDelete"] is False
        assert {request.headers["authorization"].split()[0] for request in cloud.calls("POST", "/disks")} == {"Bearer"}

    def test_the_disk_that_this_server_boots_from_is_never_detached(self, here: Storage, cloud: GceServer) -> None:
        for attempt in (here.detach, here.destroy):
            with pytest.raises(Refused, match="never detached"):
                attempt({"type": "gce_persistent", "id": "boot"}, force=True)
        assert cloud.volumes["boot"].users == [cloud.instance_link]

    def test_a_disk_of_others_is_not_taken_over_by_its_name_but_used_by_its_id(
        self, here: Storage, cloud: GceServer
    ) -> None:
        volume = here.detach(here.create(self.wanted(name="of-others")))
        with pytest.raises(ScalarizrError, match="that this call did not make") as caught:
            here.create(self.wanted(name="of-others"))
        assert caught.value.code == -32012
        # What one agent does not know the caller's credentials may delete all the same.
        here.records.forget(next(record for record in here.records.all() if record.id == "of-others"))
        used = here.create({"type": "gce_persistent", "id": "of-others"})
        assert used["device"] is not None and used["size"] == volume["size"]
        here.destroy({"type": "gce_persistent", "id": "of-others"})
        with pytest.raises(NotFound, match="recreate_if_missing"):
            here.create({"type": "gce_persistent", "id": "of-others"})

    def test_every_form_of_the_key_is_taken_and_a_wrong_one_is_refused_unseen(
        self, here: Storage, cloud: GceServer
    ) -> None:
        account = cloud.account
        for access in (account.access_with_pkcs12(), account.access_with_json_key()):
            set_platform_access(PlatformAccess(access))
            volume = here.create(self.wanted())
            here.destroy(volume)
        wrong = Account().access()
        for access, words in (
            (wrong, "invalid authentication credentials"),
            ({**wrong, "key": "bm8ga2V5"}, "base64 of a private key"),
            ({"service_account_name": ACCOUNT}, "both"),
            (
                {"json_key": '{"type": "external_account", "credential_source": {"file": "/etc/shadow"}}'},
                "service account",
            ),
            ({"json_key": "{"}, "service account"),
            ({"json_key": ["a"]}, "service account"),
            ({**wrong, "project_id": "a/../b"}, "project_id"),
        ):
            set_platform_access(PlatformAccess(access))
            with pytest.raises((PermissionRefused, InvalidParameter)) as caught:
                here.create(self.wanted())
            told = f"{caught.value} {caught.value.facts}"
            assert words in told and not any(
                text in told for text in (wrong["key"], "PRIVATE", "bm8ga2V5", "/etc/shadow")
            )

    def test_a_disk_whose_device_does_not_appear_is_told_with_the_link_that_was_waited_for(
        self, here: Storage, cloud: GceServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scalarizr.storage.device_links.await_device.__defaults__", (0.5,))
        cloud.fail("instances.attachDisk", "no device")
        with pytest.raises(OutsideFailure, match=f"did not appear .*{Path(cloud.devices.by_id)}/google-unseen"):
            here.create(self.wanted(name="unseen"))
        for attempt in (here.detach, here.destroy):
            with pytest.raises(Refused, match="cannot be told"):
                attempt({"type": "gce_persistent", "id": "unseen"})
        assert cloud.volumes["unseen"].users == [cloud.instance_link]
        here.destroy({"type": "gce_persistent", "id": "unseen"}, force=True)
