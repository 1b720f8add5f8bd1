"""Showing what a change does to a file."""


def unified_diff(path: str, old: bytes | None, new: bytes | None) -> str:
    """Write a unified diff (the form of diff(1) and patch(1)).

    :param path: names both sides.
    :param old: what the file holds; None where there is none.
    :param new: what it shall hold; None where it goes.
    """
    import difflib

    if b"\0" in (old or b"") or b"\0" in (new or b""):
        return f"Binary file {path} changes\n"
    before, after = _lines(old), _lines(new)
    rows = difflib.unified_diff(
        before, after, "/dev/null" if old is None else path, "/dev/null" if new is None else path
    )
    return "".join(row if row.endswith("\n") else f"{row}\n\\ No newline at end of file\n" for row in rows)


def _lines(content: bytes | None) -> list[str]:
    text = (content or b"").decode("utf-8", "backslashreplace")
    # Only a line feed ends a line here: str.splitlines knows a dozen other ends.
    return [f"{line}\n" for line in text.split("\n")[:-1]] + ([last] if (last := text.rpartition("\n")[2]) else [])
