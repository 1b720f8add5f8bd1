"""What the security review (docs/security.md) says of the source as a whole, and that the tests it names are there."""

import ast
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Give every call in a module with the dotted name of what is called."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def where(path: Path, node: ast.Call) -> str:
    return f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}"


def test_no_program_is_started_by_a_shell() -> None:
    shells = {"sh", "bash", "dash", "/bin/sh", "/bin/bash", "/usr/bin/sh", "/usr/bin/bash"}
    found = []
    for path in SOURCES:
        for name, node in calls(path):
            by_option = any(keyword.arg == "shell" for keyword in node.keywords)
            by_name = name in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput")
            first = node.args[0] if node.args else None
            vector = first.elts if isinstance(first, ast.List | ast.Tuple) else []
            program = vector[0].value if vector and isinstance(vector[0], ast.Constant) else None
            if by_option or by_name or (program in shells and name != "click.Choice"):
                found.append(where(path, node))
    assert len(SOURCES) > 200 and found == []


def test_no_code_is_evaluated() -> None:
    evaluating = {"eval", "exec", "compile", "__import__", "pickle.loads", "pickle.load", "marshal.loads", "yaml.load"}
    assert [where(path, node) for path in SOURCES for name, node in calls(path) if name in evaluating] == []


def test_every_dependency_is_pinned_by_hash() -> None:
    for lock in ("run.lock", "test.lock"):
        text = (ROOT / "requirements" / lock).read_text().replace("\\\n", " ")
        pinned = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert len(pinned) > 10
        assert [line for line in pinned if "==" not in line or "--hash=sha256:" not in line] == []
    installing = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    from_locks = [line for line in installing if " -r " in line]
    assert len(from_locks) >= 2 and all("--require-hashes" in line for line in from_locks)
    # All else is this checkout itself, which brings nothing with it.
    assert all("--no-deps -e ." in line for line in installing if line not in from_locks)


def test_what_is_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    made = subprocess.run(
        [
            "sh",
            "-c",
            'umask 0; exec "$@"',
            "sh",
            sys.executable,
            "-m",
            "scalarizr",
            "init",
            "--etc",
            str(tmp_path / "etc"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    key = tmp_path / "etc" / "private.d" / "keys" / "default"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    directories = (key.parent, key.parent.parent)
    assert all(not stat.S_IMODE(directory.stat().st_mode) & 0o022 for directory in directories)


def named_tests() -> set[tuple[str, str]]:
    text = (ROOT / "docs" / "security.md").read_text()
    return set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", text))


def test_every_test_that_the_review_names_is_there() -> None:
    there = {
        (path.name, name)
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert len(named_tests()) > 30
    assert named_tests() - there == set()
