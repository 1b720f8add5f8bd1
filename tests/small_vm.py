"""A small virtual machine for tests: Debian with systemd, nginx, Apache, LVM, MD and the product. It can lose power.

It needs neither KVM nor a network: qemu emulates the processor, and a test speaks to it over a port of the machine
(`small_vm_guest.py`). Debian is fetched once with debootstrap and kept in `$SCALARIZR_VM_CACHE`, by default below the
user's cache directory; an image with the product in it is made anew for each run of the tests, and each machine writes
into a layer of its own above it.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement

from scalarizr.host.locks import locked

CHECKOUT = Path(__file__).parents[1]
PROGRAMS = ("debootstrap", "mke2fs", "qemu-system-x86_64", "qemu-img", "setpriv")
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "systemd,systemd-sysv,udev,dbus,kmod,procps,iproute2,python3,nginx,apache2,initramfs-tools,linux-image-cloud-amd64,"
    "lvm2,mdadm,xfsprogs,e2fsprogs"
)
WEB_SERVERS = ("nginx.service", "apache2.service")
# Debian's defaults would have both web servers on port 80. What is masked would only make an emulated boot longer; the
# initial file system holds what this machine's disk needs, and no more.
SETUP = """\
sed -i 's/^Listen 80$/Listen 8080/' /etc/apache2/ports.conf
sed -i 's/<VirtualHost \\*:80>/<VirtualHost *:8080>/' /etc/apache2/sites-available/000-default.conf
echo '/dev/vda / ext4 errors=remount-ro 0 1' > /etc/fstab
echo small > /etc/hostname
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \\
    e2scrub_reap.service systemd-logind.service systemd-binfmt.service getty@tty1.service serial-getty@ttyS0.service
printf 'virtio_pci\\nvirtio_blk\\n' >> /etc/initramfs-tools/modules
sed -i 's/^MODULES=.*/MODULES=list/' /etc/initramfs-tools/initramfs.conf
update-initramfs -u
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /usr/share/doc /usr/share/locale
"""
_COMMANDS_UNIT = """\
[Service]
ExecStart=/opt/scalarizr/bin/python /opt/small_vm_guest.py
KillMode=process

[Install]
WantedBy=multi-user.target
"""
# A processor that is emulated on a busy computer may take longer to start Apache than the usual 90 s.
_LIMITS = """\
[Manager]
DefaultTimeoutStartSec=15min
"""
# An emulated processor is slow, and the machine under it may be busy.
_BOOT_LIMIT = 900.0
_COMMAND_LIMIT = 600.0
_CACHED = re.compile(r"bookworm-[0-9a-f]{12}", re.ASCII)
_KEPT_UNUSED = 3 * 86400.0


def why_not() -> str | None:
    """Say why there can be no virtual machine here; None where there can."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"there is no {', '.join(missing)}; tests/install-vm.sh installs it"
    if platform.machine() != "x86_64":
        return f"the virtual machine is made for x86_64, and this is {platform.machine()}"
    if sys.version_info[:2] != (3, 11):
        return "the compiled dependencies of this Python do not fit the virtual machine's Python 3.11"
    return None


class Image(NamedTuple):
    """A disk image and what boots it."""

    disk: Path
    kernel: Path
    initrd: Path


class Done(NamedTuple):
    """How a command ended."""

    status: int
    output: str
    errors: str


class NoPower(Exception):
    """The virtual machine ended, or was switched off."""


@contextlib.contextmanager
def image_of_the_product(directory: Path, further_packages: Sequence[str] = ()) -> Iterator[Image]:
    """Give an image with the product of this checkout installed, as `packaging/systemd/README.md` tells to.

    Where there can be no virtual machine, what asks for it is left out, loudly.

    :param further_packages: names of Debian packages that are in it beyond those that always are.
    """
    reason = why_not()
    if reason:
        pytest.skip(f"LEFT OUT: {reason}")
    image = _make_image(directory, _debian(further_packages))
    try:
        yield image
    finally:
        image.disk.unlink()


def _make_image(directory: Path, debian: Path) -> Image:
    tree = directory / "tree"
    try:
        subprocess.run(["cp", "-a", "--reflink=auto", debian / "root", tree], check=True)
        _install(tree)
        disk = directory / "base.img"
        with open(disk, "wb") as file:
            os.truncate(file.fileno(), 2 << 30)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk], check=True)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    return Image(disk, debian / "vmlinuz", debian / "initrd.img")


def _debian(further_packages: Sequence[str] = ()) -> Path:
    """Give the directory of a cached Debian, which is fetched where it is not there yet."""
    chosen = os.environ.get("SCALARIZR_VM_CACHE")
    cache = (
        Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scalarizr-tests"
    )
    cache.mkdir(parents=True, exist_ok=True)
    packages = ",".join([PACKAGES, *further_packages])
    name = hashlib.sha256(f"{packages}\n{SETUP}".encode()).hexdigest()[:12]
    place = cache / f"bookworm-{name}"
    with locked(cache / "lock", what="the cached Debian", timeout=1800):
        if not place.exists():
            forming = cache / "forming"
            _delete(forming)
            root = forming / "root"
            fetch = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", root, MIRROR]
            _loudly(fetch, 1800)
            _loudly(["chroot", root, "sh", "-euc", SETUP], 600)
            for kind in ("vmlinuz", "initrd.img"):
                shutil.move(next((root / "boot").glob(f"{kind}-*")), forming / kind)
            os.rename(forming, place)
        os.utime(place)  # when it was used last
        forget_unused(cache)
    return place


