"""What the methods of the `system` namespace take and give, as `rpc.discover` describes it."""

from typing import NotRequired, TypedDict

from scalarizr.secret import Secret


class Uname(TypedDict):
    """The kernel and the machine, as uname(1) names them."""

    kernel_name: str
    nodename: str
    kernel_release: str
    kernel_version: str
    machine: str
    processor: str
    hardware_platform: str


class Distribution(TypedDict):
    """The distribution; what is not known is an empty string."""

    distributor: str
    release: str
    codename: str


class Memory(TypedDict):
    """Memory and swap, in kB."""

    total_swap: int
    avail_swap: int
    total_real: int
    total_free: int
    shared: int
    buffer: int
    cached: int
    available: int


class Requests(TypedDict):
    """Requests of one direction since boot."""

    num: int
    sectors: int
    bytes: int


class DiskStatistics(TypedDict):
    """What went through one block device."""

    read: Requests
    write: Requests


class Traffic(TypedDict):
    """Traffic of one direction since boot."""

    bytes: int
    packets: int
    errors: int


class InterfaceStatistics(TypedDict):
    """What went through one network interface."""

    receive: Traffic
    transmit: Traffic


class Space(TypedDict):
    """A file system's size and free space, in kB."""

    total: int
    free: int


class MetricValue(TypedDict):
    """One scaling metric, read."""

    id: int
    name: str
    value: float | None
    error: str | None


class ScriptOutput(TypedDict):
    """What a script printed, each stream in base64."""

    stdout: str
    stderr: str


class MountedFileSystem(TypedDict):
    """One mount of a real file system; sizes in kB, null where it does not answer."""

    device: str
    mpoint: str
    fstype: str
    options: str
    total: int | None
    free: int | None


class GivenScript(TypedDict, total=False):
    """A script to be run."""

    name: str | None
    body: Secret | None
    path: str | None
    run_as: str | None
    timeout: float | int | str | None
    asynchronous: bool
    execution_id: str | int | None


class GlobalVariable(TypedDict):
    """An environment variable of scripts; a private one's value is masked."""

    name: str
    value: Secret
    private: NotRequired[bool]


class ScriptResult(TypedDict):
    """How a script ended; one that runs on has neither code nor time."""

    execution_id: str
    name: str
    return_code: int | None
    elapsed: float | None
    timed_out: bool
