"""The page of the command line, made of what ``--help`` says, so that it is never stale."""

import re

from conocc.cli.application import app

HEAD = """# Commands

What `conocc COMMAND --help` says, for all commands at once.
The page is made anew with each build of the site.

"""


def page() -> str:
    """Give the page as Markdown: one heading a command, its arguments and options as lists."""
    text = app.generate_docs(output_format="markdown")
    text = text[text.index("## conocc data") :]
    # It names the program that builds this page in each line of usage.
    text = re.sub(r"^(conocc .*?) -m [\w.]+", r"\1", text, flags=re.MULTILINE)
    # An option that is off has no opposite that anyone needs, nor has a list an empty one.
    text = re.sub(r", --(?:no|empty)-[\w-]+(?=[`,: ])", "", text)
    return HEAD + text.rstrip() + "\n"


if __name__ == "__main__":
    print(page())  # noqa: T201