def forget_unused(cache: Path) -> None:
    """Delete the Debians of the cache that no run of the tests has used for a while, and nothing else in it.

    The lists of packages change, and with them the names: what is of an older list is never asked for again. It is not
    deleted at once, since a machine of another checkout may run from it.
    """
    for place in sorted(cache.iterdir()):
        if not _CACHED.fullmatch(place.name) or place.is_symlink() or not place.is_dir():
            continue
        if time.time() - place.stat().st_mtime > _KEPT_UNUSED:
            # Under another name first: what is half deleted must never be taken for a whole one.
            going = cache / "forming"
            _delete(going)
            os.rename(place, going)
            _delete(going)


def _delete(tree: Path) -> None:
    """Delete a tree in which a debootstrap that was killed may have left /proc and /sys mounted."""
    if not tree.exists():
        return
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        mpoint = line.split()[4]
        if mpoint.startswith(f"{tree.resolve()}/"):
            subprocess.run(["umount", "--", mpoint], check=True)
    shutil.rmtree(tree)


def _loudly(command: Sequence[str | Path], timeout: float) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    assert done.returncode == 0, f"{command[0]} failed: {done.stdout.decode('utf-8', 'replace')[-3000:]}"


def _install(tree: Path) -> None:
    home = tree / "opt" / "scalarizr"
    packages = home / "lib" / "python3.11" / "site-packages"
    packages.mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (home / "bin" / "python").symlink_to("/usr/bin/python3")
    program = home / "bin" / "scalarizr"
    program.write_text(
        "#!/opt/scalarizr/bin/python\nimport sys\nfrom scalarizr.cli.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
    (tree / "usr" / "bin" / "scalarizr").symlink_to("/opt/scalarizr/bin/scalarizr")
    shutil.copytree(
        CHECKOUT / "src" / "scalarizr", packages / "scalarizr", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in sorted(_needed("scalarizr") - {"scalarizr"}):
        for file in distribution(name).files or ():
            if file.parts[0] != ".." and file.suffix != ".pyc":
                place = packages / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), place)
    units = tree / "etc" / "systemd" / "system"
    for kind in ("service", "socket"):
        for unit in (CHECKOUT / "packaging" / "systemd").glob(f"*.{kind}"):
            shutil.copy(unit, units / unit.name)
    shutil.copy(Path(__file__).with_name("small_vm_guest.py"), tree / "opt" / "small_vm_guest.py")
    (units / "test-commands.service").write_text(_COMMANDS_UNIT)
    limits = tree / "etc" / "systemd" / "system.conf.d"
    limits.mkdir(parents=True)
    (limits / "emulated.conf").write_text(_LIMITS)
    script = """\
/opt/scalarizr/bin/python -m compileall -q /opt/scalarizr/lib
scalarizr init
systemctl enable scalarizr.socket scalarizr.service scalarizr-guard.service test-commands.service
"""
    _loudly(["chroot", tree, "sh", "-euc", script], 600)


def _needed(name: str) -> set[str]:
    """Give the names of the distributions that one needs, itself included."""
    found: set[str] = set()
    todo = [name]
    while todo:
        one = todo.pop()
        if one.lower() not in found:
            found.add(one.lower())
            for text in distribution(one).requires or ():
                requirement = Requirement(text)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    todo.append(requirement.name)
    return found


