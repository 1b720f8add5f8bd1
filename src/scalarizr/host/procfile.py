"""Reading the kernel's text files: small, whole, and with an error that names the file."""

from pathlib import Path

from scalarizr.errors import OutsideFailure


def read_text(path: Path) -> str:
    """Read a file of /proc or /etc.

    :raises OutsideFailure: naming the file and the reason.
    """
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        raise OutsideFailure(f"{path} cannot be read: {error.strerror}.", {"file": str(path)}) from error


def malformed(path: Path, line: str) -> OutsideFailure:
    """Make the error for a file that is not in any known form of the kernel's."""
    return OutsideFailure(f"{path} has a line of an unknown form: {line[:80]!r}.", {"file": str(path)})
