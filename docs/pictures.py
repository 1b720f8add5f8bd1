"""Makes the pictures of a terminal in this directory, from what the program really prints: `python docs/pictures.py`.

As root, on a server of its own that vanishes afterwards (`tests/documented_server.py`), with nginx installed.
"""

import re
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
# Fonts from elsewhere are no business of whoever looks at a picture.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
_PROXY = "hostname=www.example.com hash_backend_name=false"
_ONE = """backends='[{"host": "127.0.0.1:8001"}]'"""
_TWO = """backends='[{"host": "127.0.0.1:8001"}, {"host": "127.0.0.1:8002"}]'"""
_BEFORE = {
    "dry-run": f"service nginx start >/dev/null; scalarizr call nginx.make_proxy {_PROXY} {_ONE} >/dev/null",
    "changes": (
        "scalarizr call nginx.add_server backend=www.example.com server=127.0.0.1:8002 >/dev/null\n"
        "scalarizr call nginx.remove_server backend=www.example.com server=127.0.0.1:8002"
        " --confirm-within 60 >/dev/null"
    ),
}
# By file: what is typed.
PICTURES = {
    "volume": "scalarizr call storage.create mkfs=true mount=true fstab=true \\\n"
    """    storage_config='{"type": "loop", "size": 10, "mpoint": "/srv/data"}'""",
    "dry-run": f"scalarizr call nginx.make_proxy {_PROXY} \\\n    {_TWO} --dry-run",
    "changes": "scalarizr changes",
    "doctor": "scalarizr doctor",
}
_WIDTH = 112


def draw(name: str, command: str, shown: str) -> None:
    """Write one picture.

    :param name: of the file, without its ending.
    :param command: what was typed.
    :param shown: what came, with the sequences that colour it.
    """
    with open("/dev/null", "w") as nowhere:
        console = Console(record=True, width=_WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.assemble(("# ", "dim"), (command, "bold")))
        console.print(Text.from_ansi(shown.rstrip("\n")))
        drawn = console.export_svg(title="web-1", code_format=_FORMAT, unique_id=name)
    # Nothing says how wide a space at a line's end is.
    (HERE / f"{name}.svg").write_text(re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE))


def main() -> None:
    """Make all of them."""
    from documented_server import DocumentedServer
    from guide_scenes import INSTALLED

    with tempfile.TemporaryDirectory() as directory:
        server = DocumentedServer(Path(directory))
        try:
            server.must("unset NO_COLOR; export TERM=xterm-256color COLUMNS=112\n" + INSTALLED)
            for name, command in PICTURES.items():
                if name in _BEFORE:
                    server.must(_BEFORE[name])
                shown, status = server.run(command, colours=True)
                assert status == 0, shown
                draw(name, command, shown)
        finally:
            server.close()


if __name__ == "__main__":
    main()