class SmallVm:
    """A virtual machine with a disk of its own below `directory`.

    :param disks: bytes of each further disk, blank; they are /dev/vdb and so on, and have the serials disk-1 and so on.
    :param without: units that it does not start.
    """

    def __init__(self, image: Image, directory: Path, disks: Sequence[int] = (), without: Sequence[str] = ()) -> None:
        self.directory = directory
        self.console = directory / "console"
        self._image = image
        self._without = without
        self.disk = directory / "disk.qcow2"
        self._qemu: subprocess.Popen[bytes] | None = None
        self._port: socket.socket | None = None
        self._came = b""
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.disk, self.disk]
        subprocess.run(create, check=True)
        self.disks = [directory / f"disk-{number}.qcow2" for number, _size in enumerate(disks, 1)]
        for path, size in zip(self.disks, disks, strict=True):
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)

    def boot(self) -> str:
        """Switch it on; gives the boot's id as soon as it takes commands, which is before all services have started."""
        assert self._qemu is None, "it runs already"
        ours, theirs = socket.socketpair()
        with open(self.directory / "qemu", "ab") as words, theirs:
            self._qemu = subprocess.Popen(
                # It dies with the test, whatever ends that.
                ["setpriv", "--pdeathsig", "KILL", *self._command(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                pass_fds=[theirs.fileno()],
            )
        self._port, self._came = ours, b""
        return str(self._answer(_BOOT_LIMIT)["boot"])

    def _command(self, port: int) -> list[str]:
        # cache=writeback: the machine sees a disk with a cache that is lost with the power, so that it has to flush
        # what is to be durable. With qemu killed, all that the machine kept in its memory is gone, and much of what it
        # wrote without a flush, since qemu had not noted yet in the qcow2 file where it put that. What was flushed is
        # in the file, which this computer's kernel keeps.
        drives: list[str] = []
        for number, path in enumerate([self.disk, *self.disks]):
            drives += ["-drive", f"file={path},if=none,id=disk{number},format=qcow2,cache=writeback"]
            drives += ["-device", f"virtio-blk-pci,drive=disk{number},serial=disk-{number}"]
        # An emulated timer on a busy host may come too late for the kernel, which would panic of it: it is not asked.
        kernel = "root=/dev/vda rw console=ttyS0 mitigations=off quiet no_timer_check"
        kernel += " systemd.journald.forward_to_console=1"
        kernel += "".join(f" systemd.mask={unit}" for unit in self._without)
        return [
            *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-smp", "2", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot"),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd), "-append", kernel),
            *drives,
            *("-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=commands,fd={port}", "-device", "virtio-serial"),
            *("-device", "virtserialport,chardev=commands,name=test.commands"),
        ]

    def tell(self, *command: str, text: str = "", timeout: float = _COMMAND_LIMIT) -> None:
        """Have a command run in it, and do not wait for its end; `heard` gives it."""
        self._ask(command=command, input=text, timeout=timeout)

    def heard(self, timeout: float = _COMMAND_LIMIT) -> Done:
        """Wait for the end of the command that was told first."""
        return Done(**self._answer(timeout))

    def run(self, *command: str, text: str = "", timeout: float = _COMMAND_LIMIT) -> Done:
        """Run a command in it.

        :param text: what it reads on standard input.
        """
        self.tell(*command, text=text, timeout=timeout)
        return self.heard(timeout + 60)

    def call_agent(self, method: str, parameters: dict[str, object], timeout: float) -> Done:
        """Call a method of the agent in it.

        :return: what `scalarizr call --json` would end with, print, and say of an error.
        """
        self._ask(method=method, parameters=parameters, timeout=timeout)
        return self.heard(timeout + 60)

    def output(self, *command: str, text: str = "", timeout: float = _COMMAND_LIMIT) -> str:
        """Run a command that succeeds; gives what it prints."""
        done = self.run(*command, text=text, timeout=timeout)
        assert done.status == 0, f"{' '.join(command)}: {done}"
        return done.output.strip()

    def shell(self, script: str, timeout: float = _COMMAND_LIMIT) -> str:
        """Run a shell script that succeeds; gives what it prints."""
        return self.output("sh", "-eu", text=script, timeout=timeout)

    def cut_power(self) -> None:
        """Take the power from it, from one instant to the next."""
        if self._qemu is not None:
            self._qemu.send_signal(signal.SIGKILL)
            self._qemu.wait()
            self._qemu = None
        if self._port is not None:
            self._port.close()
            self._port = None

    def wait_for_end(self, timeout: float) -> None:
        """Wait until it switched itself off, which a reboot is here."""
        assert self._qemu is not None
        self._qemu.wait(timeout)

    def last_words(self, since: int = 0, limit: int = 12_000) -> str:
        """Give the end of what it printed on its console, and of what qemu said."""
        said = b""
        for path, start in ((self.console, since), (self.directory / "qemu", 0)):
            with contextlib.suppress(FileNotFoundError):
                said += path.read_bytes()[start:][-limit:]
        return said.decode("utf-8", "replace").replace("\r", "")

    def console_size(self) -> int:
        """Give how much it printed on its console until now."""
        return self.console.stat().st_size if self.console.exists() else 0

    def _ask(self, **request: object) -> None:
        assert self._port is not None, "it is switched off"
        self._port.sendall(json.dumps(request).encode() + b"\n")

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self._port is not None and self._qemu is not None, "it is switched off"
        deadline = time.monotonic() + timeout
        while b"\n" not in self._came:
            left = deadline - time.monotonic()
            if left <= 0:
                raise NoPower(f"the virtual machine did not answer within {timeout:g} s:\n{self.last_words()}")
            self._port.settimeout(left)
            try:
                came = self._port.recv(1 << 16)
            except TimeoutError:
                continue
            if not came:
                raise NoPower(f"the virtual machine ended:\n{self.last_words()}")
            self._came += came
        line, _end, self._came = self._came.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def small_vm(
    image: Image, directory: Path, disks: Sequence[int] = (), without: Sequence[str] = ()
) -> Iterator[SmallVm]:
    """Give a virtual machine that runs; at the end it is switched off, and its disks are thrown away."""
    machine = SmallVm(image, directory, disks, without)
    try:
        machine.boot()
        yield machine
    finally:
        machine.cut_power()
        for path in (machine.disk, *machine.disks):
            path.unlink()
