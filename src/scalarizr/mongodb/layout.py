"""The two kinds of monitoring agents: what each is recognised by, how it is configured, and what runs it."""

import re
import shutil
import sys
from pathlib import Path

import msgspec

from scalarizr.errors import UNCHANGED, NotSupported
from scalarizr.mongodb.place import Login
from scalarizr.secret import Secret

_AUTOMATION_PROGRAM = "mongodb-mms-automation-agent"
_AUTOMATION_CONFIGURATIONS = ("automation-agent.config", "local.config")
_DEEPEST = 6
_INTERPRETERS = ("python2", "python", "python3")
_PATH = "/usr/local/bin:/usr/bin:/bin"


class Keys(msgspec.Struct, frozen=True):
    """What the monitoring service knows this server by.

    :param api_key: the name of its group there.
    :param secret_key: the secret of that group.
    """

    api_key: Secret
    secret_key: Secret


class Layout(msgspec.Struct, frozen=True):
    """A monitoring agent that was unpacked.

    :param kind: which of the two it is.
    :param program: its script or program.
    :param configuration: the file that says what it needs to know.
    """

    kind: str
    program: Path
    configuration: Path

    def command(self) -> list[str]:
        """Give the argument vector that runs it in the foreground. No key is in it."""
        if self.kind == "automation":
            return [str(self.program), "-f", str(self.configuration)]
        return [_interpreter(self.program), str(self.program)]

    def configured(self, text: str, keys: Keys, login: Login | None, directory: Path) -> str:
        """Give the text of its configuration with everything in it that it needs to know.

        :param text: as the package brought it, or as an earlier call left it; all else in it stays.
        :param login: what it logs in with at the servers it watches; None: nothing.
        :param directory: where it may write.
        """
        if self.kind == "automation":
            values = {
                "mmsGroupId": keys.api_key.reveal(),
                "mmsApiKey": keys.secret_key.reveal(),
                "logFile": str(directory / "automation-agent.log"),
                "mmsConfigBackup": str(directory / "mms-cluster-config-backup.json"),
            }
            for name, value in values.items():
                text = _assigned(text, name, value)
            return text
        for name, key in (("mms_key", keys.api_key), ("secret_key", keys.secret_key)):
            text = _assigned(text, name, ascii(key.reveal()), " = ")
        return self.with_login(text, login)

    def with_login(self, text: str, login: Login | None) -> str:
        """Give the text of its configuration with what it logs in with; the automation agent's holds none."""
        if self.kind == "classic":
            user = None if login is None else login.user
            password = None if login is None else login.password.reveal()
            # Written as Python writes it, in characters that every Python reads alike.
            text = _assigned(text, "globalAuthUsername", ascii(user), " = ")
            text = _assigned(text, "globalAuthPassword", ascii(password), " = ")
        return text


def find_layout(directory: Path) -> Layout:
    """Recognise the monitoring agent below a directory.

    :raises NotSupported: there is none in it, of neither kind.
    """
    for path in _files(directory):
        if path.name in _AUTOMATION_CONFIGURATIONS:
            program = next((one for one in _files(directory) if one.name == _AUTOMATION_PROGRAM), None)
            if program is not None and program.stat().st_mode & 0o100:
                return Layout("automation", program, path)
        if path.name == "agent.py" and (path.parent / "settings.py").is_file():
            return Layout("classic", path, path.parent / "settings.py")
    raise NotSupported(
        "The package is no monitoring agent of a known kind: there is neither agent.py with settings.py in it, nor "
        f"{_AUTOMATION_PROGRAM} with {_AUTOMATION_CONFIGURATIONS[0]}. {UNCHANGED} Correct [mongodb] monitoring_agent.",
    )


def _files(directory: Path) -> list[Path]:
    found = [path for path in directory.rglob("*") if path.is_file()]
    near = [path for path in found if len(path.relative_to(directory).parts) <= _DEEPEST]
    return sorted(near, key=lambda path: (len(path.parts), path))


def _assigned(text: str, name: str, value: str, sign: str = "=") -> str:
    """Give a name its value, where it is assigned first; later assignments go, and without any one is added."""
    pattern = re.compile(
        rf"^{name}[ \t]*=[ \t]*(?:\"\"\".*?\"\"\"|'''.*?'''|[^\n]*?)[ \t]*(?:#[^\n]*)?\r?$\n?", re.MULTILINE | re.DOTALL
    )
    line = f"{name}{sign}{value}\n"
    found = pattern.search(text)
    if found is None:
        return text + ("" if not text or text.endswith("\n") else "\n") + line
    return text[: found.start()] + line + pattern.sub("", text[found.end() :])


def _interpreter(script: Path) -> str:
    """Give the Python that the script names in its first line, else the oldest of the host, else the agent's own."""
    with open(script, "rb") as file:
        first = file.readline(200).decode("utf-8", "replace").strip()
    words = first[2:].split() if first.startswith("#!") else []
    named = words[1:2] if words and Path(words[0]).name == "env" else words[:1]
    for name in (*(one for one in named if Path(one).name.startswith("python")), *_INTERPRETERS):
        found = shutil.which(name, path=_PATH)
        if found is not None:
            return found
    return sys.executable
