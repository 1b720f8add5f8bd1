"""Sphinx configuration of the Russian pages."""

from pathlib import Path

from scalarizr import __version__
from scalarizr.settings.template import template

project = "scalarizr"
copyright = "разработчики scalarizr"  # noqa: A001  Sphinx's name
language = "ru"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = f"scalarizr {__version__}"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"

generated = Path(__file__).parents[1] / "_build" / "generated"
generated.mkdir(parents=True, exist_ok=True)
(generated / "scalarizr.toml").write_text(template())
