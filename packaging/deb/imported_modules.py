"""Imports everything that the agent imports, and prints the files that were loaded from the directory of libraries.

Run by the package's own interpreter when the package is built (build.sh): the build ends here where something that the
agent imports, at its start or later, was left out of the package. What is printed is compiled when the package is
installed.

A module that only an extra brings (a cloud's SDK) is left out; its name is said on standard error.
"""

import ast
import importlib
import pkgutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import scalarizr

# The packages that the extras in pyproject.toml bring.
OF_EXTRAS = frozenset({"boto3", "botocore", "google", "openstack", "keystoneauth1", "cs", "requests"})
# They say what they are by being run.
RUN_ONLY = frozenset({"scalarizr.__main__"})


def imported_somewhere(source: str) -> Iterator[str]:
    """Give the modules that a source imports wherever it does, for the type checker alone apart.

    `from package import name` gives `package.name`, which is a module or a name in one.
    """
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            todo.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        todo.extend(ast.iter_child_nodes(node))


def load(name: str) -> None:
    """Import a module, or the module that a name is in."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        package, _dot, attribute = name.rpartition(".")
        if missing.name != name or not package or not hasattr(importlib.import_module(package), attribute):
            raise


def load_all() -> set[str]:
    """Import every module of the agent, and everything that they may import later.

    :return: the packages that are not there, and need not be.
    """
    sources = []
    for module in pkgutil.walk_packages(scalarizr.__path__, "scalarizr."):
        if module.name not in RUN_ONLY:
            loaded = importlib.import_module(module.name)
            assert loaded.__file__ is not None
            sources.append(Path(loaded.__file__).read_text(encoding="utf-8"))
    left_out = set()
    for name in sorted({name for source in sources for name in imported_somewhere(source)}):
        try:
            load(name)
        except ModuleNotFoundError as missing:
            top = (missing.name or "").partition(".")[0]
            if top not in OF_EXTRAS:
                raise
            left_out.add(top)
    return left_out


def main() -> None:
    for name in sorted(load_all()):
        print(f"left out, as an extra brings it: {name}", file=sys.stderr)
    libraries = Path(sysconfig.get_path("purelib"))
    files = {
        Path(module.__file__) for module in list(sys.modules.values()) if getattr(module, "__file__", None) is not None
    }
    for file in sorted(files):
        if file.suffix == ".py" and file.is_relative_to(libraries):
            print(file.relative_to(libraries))


if __name__ == "__main__":
    main()
