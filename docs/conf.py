"""The site: `make docs` builds it from docs/, examples/ and the docstrings, warnings as errors."""

import os
import re
import sys
from pathlib import Path

# The gallery's scripts take this long on one core; more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import command_line  # noqa: E402  # beside this file
import drawings  # noqa: E402
from docutils import nodes  # noqa: E402
from docutils.utils.math.latex2mathml import tex2mathml  # noqa: E402

from conocc import __version__  # noqa: E402

project = "conocc"
author = "the conocc developers"
copyright = f"2026, {author}"  # Sphinx calls it so
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "auto_examples/*.ipynb",
    "auto_examples/*.py",
    "**/sg_execution_times.rst",
    "sg_execution_times.rst",
    "releasing.md",
]
suppress_warnings = [
    "config.cache",  # the gallery's settings hold functions
    "myst.header",  # tables of results have no heading: they are written by `conocc`
]
templates_path = ["_templates"]
nitpicky = True
# Types in docstrings are words ("array of shape (n,)"), and classes of other packages are not here.
nitpick_ignore_regex = [(r"py:class", r".*")]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
html_math_renderer = "mathml"
default_role = "code"
smartquotes = False  # or it makes a dash of the two before an option

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "capture_repr": (),  # what a script prints is what it shows
    "remove_config_comments": True,
    "min_reported_time": 10,
}

html_theme = "pydata_sphinx_theme"
html_title = "conocc"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
# Pages that have none below them.
html_sidebars = {name: [] for name in ("start", "coming-from", "cli", "faq", "glossary")}
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


def _page_of_a_folder(page, match):
    """A code host lists a linked folder; here the link leads to the first table in it."""
    folder = page.parent / match[1]
    if not folder.is_dir():
        return match[0]
    files = sorted(folder.rglob("*.md")) or sorted(folder.iterdir())
    return f"]({files[0].relative_to(page.parent).as_posix()})"


def _as_pages(app, name, source):
    """Make links to folders, scripts and the README, which a code host shows, lead to pages."""
    page = HERE / f"{name}.md"
    if not page.exists():
        return
    text = re.sub(r"\((?:\.\./)+examples/(\w+)\.py\)", r"(/auto_examples/\1.rst)", source[0])
    text = re.sub(r"\((?:\.\./)+README\.md\)", "(/index.md)", text)
    text = re.sub(r"\]\(([\w./-]+)\)", lambda match: _page_of_a_folder(page, match), text)
    if name.startswith("research/results/") and page.name != "README.md":
        # A table as `conocc` wrote it, which has no heading and stands in no list of pages.
        text = f"---\norphan: true\n---\n\n# {page.parent.name}: {page.stem}\n\n{text}"
    source[0] = text


def _formula(writer, node):
    """Write MathML, which browsers draw by themselves: MathJax would come from a network."""
    is_block = isinstance(node, nodes.math_block)
    writer.body.append(tex2mathml(node.astext(), as_block=is_block))
    raise nodes.SkipNode


def setup(app):
    """Draw and write what is made at each build."""
    (HERE / "cli.md").write_text(command_line.page(), encoding="utf-8")
    drawings.draw_all(HERE / "drawings")
    app.connect("source-read", _as_pages)
    app.add_html_math_renderer("mathml", (_formula, None), (_formula, None))
