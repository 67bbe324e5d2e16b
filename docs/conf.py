"""The documentation site: `make docs` builds it. Nothing is fetched, neither in building it nor in looking at it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path
from typing import Any

import mathjax
from docutils import nodes
from docutils.parsers.rst import Directive

project = "metaleader"
author = "the authors of metaleader"
release = version = metadata.version("metaleader")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "notebooks"]  # made
exclude_patterns += ["results/notes.md", "tuning/*/by-hand.md"]  # parts of other pages
templates_path: list[str] = []

# Pages

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_merge_streams = True
nb_ipywidgets_js: dict[str, Any] = {}  # would be fetched from elsewhere
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

# What docstrings say

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
default_role = "code"  # `x` in a docstring
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields that the docstring of a class explains
napoleon_custom_sections = [("Warns", "Raises")]

# Looks

html_theme = "sphinx_book_theme"
html_title = "metaleader"
html_favicon = None
html_static_path = ["_static", str(Path(mathjax.__file__).parent / "static" / "mathjax" / "es5" / "tex-svg.js")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {
    "home_page_in_toc": False,
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
mathjax_path = "tex-svg.js"
# Without the menu, nothing beyond this one file is loaded: formulas are drawn as SVG, without fonts.
mathjax3_config = {"options": {"enableMenu": False}}


WIDTH = 96  # of what commands print, in characters


class CommandHelp(Directive):
    """What `metaleader ... --help` prints: `{command-help} run rainbow-mnist`."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The lines, as a block of text."""
        command = [*(self.arguments[0].split() if self.arguments else []), "--help"]
        environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "PYTHONUTF8": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "metaleader", *command], capture_output=True, encoding="utf-8", env=environment
        )
        if done.returncode:
            raise self.error(f"metaleader {' '.join(command)}: {done.stderr.strip()}")
        lines = done.stdout.rstrip().splitlines()
        text = "\n".join(textwrap.fill(line, WIDTH) if len(line) > WIDTH else line for line in lines)
        return [nodes.literal_block(text, text, language="text", classes=["command-help"])]


def skipped(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, whose docstrings are Python's; those of their classes explain them."""
    return True if type(value).__name__ == "_tuplegetter" else None


def setup(app: Any) -> None:
    """Register the directive and what is left out."""
    app.add_directive("command-help", CommandHelp)
    app.connect("autodoc-skip-member", skipped)
