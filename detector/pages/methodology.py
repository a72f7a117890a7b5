"""How the detector works and how good it is, in plain words."""

import functools

from pages import figures
from pages.drafts import Draft, seed_of
from pages.rendering import Site, render


def methodology_page(site: Site) -> Draft:
    """Return the page; it changes with the program only."""
    path = "methodology.html"
    make = functools.partial(render, "methodology", path, site, figures=figures)
    return Draft(path, make, seed_of(path, site))
