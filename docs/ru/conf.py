"""Sphinx configuration of the Russian pages."""

from scalarizr import __version__

project = "scalarizr"
copyright = "разработчики scalarizr"  # noqa: A001  Sphinx's name
language = "ru"
version = release = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"scalarizr {__version__}"
myst_heading_anchors = 3
