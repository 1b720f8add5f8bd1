"""What becomes of a volume's mount where its file system grows only unmounted."""

from pathlib import Path

import pytest

from private_storage import SMALLEST, PrivateStorage
from provider_storage import storage_in_this_process
from scalarizr.errors import OutsideFailure
from scalarizr.host.paths import HostPaths
from scalarizr.storage import mounting

pytestmark = pytest.mark.root
_FLAGS = {"nosuid", "nodev", "noexec", "noatime"}


def flags_of(device: str) -> set[str]:
    return set(mounting.mounts_of(HostPaths(), Path(device))[0].flags.split(","))


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_taken_down_to_grow_is_mounted_again_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr("scalarizr.storage.filesystems.grows_online", lambda _fstype: False)
    files = PrivateStorage(tmp_path)
    wanted = {
        "type": "loop",
        "size": SMALLEST["ext4"],
        "mpoint": str(files.mpoint),
        "mount_options": ",".join(sorted(_FLAGS)),
    }
    try:
        with storage_in_this_process(files.agent.etc, {}) as here:
            volume = here.create(wanted, mkfs=True, mount=True)
            (files.mpoint / "kept").write_text("data")
            before = flags_of(volume["device"])
            assert before >= _FLAGS

            if fails:
                failure = OutsideFailure("The disk is full.")
                monkeypatch.setattr(here.catalogue.type_of("loop", "type"), "grow", lambda *_given: _raise(failure))
                with pytest.raises(OutsideFailure):
                    here.grow(volume, {"size": SMALLEST["ext4"] * 2})
            else:
                assert here.grow(volume, {"size": SMALLEST["ext4"] * 2})["size"] == SMALLEST["ext4"] * 2
            assert flags_of(volume["device"]) == before
            assert (files.mpoint / "kept").read_text() == "data"
            here.destroy(volume)
    finally:
        files.clean_up()


def _raise(failure: Exception) -> None:
    raise failure
