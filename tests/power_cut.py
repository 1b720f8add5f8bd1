"""What a power cut leaves: the file operations of a program, recorded by strace(1), with those that were not yet made
durable lost, as far as POSIX lets a file system lose them.

A file's bytes are sure once fsync(2) of the file returned, a name once fsync(2) of its directory did. Of what was done
to a directory since, a cut keeps a beginning of any length, of every directory another; of a file's bytes anything.
"""

import os
import random
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CALLS = (
    "openat,write,fsync,fdatasync,ftruncate,fchmod,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir"
)
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_PLACE = re.compile(r"<((?:\\x[0-9a-f]{2})*)>")


@dataclass
class Operation:
    """One system call that succeeded."""

    name: str
    texts: list[bytes]
    places: list[str]
    rest: str


def record(command: Sequence[object], trace: Path) -> list[Operation]:
    """Run a program to its end and give the file operations that it and its threads made."""
    strace = ["strace", "-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={_CALLS}", "-e", "signal=none", "-o", trace]
    subprocess.run([str(word) for word in (*strace, *command)], check=True, stdout=subprocess.DEVNULL)
    operations, begun = [], {}
    for line in trace.read_text().splitlines():
        matched = _LINE.match(line)
        if matched is None:
            continue
        process, name, text = matched.groups()
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>")
            continue
        if "resumed>" in line[:60]:
            text = begun.pop(process, "") + text
        arguments, _equals, result = text.rpartition(" = ")
        if arguments and not result.startswith(("-1", "?")):
            texts = [_decoded(match) for match in _TEXT.findall(arguments)]
            places = [_decoded(match).decode() for match in _PLACE.findall(arguments)]
            operations.append(Operation(name, texts, places, arguments + result))
    return operations


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class File:
    data: bytes = b""
    sure: bytes = b""
    mode: int = 0o600
    place: int = 0


@dataclass
class Link:
    target: str


@dataclass
class Directory:
    entries: dict[str, "Node"] = field(default_factory=dict)
    sure: dict[str, "Node"] = field(default_factory=dict)
    unsure: list["Step"] = field(default_factory=list)
    mode: int = 0o755


Node = File | Link | Directory


@dataclass
class Step:
    """One name of one directory that came, went or changed; a rename between two is one step in both, kept with the
    directory that it leads to."""

    apply: Callable[[dict[str, Node]], object]
    of: Directory
    twin: "Step | None" = None
    decides: bool = True


