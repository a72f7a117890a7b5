"""Templates of pages: everything in them is escaped, and a name that is missing is an error."""

from pathlib import Path

import jinja2


def templates_in(folder: Path) -> jinja2.Environment:
    """Return what makes pages of the templates in a folder."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
