"""Where a volume may be mounted, and with which options: what cannot be right is refused before anything is made."""

import os
import re
import stat
from pathlib import Path

from scalarizr.errors import InvalidParameter
from scalarizr.host.paths import HostPaths
from scalarizr.storage.mount_table import is_below, mount_table

_LONGEST = 4000
_LONGEST_NAME = 255
_MOST_LINKS = 40
# The Filesystem Hierarchy Standard's top level. A volume may be some of these, or lie below some, and has nothing to do
# with the rest; a name of the top level that is not here (/data, /pgdata) is somebody's own.
_MAY_BE = frozenset({"home", "media", "mnt", "opt", "srv"})
_MAY_LIE_BELOW = _MAY_BE | {"root", "tmp", "var"}
_MAY_NOT = {
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "lost+found",
    "proc",
    "run",
    "sbin",
    "sys",
    "usr",
}
_SYSTEM = _MAY_LIE_BELOW | _MAY_NOT
_NEVER_BELOW = ("/var/run", "/var/lock")
_NEVER = frozenset({"/var/lib", "/var/log", "/var/cache", "/var/spool", "/var/tmp", "/var/mail", "/var/opt"})  # noqa: S108
_MAY_LIE_BELOW_USR = "/usr/local"

_OPTIONS = re.compile(r"[A-Za-z0-9_.,=:/@%+-]{0,1000}", re.ASCII)
# What would mount something else, elsewhere, or let other programs and people take part.
_REFUSED_OPTIONS = frozenset(
    {
        *("loop", "offset", "sizelimit", "encryption", "remount", "bind", "rbind", "move"),
        *("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"),
        *("user", "users", "owner", "group", "comment", "helper", "uhelper"),
        *("device", "journal_dev", "journal_path", "logdev", "rtdev", "lowerdir", "upperdir", "workdir"),
    }
)


def check_mount_point(host: HostPaths, mpoint: str, device: Path | None, parameter: str = "mpoint") -> Path:
    """Give a mount point's path without links, if a volume may be mounted there.

    :param device: the volume's; mounted there already, it is no obstacle. None: not known yet.
    :param parameter: the mount point's name in the call.
    :raises InvalidParameter: it is not absolute and normal, is one of the system's directories or inside of one, is
        reached through a link that a stranger may change, is no directory, holds files, or something is mounted there.
    """
    shown = repr(mpoint if len(mpoint) <= 200 else mpoint[:199] + "…")
    _check_form(mpoint, shown, parameter)
    _check_place(mpoint, shown, parameter)
    real = settled(Path(mpoint), parameter)
    _check_place(str(real), shown, parameter)
    _check_free(host, real, device, shown, parameter)
    return real


def settled(path: Path, parameter: str = "mpoint") -> Path:
    """Give a path without its links, all of which have to be root's, in directories that only root may change.

    :raises InvalidParameter: one is not, or a component is no directory.
    """
    waiting = list(reversed(path.parts[1:]))
    real = Path("/")
    links = 0
    while waiting:
        name = waiting.pop()
        if name == "..":
            real = real.parent
            continue
        one = real / name
        try:
            status = os.lstat(one)
        except FileNotFoundError:
            real = one
            continue
        except OSError as error:
            raise InvalidParameter(parameter, repr(str(path)[:200]), f"a reachable path ({error.strerror})") from None
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if status.st_uid != 0 or _strangers_may_change(real) or links > _MOST_LINKS:
                raise InvalidParameter(
                    parameter, repr(str(path)[:200]), f"a path without links that others than root may change: {one}"
                )
            target = Path(os.readlink(one))
            real = Path("/") if target.is_absolute() else real
            waiting += reversed([part for part in target.parts if part != "/"])
        elif not stat.S_ISDIR(status.st_mode):
            raise InvalidParameter(parameter, repr(str(path)[:200]), f"a directory, which {one} is not")
        else:
            real = one
    return real


def check_mount_options(text: str, parameter: str = "mount_options") -> str:
    """Check options for mount(8), by comma.

    :return: them, without what is empty.
    :raises InvalidParameter: a character or an option that a volume's mount cannot need.
    """
    shown = repr(text[:200])
    if not _OPTIONS.fullmatch(text):
        raise InvalidParameter(
            parameter, shown, "options by comma, of letters, digits and _ . = : / @ % + -, 1000 characters at most"
        )
    options = [option for option in text.split(",") if option]
    for option in options:
        name = option.partition("=")[0]
        if name.lower() in _REFUSED_OPTIONS or name[:2] in ("x-", "X-") or not name:
            raise InvalidParameter(parameter, shown, f"options of the file system; {option[:80]} is refused")
    return ",".join(options)


def _check_form(mpoint: str, shown: str, parameter: str) -> None:
    try:
        length = len(os.fsencode(mpoint))
    except UnicodeEncodeError:
        raise InvalidParameter(parameter, shown, "text that is a file name") from None
    if not 0 < length <= _LONGEST or any(len(os.fsencode(name)) > _LONGEST_NAME for name in mpoint.split("/")):
        raise InvalidParameter(parameter, shown, f"1 to {_LONGEST} bytes, {_LONGEST_NAME} at most between two slashes")
    if not mpoint.isprintable() or "\\" in mpoint:
        raise InvalidParameter(parameter, shown, "printable characters, no backslash")
    if not mpoint.startswith("/"):
        raise InvalidParameter(parameter, shown, "an absolute path")
    if os.path.normpath(mpoint) != mpoint.rstrip("/") or mpoint.startswith("//") or mpoint.strip("/") == "":
        raise InvalidParameter(parameter, shown, "a directory other than /, without . or .. or // in its path")


def _check_place(path: str, shown: str, parameter: str) -> None:
    names = path.strip("/").split("/")
    top, below = names[0], len(names) > 1
    allowed = (
        top not in _SYSTEM
        or (below and top in _MAY_LIE_BELOW)
        or (not below and top in _MAY_BE)
        or (is_below(path, _MAY_LIE_BELOW_USR) and path != _MAY_LIE_BELOW_USR)
    )
    whole = "/" + "/".join(names)
    if not allowed or whole in _NEVER or any(is_below(whole, directory) for directory in _NEVER_BELOW):
        raise InvalidParameter(
            parameter,
            shown,
            "a place for data: a directory of its own at the top, or one below /mnt, /media, /srv, /opt, /home or /var",
        )


def _check_free(host: HostPaths, real: Path, device: Path | None, shown: str, parameter: str) -> None:
    from scalarizr.storage.block_tree import devices_of

    table = mount_table(host)
    there = [mounted for mounted in table if mounted.mpoint == str(real)]
    if there:
        if device is not None and os.stat(device).st_rdev in devices_of(host, there[-1]):
            return
        raise InvalidParameter(
            parameter, shown, f"a free directory: {there[-1].source} ({there[-1].fstype}) is mounted there"
        )
    try:
        names = os.listdir(real)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidParameter(parameter, shown, f"an empty or missing directory ({error.strerror})") from None
    if names:
        raise InvalidParameter(parameter, shown, f"an empty or missing directory; it holds {names[0][:80]!r}")


def _strangers_may_change(directory: Path) -> bool:
    """Tell whether others than root may put something else in place of what is in a directory and root's own."""
    status = os.stat(directory)
    if status.st_uid != 0:
        return True
    return bool(status.st_mode & 0o022) and not status.st_mode & stat.S_ISVTX
