"""How Sphinx makes the site: `make docs`. Nothing here or on a page asks the network for anything."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "site"))

from doc_reference import fill_in  # noqa: E402
from sphinx.ext.napoleon import Config, GoogleDocstring  # noqa: E402

from u2pl import __version__  # noqa: E402

OTHERS = ["torch", "numpy", "pandas", "collections", "pathlib", "PIL", "typing"]
"""Packages whose types are named here and described elsewhere; their pages would have to be fetched to link to them."""

INSIDE = [
    "exchange.model_file.Facts",
    "models.deeplab.DeepLabV3Plus",
    "project.Project",
    "steps.shares.Shares",
    "steps.supervision.Hard",
]
"""What is named by the public part and not a part of it."""

project = "u2pl"
author = "The u2pl authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["site"]

myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

default_role = "code"  # docstrings have single backticks for code
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
nitpicky = True
nitpick_ignore = [("py:class", f"u2pl.{name}") for name in INSIDE]
nitpick_ignore_regex = [
    ("py:.*", rf"({'|'.join(OTHERS)})\..*"),
    ("py:class", "[^.]+"),  # words like `int64` or `(C, P)`, which say what comes back
]

html_theme = "furo"
html_title = f"u2pl {release}"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False  # a page that was opened as a file may not read the others
html_theme_options = {"navigation_with_keys": True}


def read_docstring(app, what, name, about, options, lines):
    """Docstrings are in Google's style; but below an attribute stands a sentence, whose colon parts no type from it."""
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, Config(), app, what, name, about, options).lines()


def setup(app):
    """Fill in what is generated."""
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", read_docstring)
