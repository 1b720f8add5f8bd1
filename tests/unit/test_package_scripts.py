"""What the scripts of the Debian package decide when it is installed, removed, purged: their functions, run alone."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DEB = Path(__file__).parents[2] / "packaging" / "deb"
SCRIPTS = ("preinst", "postinst", "prerm", "postrm")


def functions(script: str) -> str:
    """Give a script without what it does at last."""
    return (DEB / script).read_text().partition('case "$1" in')[0]


def run(script: str, then: str, **variables: Path | str) -> "subprocess.CompletedProcess[str]":
    """Run the functions of a script with variables of the test's own."""
    assigned = "".join(f"{name}='{value}'\n" for name, value in variables.items())
    text = f"{functions(script)}\n{assigned}{then}\n"
    return subprocess.run(["sh", "-c", text], capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_is_a_script(script: str) -> None:
    checked = subprocess.run(["sh", "-n", DEB / script], capture_output=True, text=True, timeout=100)
    assert checked.returncode == 0, checked.stderr


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """A directory with an interpreter, from which a process runs that waits; beside it one without."""
    place = tmp_path / "running" / "0.0.9-abcdefgh"
    for directory in (place, tmp_path / "running" / "0.0.8-abcdefgh"):
        (directory / "bin").mkdir(parents=True)
        (directory / "bin" / "python").symlink_to(shutil.which("sleep") or sys.executable)
    process = subprocess.Popen([place / "bin" / "python", "1000"])
    try:
        yield place
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("script", ["postinst", "postrm"])
def test_a_directory_is_in_use_as_long_as_a_process_runs_from_it(running: Path, script: str) -> None:
    other = running.with_name("0.0.8-abcdefgh")
    # Processes that come and go meanwhile hide none.
    then = 'for n in 1 2 3; do (exec true) & done; in_use "$one" && echo yes; in_use "$two" || echo no; wait'
    done = run(script, then, one=running, two=other)
    assert done.stdout.split() == ["yes", "no"], done


def test_installed_anew_only_what_nothing_runs_from_goes(running: Path) -> None:
    current = running.with_name("0.0.9-ijklmnop")
    current.mkdir()
    done = run("postinst", "forget_what_ended", base=running.parents[1], running=current)
    assert done.returncode == 0, done
    assert {path.name for path in running.parent.iterdir()} == {running.name, current.name}


def test_removed_it_keeps_what_something_runs_from_and_names_it(running: Path) -> None:
    done = run("postrm", 'forget_what_ended; echo "$kept"', base=running.parents[1])
    assert done.stdout.strip() == str(running)
    assert [path.name for path in running.parent.iterdir()] == [running.name]


def write(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious\n")


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_purged_it_keeps_backups_volumes_and_their_records(tmp_path: Path) -> None:
    state = tmp_path / "state"
    kept = ["backups/one/manifest", "storage/abc.json", "volumes/one.img"]
    write(*(state / name for name in kept))
    write(
        *(state / name for name in ("replay", "operations/db", "changes/1/record", "storage/locks/ec2", "locks/nginx"))
    )
    done = run("postrm", "purge_state", state=state)
    assert done.returncode == 0 and "kept" in done.stdout, done
    assert files(state) == kept


def test_purged_it_leaves_nothing_of_a_state_without_data(tmp_path: Path) -> None:
    state = tmp_path / "state"
    write(state / "replay", state / "storage/locks/ec2")
    (state / "backups").mkdir()
    done = run("postrm", "purge_state", state=state)
    assert (done.returncode, done.stdout) == (0, ""), done
    assert not state.exists()


def test_purged_it_keeps_what_a_web_server_serves_sites_with_and_no_key_of_its_own(tmp_path: Path) -> None:
    etc, nginx = tmp_path / "etc", tmp_path / "nginx"
    served = [
        "private.d/keys/a.example.com.crt",
        "private.d/keys/a.example.com.key",
        "private.d/vhosts/a.example.com.conf",
    ]
    write(*(etc / name for name in [*served, "scalarizr.toml", "keys.toml", "private.d/keys/default"]))
    nginx.mkdir()
    (nginx / "proxies.conf").write_text(f"ssl_certificate {etc}/private.d/keys/a.example.com.crt;\n")
    done = run("postrm", "purge_etc", etc=etc, web_servers=f"{tmp_path}/none {nginx}")
    assert done.returncode == 0 and "kept" in done.stdout, done
    assert files(etc) == served

    (nginx / "proxies.conf").unlink()
    done = run("postrm", "purge_etc", etc=etc, web_servers=f"{tmp_path}/none {nginx}")
    assert done.returncode == 0 and not etc.exists(), done


@pytest.mark.root
def test_purged_it_deletes_nothing_on_a_volume_that_is_mounted_in_its_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    write(state / "replay", state / "deep" / "gone")
    places = [state / "data", state / "deep" / "data"]
    for place in places:
        place.mkdir()
    # A mount namespace of its own takes the mounts away again, whatever happens here.
    script = tmp_path / "script"
    script.write_text(
        f"{functions('postrm')}\nset -e\nstate='{state}'\n"
        + "".join(f"mount -t tmpfs none '{place}'; echo precious > '{place}/one'\n" for place in places)
        + "echo mounted\npurge_state\n"
        + "".join(f"cat '{place}/one'\n" for place in places)
    )
    done = subprocess.run(["unshare", "-m", "sh", script], capture_output=True, text=True, timeout=100)
    if "mounted" not in done.stdout:
        pytest.skip(f"LEFT OUT: nothing can be mounted here: {done.stderr}")
    assert done.returncode == 0 and done.stdout.count("precious") == 2 and "kept" in done.stdout, done
    assert files(state) == []
