"""The kernel: its name, release, version and machine."""

import os

from scalarizr.host.paths import HostPaths
from scalarizr.host.procfile import read_text


def uname(host: HostPaths) -> dict[str, str]:
    """Give what uname(1) prints.

    Processor and hardware platform are, as there, the machine where nothing better is known. Of a recorded tree
    everything comes from /proc/sys/kernel, its machine from `arch` there (Linux 6.1), else from the processors' file.
    """
    if host.live:
        system, node, release, version, machine = os.uname()
    else:
        kernel = host.proc / "sys" / "kernel"
        system, node, release, version = (
            read_text(kernel / name).strip() for name in ("ostype", "hostname", "osrelease", "version")
        )
        machine = _recorded_machine(host)
    return {
        "kernel_name": system,
        "nodename": node,
        "kernel_release": release,
        "kernel_version": version,
        "machine": machine,
        "processor": machine,
        "hardware_platform": machine,
    }


def _recorded_machine(host: HostPaths) -> str:
    arch = host.proc / "sys" / "kernel" / "arch"
    if arch.exists():
        return read_text(arch).strip()
    text = read_text(host.proc / "cpuinfo")
    if "vendor_id" in text:
        return "x86_64" if " lm " in text else "i686"
    if "CPU architecture: 8" in text:
        return "aarch64"
    return "armv7l" if "CPU architecture" in text else "unknown"
