"""How the documentation site is built: `make docs`, without network; a warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import labkit  # noqa: E402, needs the path above

project = "labkit"
author = "the labkit authors"
version = release = labkit.__version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "api_reference",
    "command_reference",
    "lab_pages",
]
exclude_patterns = ["_ext", "_static"]
nitpicky = True
# The types in a signature are linked where they have a page. Those of other packages have none, and the
# build has no network to ask for one.
nitpick_ignore_regex = [(r"py:(class|obj)", r".*")]

myst_enable_extensions = ["attrs_block", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
add_module_names = False

# The prompt of a shell is not part of the command that a reader copies.
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = f"labkit {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"
pygments_dark_style = "github-dark"
