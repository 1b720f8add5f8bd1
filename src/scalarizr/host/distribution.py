"""The distribution: from os-release(5), and for the time before it from the files that each one had."""

import re

from scalarizr.host.paths import HostPaths

_RED_HAT_NAMES = {
    "centos": "centos",
    "red hat": "rhel",
    "fedora": "fedora",
    "scientific": "scientific",
    "oracle": "ol",
    "amazon": "amzn",
}


def distribution(host: HostPaths) -> dict[str, str]:
    """Give distributor (lower case, os-release's ID), release and codename; what is not known is an empty string."""
    for directory in (host.etc, host.usr / "lib"):
        values = _assignments(_text(directory / "os-release"))
        if "ID" in values:
            return {
                "distributor": values["ID"].lower(),
                "release": values.get("VERSION_ID", ""),
                "codename": values.get("VERSION_CODENAME") or _codename_in(values.get("VERSION", "")),
            }
    values = _assignments(_text(host.etc / "lsb-release"))
    if "DISTRIB_ID" in values:
        return {
            "distributor": values["DISTRIB_ID"].lower(),
            "release": values.get("DISTRIB_RELEASE", ""),
            "codename": values.get("DISTRIB_CODENAME", ""),
        }
    for name in ("redhat-release", "centos-release", "system-release"):
        match = re.search(r"(.+?) release ([\d.]+)(?:.*\((.+)\))?", _text(host.etc / name))
        if match:
            title = match[1].lower()
            known = next((known for word, known in _RED_HAT_NAMES.items() if word in title), title.split()[0])
            return {"distributor": known, "release": match[2], "codename": (match[3] or "").lower()}
    debian = _text(host.etc / "debian_version").strip()
    if debian:
        numbered = debian[:1].isdigit()
        return {
            "distributor": "debian",
            "release": debian if numbered else "",
            "codename": "" if numbered else debian.partition("/")[0],
        }
    return {"distributor": "", "release": "", "codename": ""}


def _text(path: object) -> str:
    try:
        with open(str(path), "rb") as file:
            return file.read(65536).decode("utf-8", "replace")
    except OSError:
        return ""


def _assignments(text: str) -> dict[str, str]:
    """Read `NAME=value` lines, quoted the shell's way where they are (os-release(5))."""
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            value = value.strip()
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            values[name] = value
    return values


def _codename_in(version: str) -> str:
    match = re.search(r"\(([^)]+)\)|, (.+)$", version)
    return (match[1] or match[2]).strip().lower().split()[0] if match else ""
