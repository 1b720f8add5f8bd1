"""Where a volume may be mounted, with which options, and who keeps it from being unmounted."""

import mmap
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from block_devices import BlockDevices, said
from scalarizr.errors import InvalidParameter, OutsideFailure, Refused
from scalarizr.host.paths import HostPaths
from scalarizr.storage.mounting import (
    Process,
    check_mount_options,
    check_mount_point,
    device_of,
    memory_mount_points,
    mount,
    mount_points,
    mount_that_holds,
    mounts_of,
    remove_made_directory,
    unmount,
    users_of,
)

HOST = HostPaths()
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
root = pytest.mark.root


@pytest.fixture
def disk(disks: BlockDevices) -> Path:
    device = disks.make(64)
    said("mkfs.ext4", "-q", device)
    return device


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalarizr.storage.mounting._PATIENCE", 0.1)


SYSTEM = "/ /bin /boot /boot/efi /dev /dev/shm /etc /etc/nginx /lib /lib64/x /proc /proc/1 /root /run /run/x /sbin /sys"
MORE = (
    "/sys/fs /tmp /usr /usr/bin /usr/local /usr/share/x /var /var/lib /var/log /var/run /var/run/x /var/lock/x /var/tmp"
)


@pytest.mark.parametrize("mpoint", [*SYSTEM.split(), *MORE.split(), "/etc/", "/boot/"])
def test_the_systems_directories_are_no_mount_points(mpoint: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        check_mount_point(HOST, mpoint, None)
    assert refusal.value.facts["parameter"] == "mpoint"


@pytest.mark.parametrize(
    "mpoint",
    [
        *("", "data", "./data", "../data", "//data", "/data/../etc", "/data/./x", "/data//x", "/mnt/.."),
        *("/data\n", "/data/\x00x", "/da\tta", "/data\x7f", "/data\\040x", "/\ud800", "/" + "a" * 256, "/a" * 2001),
        *("/data\u200bx", "/data\u202ex", "/\x1b[31m"),
    ],
)
def test_a_path_of_a_wrong_form_is_no_mount_point(mpoint: str) -> None:
    with pytest.raises(InvalidParameter):
        check_mount_point(HOST, mpoint, None)


@pytest.mark.parametrize(
    "mpoint",
    [
        *("/data-of-a-test", "/mnt/data-of-a-test/a b", "/srv/data-of-a-test", "/opt/ä-of-a-test", "/home/of-a-test"),
        *("/var/lib/data-of-a-test/main", "/usr/local/of-a-test/x", "/media/x-of-a-test", "/mnt/data-of-a-test/"),
    ],
)
def test_a_place_of_its_own_may_be_missing(mpoint: str) -> None:
    assert check_mount_point(HOST, mpoint, None) == Path(mpoint)
    assert not Path(mpoint).exists()


@unhurried
@given(st.text(max_size=30))
@example("/proc\u2044x")
def test_whatever_is_sent_is_refused_or_normal(text: str) -> None:
    try:
        place = check_mount_point(HOST, text, None)
    except InvalidParameter:
        return
    assert place.is_absolute() and str(place) == os.path.normpath(place) != "/"


def test_an_empty_directory_is_a_mount_point_and_one_with_files_is_not(tmp_path: Path) -> None:
    assert check_mount_point(HOST, str(tmp_path), None) == tmp_path
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidParameter) as refusal:
        check_mount_point(HOST, str(tmp_path), None)
    assert "holds 'file'" in str(refusal.value.facts["expected"])
    with pytest.raises(InvalidParameter):
        check_mount_point(HOST, str(tmp_path / "file"), None)
    with pytest.raises(InvalidParameter):
        check_mount_point(HOST, str(tmp_path / "file" / "below"), None, "volume.mpoint")


