"""A server of its own for the documentation's sessions: what a page says is typed there, word for word.

Its mounts, processes, network and host name are its own; `/etc`, `/var`, `/srv` and `/root` show what this machine has
and keep what is written to themselves. A shell at a terminal runs one command after the other, so that directories,
variables and background jobs last as they do for the reader. All of it vanishes with that shell.
"""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

from scalarizr.host.processes import children_of

ROOT = Path(__file__).parents[1]
_LONGEST = 120.0
_MARK = "\x1e"
_PRIVATE = ("/etc", "/var", "/srv", "/root", "/mnt", "/usr/local")
# Where the pages have the clone of this repository, if it is not there.
CLONE = Path("/root/scalarizr") if not (ROOT / "x").is_relative_to("/root/scalarizr") else Path("/root/a-clone")
_ADDRESSES = ("10.0.0.7/32", "10.20.0.5/32")
# Nothing here knows the cloud that the machine may be in.
_SETUP = r"""
set -e
mount --make-rprivate /
upper={upper}
mount -t tmpfs -o size=40g tmpfs $upper
for place in {places}; do
    mkdir -p $upper$place/new $upper$place/work
    mount -t overlay overlay -o lowerdir=$place,upperdir=$upper$place/new,workdir=$upper$place/work $place
done
# This checkout is read, and not written.
mount --rbind {root} {root}
mount -o remount,bind,ro {root}
mount -t tmpfs tmpfs /run
rm -rf /etc/scalr /var/lib/scalarizr /var/log/scalarizr*
mkdir -p /run/lock {clone} /var/lib/scalarizr/volumes $upper/clone $upper/volumes
# Of a file there losetup knows again which device shows it; of one on an overlay it does not.
mount --bind $upper/clone {clone}
mount --bind $upper/volumes /var/lib/scalarizr/volumes
mkdir -p /run/postgresql && chown postgres: /run/postgresql 2>/dev/null || true
hostname web-1
ip link set lo up
for address in {addresses}; do ip address add $address dev lo; done
printf '127.0.0.1 localhost web-1\n' > /etc/hosts
printf '# /etc/fstab\n' > /etc/fstab
ln -s {root}/Makefile {root}/tests {root}/packaging {root}/docs {clone}
ln -s {venv} {clone}/.venv
cd {clone}
export PATH={path}:$PATH HOME=/root LC_ALL=C.UTF-8 TZ=UTC NO_COLOR=1 COLUMNS=120 PS1=
unset SCALARIZR_ETC OLDPWD
set +e
"""


class DocumentedServer:
    """The server, and a shell on it.

    :param directory: an empty one of the test's own.
    """

    def __init__(self, directory: Path) -> None:
        self._upper = directory / "server"
        self._upper.mkdir()
        self._commands = directory / "commands"
        self._commands.mkdir()
        self._count = 0
        self._lost = False
        self._master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.ONLCR
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        reading, self._writing = os.pipe()
        spaces = ("--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
        shell = ("setsid", "--ctty", "--wait", "bash", "--noprofile", "--norc", f"/dev/fd/{reading}")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "unshare", *spaces, "--", *shell],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            pass_fds=[reading],
        )
        os.close(slave)
        os.close(reading)
        words = {
            "upper": self._upper,
            "places": " ".join(_PRIVATE),
            "addresses": " ".join(_ADDRESSES),
            "clone": CLONE,
            "root": ROOT,
            "venv": Path(sys.prefix),
            "path": Path(sys.executable).parent,
        }
        text = _SETUP
        for name, word in words.items():
            text = text.replace("{" + name + "}", str(word))
        self.must(text)

    def must(self, command: str) -> str:
        """Run what is not the page's own; it has to succeed."""
        said, status = self.run(command)
        assert status == 0, f"{command}\n{said}"
        return said

    def run(self, command: str, answers: tuple[str, ...] = (), *, colours: bool = False) -> tuple[str, int]:
        """Type a command, and wait for its end.

        :param answers: what is typed each time that the program asks for something without echo.
        :param colours: keep the sequences that colour what is shown.
        :return: what the terminal showed, and the exit status.
        """
        assert not self._lost, "an earlier command of this shell has not ended"
        self._count += 1
        file = self._commands / str(self._count)
        file.write_text(f"{command}\n")
        os.write(self._writing, f". {file}\nprintf '{_MARK}%d{_MARK}' $?\n".encode())
        seen = b""
        deadline = time.monotonic() + _LONGEST
        waiting = list(answers)
        ended = re.compile(rf"{_MARK}(\d+){_MARK}".encode())
        while not (end := ended.search(seen)):
            self._lost = time.monotonic() >= deadline
            assert not self._lost, f"does not end: {command}\n{seen.decode(errors='replace')}"
            if select.select([self._master], [], [], 0.2)[0]:
                try:
                    seen += os.read(self._master, 1 << 16)
                except OSError:
                    raise AssertionError(f"the shell ended: {command}\n{seen.decode(errors='replace')}") from None
                if waiting and seen.endswith(b": "):
                    os.write(self._master, waiting.pop(0).encode() + b"\n")
        return as_shown(seen[: end.start()].decode(errors="replace"), colours=colours), int(end[1])

    def close(self) -> None:
        devices = self._loop_devices()
        os.close(self._writing)
        self._process.kill()
        self._process.wait(60)
        os.close(self._master)
        for device in devices:
            subprocess.run(["losetup", "--detach", device], check=False)

    def _loop_devices(self) -> list[str]:
        """Give the loop devices that show images of this server: they outlive its mounts."""
        images = set()
        for shell in children_of(self._process.pid):
            root = Path(f"/proc/{shell}/root")
            for place in ("/var/lib/scalarizr/volumes", f"{CLONE}/var/volumes"):
                images |= {file.stat().st_ino for file in (root / place.lstrip("/")).glob("*.img")}
            device = (root / "var/lib/scalarizr/volumes").stat().st_dev
        listed = subprocess.run(
            ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-MAJ:MIN,BACK-INO"],
            capture_output=True,
            text=True,
        )
        found = [line.split() for line in listed.stdout.splitlines()]
        here = f"{os.major(device)}:{os.minor(device)}"
        return [name for name, where, inode in found if where == here and int(inode) in images]


def as_shown(text: str, *, colours: bool = False) -> str:
    """Give what stays on a terminal of what was written to it: no colours, and lines as they were written over last."""
    text = re.sub(r"\x1b\[[0-9;?]*[hlGJ]" if colours else r"\x1b\[[0-9;?]*[mhlGJ]", "", text).replace("\r\n", "\n")
    # A progress bar writes a line, goes up or to the line's beginning, and clears.
    lines: list[str] = []
    for line in text.split("\n"):
        while (up := re.search(r"\x1b\[(\d*)A", line)) is not None:
            for _ in range(int(up[1] or 1)):
                if lines:
                    lines.pop()
            line = line[: up.start()] + line[up.end() :]
        line = line.rpartition("\x1b[2K")[2] if "\x1b[2K" in line else line
        lines.append(line.rpartition("\r")[2] if "\r" in line else line)
    return "\n".join(lines)
