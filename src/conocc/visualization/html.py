"""Pages in HTML, filled from templates; nothing but their own style and script can act in them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from conocc.experiments.table_formats import markdown_escaped
from conocc.io.words import count, readable


def rendered(template: str, page: Mapping[str, Any], *, assets: str = "report") -> str:
    """Fill a template, with the style and script of `assets`; what came from names is escaped.

    What came into Markdown must have gone through the filter `plain`.
    """
    loader = PackageLoader("conocc.visualization")
    environment = Environment(
        loader=loader, autoescape=select_autoescape(["html"]), undefined=StrictUndefined
    )
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"breakable": breakable, "count_of": count, "readable": readable}
    environment.filters["plain"] = markdown_escaped
    # Ours, and allowed by their hashes alone: nothing else in the page can run.
    style, script = (
        files("conocc.visualization").joinpath("templates", name).read_text(encoding="utf-8")
        for name in (f"{assets}.css", f"{assets}.js")
    )
    return environment.get_template(template).render(
        **page,
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def breakable(name: str) -> Markup:
    """Let a long name go on in another line after a slash, a hyphen or an underscore.

    >>> breakable("a<b/IM-1.png")
    Markup('a&lt;b/<wbr>IM-<wbr>1.png')
    """
    return Markup(re.sub(r"([/_-])", r"\1<wbr>", str(escape(name))))  # noqa: S704


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