@root
def test_a_link_of_roots_is_followed_and_a_strangers_is_not(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert check_mount_point(HOST, str(tmp_path / "link" / "x"), None) == tmp_path / "real" / "x"
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(InvalidParameter, match="Invalid params"):
        check_mount_point(HOST, str(tmp_path / "link" / "x"), None)
    # Root's own link, where anybody can put another in its place.
    os.lchown(tmp_path / "link", 0, 0)
    os.chmod(tmp_path, 0o777)
    with pytest.raises(InvalidParameter):
        check_mount_point(HOST, str(tmp_path / "link" / "x"), None)


@root
@pytest.mark.parametrize("target", ["/etc", "/proc/self", "/", "../../../../../../../etc"])
def test_a_link_into_the_systems_directories_leads_nowhere(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    for mpoint in (tmp_path / "link", tmp_path / "link" / "missing"):
        if target == "/" and mpoint.name == "missing":
            continue  # that is /missing: a place of its own
        with pytest.raises(InvalidParameter):
            check_mount_point(HOST, str(mpoint), None)


@root
def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(InvalidParameter):
        check_mount_point(HOST, str(tmp_path / "link"), None)


@root
def test_what_is_mounted_there_is_an_obstacle_unless_it_is_the_volume(disk: Path, tmp_path: Path) -> None:
    mount(disk, tmp_path / "m", "ext4")
    assert check_mount_point(HOST, str(tmp_path / "m"), disk) == tmp_path / "m"
    with pytest.raises(InvalidParameter) as refusal:
        check_mount_point(HOST, str(tmp_path / "m"), None)
    assert str(disk) in str(refusal.value.facts["expected"])


@root
def test_a_mount_makes_its_directories_and_takes_only_those_away(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "was there").mkdir()
    mount(disk, tmp_path / "was there", "ext4", "noatime")
    assert mount_points(HOST, disk) == [f"{tmp_path}/was there"]
    assert "noatime" in Path("/proc/self/mounts").read_text().split(f"{disk} ")[1].splitlines()[0]
    unmount(HOST, tmp_path / "was there")
    remove_made_directory(tmp_path / "was there")
    assert (tmp_path / "was there").is_dir()
    mount(disk, tmp_path / "new" / "below", "ext4")
    remove_made_directory(tmp_path / "new" / "below")
    unmount(HOST, tmp_path / "new" / "below")
    remove_made_directory(tmp_path / "new" / "below")
    assert not (tmp_path / "new" / "below").exists()


@root
def test_a_mount_that_fails_leaves_no_directory(disks: BlockDevices, tmp_path: Path) -> None:
    empty = disks.make(64)
    with pytest.raises(OutsideFailure) as failure:
        mount(empty, tmp_path / "a" / "b", "ext4")
    assert f"could not be mounted at {tmp_path}/a/b" in failure.value.message
    assert "/proc/self" not in failure.value.message and not (tmp_path / "a").exists()


@root
def test_a_link_that_appears_after_the_check_is_not_followed(disk: Path, tmp_path: Path) -> None:
    place = check_mount_point(HOST, str(tmp_path / "m"), disk)
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere")
    os.lchown(place, 65534, 65534)
    with pytest.raises(InvalidParameter):
        mount(disk, place, "ext4")
    assert mount_points(HOST, disk) == []


@root
@pytest.mark.parametrize("fstype", ["ext3", "ext4", "xfs", "btrfs"])
def test_mounts_are_found_by_number_whatever_name_was_used(disks: BlockDevices, tmp_path: Path, fstype: str) -> None:
    device = disks.make(512)
    said(f"mkfs.{fstype}", "-q", device)
    os.mknod(tmp_path / "alias", 0o600 | 0o060000, os.stat(device).st_rdev)
    mount(tmp_path / "alias", tmp_path / "one", fstype)
    mount(device, tmp_path / "two", fstype, "noatime")
    (tmp_path / "bound").mkdir()
    said("mount", "--bind", tmp_path / "one", tmp_path / "bound")
    try:
        expected = [str(tmp_path / name) for name in ("one", "two", "bound")]
        assert mount_points(HOST, device) == mount_points(HOST, tmp_path / "alias") == expected
        assert [mounted.fstype for mounted in mounts_of(HOST, device)] == ["ext3" if fstype == "ext3" else fstype] * 3
        held = mount_that_holds(HOST, tmp_path / "two" / "any" / "file")
        assert held is not None and held.mpoint == str(tmp_path / "two") and device_of(HOST, held) == device
    finally:
        for place in reversed(expected):
            unmount(HOST, place)
    assert mount_points(HOST, device) == []


@root
def test_memory_is_mounted_and_found(tmp_path: Path) -> None:
    mount("tmpfs", tmp_path / "m", "tmpfs", "size=1m,mode=0700")
    try:
        assert str(tmp_path / "m") in memory_mount_points(HOST)
        held = mount_that_holds(HOST, tmp_path / "m")
        assert held is not None and device_of(HOST, held) is None
        assert os.statvfs(tmp_path / "m").f_blocks * os.statvfs(tmp_path / "m").f_frsize == 1 << 20
    finally:
        unmount(HOST, tmp_path / "m")
    assert str(tmp_path / "m") not in memory_mount_points(HOST)
    unmount(HOST, tmp_path / "m")  # nothing there: nothing to do


def sleeping(*command: str | Path, cwd: Path | None = None, say: str = "") -> subprocess.Popen[str]:
    """Start a program that sleeps, once it has said that it is there."""
    script = f"{say} echo there; exec sleep 60"
    process = subprocess.Popen(["sh", "-c", script, "sh", *command], cwd=cwd, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    return process


@root
@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
def test_who_uses_it_is_named_and_it_stays_mounted(
    disks: BlockDevices, tmp_path: Path, impatient: None, fstype: str
) -> None:
    device = disks.make(512)
    said(f"mkfs.{fstype}", "-q", device)
    place = tmp_path / "m"
    mount(device, place, fstype)
    (place / "file").write_text("x")
    users = [sleeping(cwd=place), sleeping(place / "file", say='exec 3< "$1";'), sleeping(say=f"cd {place}; cd /;")]
    try:
        named = users_of(HOST, str(place))
        assert all(Process(user.pid, "sleep") in named for user in users[:2])
        assert Process(users[2].pid, "sleep") not in named
        with pytest.raises(Refused) as refusal:
            unmount(HOST, place)
        for user in users[:2]:
            assert f"sleep ({user.pid})" in refusal.value.message
            assert f"{user.pid} sleep" in str(refusal.value.facts["processes"])
        assert mount_points(HOST, device) == [str(place)]
    finally:
        for user in users:
            user.kill()
            user.communicate()
    unmount(HOST, place)
    assert mount_points(HOST, device) == []


@root
def test_a_file_in_a_btrfs_subvolume_is_a_use(disks: BlockDevices, tmp_path: Path) -> None:
    device = disks.make(512)
    said("mkfs.btrfs", "-q", device)
    mount(device, tmp_path / "m", "btrfs")
    said("btrfs", "subvolume", "create", tmp_path / "m" / "sub")
    user = sleeping(cwd=tmp_path / "m" / "sub")
    try:
        assert Process(user.pid, "sleep") in users_of(HOST, str(tmp_path / "m"))
    finally:
        user.kill()
        user.communicate()


@root
def test_a_mapped_file_and_a_running_program_are_uses(disk: Path, tmp_path: Path) -> None:
    mount(disk, tmp_path / "m", "ext4")
    said("cp", "/usr/bin/sleep", tmp_path / "m" / "dozing")
    program = subprocess.Popen([tmp_path / "m" / "dozing", "60"])
    mapping = (
        "import mmap, sys, time; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close();"
        "print('there', flush=True); time.sleep(60)"
    )
    (tmp_path / "m" / "data").write_bytes(bytes(mmap.PAGESIZE))
    command = ["/usr/bin/env", "python3", "-c", mapping, tmp_path / "m" / "data"]
    mapper = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert mapper.stdout is not None and mapper.stdout.readline() == "there\n"
        assert {user.pid for user in users_of(HOST, str(tmp_path / "m"))} >= {program.pid, mapper.pid}
    finally:
        for process in (program, mapper):
            process.kill()
            process.communicate()


@root
def test_this_process_itself_is_not_named(disk: Path, tmp_path: Path) -> None:
    mount(disk, tmp_path / "m", "ext4")
    with open(tmp_path / "m" / "file", "w"):
        assert os.getpid() not in [user.pid for user in users_of(HOST, str(tmp_path / "m"))]


@root
def test_more_than_ten_are_counted(disk: Path, tmp_path: Path, impatient: None) -> None:
    mount(disk, tmp_path / "m", "ext4")
    users = [sleeping(cwd=tmp_path / "m") for _ in range(13)]
    try:
        with pytest.raises(Refused, match=r"and \d+ more"):
            unmount(HOST, tmp_path / "m")
    finally:
        for user in users:
            user.kill()
            user.communicate()


@root
def test_a_mount_below_is_named(disk: Path, tmp_path: Path, impatient: None) -> None:
    mount(disk, tmp_path / "m", "ext4")
    mount("tmpfs", tmp_path / "m" / "below", "tmpfs", "size=1m")
    try:
        with pytest.raises(Refused, match="what is mounted below it"):
            unmount(HOST, tmp_path / "m")
    finally:
        unmount(HOST, tmp_path / "m" / "below")


@root
def test_by_force_it_is_gone_at_once_and_its_users_keep_what_they_have(
    disk: Path, tmp_path: Path, impatient: None
) -> None:
    mount(disk, tmp_path / "m", "ext4")
    (tmp_path / "m" / "file").write_text("kept")
    user = sleeping(cwd=tmp_path / "m")
    try:
        unmount(HOST, tmp_path / "m", force=True)
        assert mount_points(HOST, disk) == [] and list((tmp_path / "m").iterdir()) == []
        assert Path(f"/proc/{user.pid}/cwd/file").read_text() == "kept"
    finally:
        user.kill()
        user.communicate()


@root
def test_a_process_of_a_namespace_that_keeps_it_mounted_is_named(disk: Path, tmp_path: Path) -> None:
    mount(disk, tmp_path / "m", "ext4")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo there; exec sleep 60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "there\n"
        assert Process(process.pid, "sleep") in users_of(HOST, str(tmp_path / "m"))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "options",
    [
        "",
        "noatime",
        "noatime,nodiratime,discard",
        "data=ordered,commit=30",
        "compress=zstd:3,subvol=/@data",
        "size=75%",
    ],
)
def test_options_of_file_systems_pass(options: str) -> None:
    assert check_mount_options(options) == options


@pytest.mark.parametrize(
    "options",
    [
        *(
            "loop",
            "loop=/dev/loop3",
            "noatime,loop",
            "remount",
            "bind",
            "rbind",
            "move",
            "x-systemd.automount",
            "X-mount.mkdir",
        ),
        *("x-initrd.mount", "user", "users", "owner", "group", "helper=x", "uhelper=udisks2", "LOOP", "offset=1"),
        *("logdev=/dev/sda", "journal_path=/dev/sda", "device=/dev/sda", "lowerdir=/etc", "shared", "comment=x"),
        *("a b", "a\nb", "a;b", "$(id)", "`id`", "a'b", 'context="x"', "a\\040b", "ä", "=x", "a" * 1001, "a#b", "a\0b"),
    ],
)
def test_other_options_are_refused(options: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        check_mount_options(options)
    assert refusal.value.facts["parameter"] == "mount_options"


def test_options_without_a_name_are_left_out() -> None:
    assert check_mount_options(",noatime,,discard,") == "noatime,discard"
