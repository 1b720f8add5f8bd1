"""Sphinx configuration: the user guide by hand, the reference from the code's own docstrings."""

from pathlib import Path

from scalarizr import __version__
from scalarizr.settings.template import template

project = "scalarizr"
copyright = "the scalarizr developers"  # noqa: A001  Sphinx's name
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
exclude_patterns = ["_build", "ru"]
html_theme = "furo"
html_title = f"scalarizr {__version__}"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
suppress_warnings = ["toc.not_included"]

generated = Path(__file__).parent / "_build" / "generated"
generated.mkdir(parents=True, exist_ok=True)
(generated / "scalarizr.toml").write_text(template())