class Disk:
    """The directories below `root`, in memory, with what is sure and what is not.

    :param root: everything outside of it does not matter.
    :param ignored: tells which paths do not matter either.
    """

    def __init__(self, root: Path, ignored: Callable[[str], bool]) -> None:
        self.root = root
        self._ignored = ignored
        self._tree = self._loaded(root)

    def _loaded(self, place: Path) -> Directory:
        entries: dict[str, Node] = {}
        for entry in os.scandir(place):
            if self._ignored(entry.path):
                continue
            if entry.is_symlink():
                entries[entry.name] = Link(os.readlink(entry.path))
            elif entry.is_dir():
                entries[entry.name] = self._loaded(Path(entry.path))
            elif entry.is_file():
                data = Path(entry.path).read_bytes()
                entries[entry.name] = File(data, data, stat.S_IMODE(entry.stat().st_mode))
        return Directory(entries, dict(entries), mode=stat.S_IMODE(place.stat().st_mode))

    def _find(self, path: str) -> tuple[Directory, str] | None:
        if not path.startswith(f"{self.root}/") or self._ignored(path):
            return None
        directory = self._tree
        *parents, name = os.path.relpath(path, self.root).split("/")
        for parent in parents:
            following = directory.entries.get(parent)
            if not isinstance(following, Directory):
                return None
            directory = following
        return directory, name

    def _node(self, path: str) -> Node | None:
        if path == str(self.root):
            return self._tree
        found = self._find(path)
        return found[0].entries.get(found[1]) if found else None

    def _change(self, directory: Directory, apply: Callable[[dict[str, Node]], object]) -> Step:
        step = Step(apply, directory)
        apply(directory.entries)
        directory.unsure.append(step)
        return step

    def _set(self, path: str, node: Node) -> Step | None:
        found = self._find(path)
        if found is None:
            return None
        directory, name = found
        return self._change(directory, lambda entries: entries.__setitem__(name, node))

    def _drop(self, path: str) -> Step | None:
        found = self._find(path)
        if found is None:
            return None
        directory, name = found
        return self._change(directory, lambda entries: entries.pop(name, None))

    def _paths(self, operation: Operation) -> list[str]:
        """Give the absolute paths of a call's names; each comes with the directory it starts from where it has one."""
        paths, places = [], list(operation.places)
        for text in operation.texts:
            name = os.fsdecode(text)
            start = places.pop(0) if places and operation.name.endswith("at") else str(self.root)
            paths.append(os.path.normpath(os.path.join(start, name)))
        return paths

    def do(self, operation: Operation) -> bool:
        """Make one operation; tells whether it concerned this disk."""
        name = operation.name
        if name in ("write", "fsync", "fdatasync", "ftruncate", "fchmod"):
            return self._do_to_open(operation)
        if name in ("symlink", "symlinkat"):
            target, link = os.fsdecode(operation.texts[0]), os.fsdecode(operation.texts[1])
            place = os.path.join(operation.places[0], link) if operation.places else link
            return self._set(place, Link(target)) is not None
        paths = self._paths(operation)
        if name == "openat":
            return self._open(paths[0], operation.rest)
        if name in ("mkdir", "mkdirat"):
            return self._set(paths[0], Directory()) is not None
        if name in ("unlink", "unlinkat", "rmdir"):
            return self._drop(paths[0]) is not None
        node = self._node(paths[0])
        if node is None:
            return False
        if name.startswith("link"):
            return self._set(paths[1], node) is not None
        if self._node(paths[1]) is node:
            return False  # rename(2) of one file's two names does nothing
        same = os.path.dirname(paths[0]) == os.path.dirname(paths[1])
        if same and (found := self._find(paths[0])) is not None:
            directory, old = found
            new = os.path.basename(paths[1])
            self._change(directory, lambda entries: (entries.pop(old, None), entries.__setitem__(new, node)))
        else:
            set_, dropped = self._set(paths[1], node), self._drop(paths[0])
            if set_ is not None and dropped is not None:
                set_.twin, dropped.twin, dropped.decides = dropped, set_, False
        return True

    def _open(self, path: str, rest: str) -> bool:
        node = self._node(path)
        if isinstance(node, File):
            node.place = 0
            if "O_TRUNC" in rest:
                node.data = b""
            return "O_TRUNC" in rest
        return "O_CREAT" in rest and node is None and self._set(path, File()) is not None

    def _do_to_open(self, operation: Operation) -> bool:
        node = self._node(operation.places[0]) if operation.places else None
        if isinstance(node, Directory) and operation.name == "fsync":
            for step in node.unsure:
                self._make_sure(step)
            node.unsure.clear()
        elif isinstance(node, File):
            if operation.name == "write":
                text = operation.texts[0]
                node.data = node.data[: node.place] + text + node.data[node.place + len(text) :]
                node.place += len(text)
            elif operation.name == "ftruncate":
                node.data = node.data[: int(operation.rest.split(", ")[1].split(")")[0])]
            elif operation.name == "fchmod":
                node.mode = int(operation.rest.split(", ")[1].split(")")[0], 8)
            else:
                node.sure = node.data
        else:
            return False
        return True

    @staticmethod
    def _make_sure(step: Step) -> None:
        step.apply(step.of.sure)
        twin = step.twin
        if twin is not None and twin in twin.of.unsure:
            twin.of.unsure.remove(twin)
            twin.apply(twin.of.sure)

    def cut(self, chance: random.Random) -> None:
        """Write onto the real disk what a power cut at this moment leaves."""
        for entry in os.scandir(self.root):
            if not self._ignored(entry.path):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        kept: set[int] = set()
        self._choose(self._tree, chance, kept)
        self._write(self._tree, self.root, chance, kept, {})

    def _choose(self, directory: Directory, chance: random.Random, kept: set[int]) -> None:
        """Choose how much of what was done to each directory is kept."""
        count = chance.choice((0, len(directory.unsure), chance.randint(0, len(directory.unsure))))
        kept.update(id(step) for step in directory.unsure[:count])
        for node in {id(node): node for node in (*directory.entries.values(), *directory.sure.values())}.values():
            if isinstance(node, Directory):
                self._choose(node, chance, kept)

    def _write(
        self, directory: Directory, place: Path, chance: random.Random, kept: set[int], written: dict[int, Path]
    ) -> None:
        place.mkdir(exist_ok=True)
        place.chmod(directory.mode)
        entries = dict(directory.sure)
        for step in directory.unsure:
            if id(step if step.decides else step.twin) in kept:
                step.apply(entries)
        for name, node in entries.items():
            path = place / name
            if isinstance(node, Directory):
                self._write(node, path, chance, kept, written)
            elif isinstance(node, Link):
                os.symlink(node.target, path)
            elif id(node) in written:
                os.link(written[id(node)], path)
            else:
                data = node.data
                if node.data != node.sure:
                    data = chance.choice((node.sure, node.data[: chance.randint(0, len(node.data))], b""))
                path.write_bytes(data)
                path.chmod(node.mode)
                written[id(node)] = path
