"""Whether a page is whole: each element that begins in it ends there, in order."""

from html.parser import HTMLParser

# fmt: off
WITHOUT_END = {
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
    "wbr",
}
# fmt: on


class _Elements(HTMLParser):
    """Keeps the elements that have begun and not ended."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag not in WITHOUT_END:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Do nothing: it begins and ends."""

    def handle_endtag(self, tag: str) -> None:
        if self.open[-1:] != [tag]:
            raise ValueError(f"</{tag}> ends {self.open[-1:]}")
        self.open.pop()


def check_page(text: str) -> None:
    """Read a page.

    Raises:
        ValueError: it is empty, not all of it is there, or elements overlap.
    """
    elements = _Elements()
    elements.feed(text)
    elements.close()
    if elements.open or "</html>" not in text:
        raise ValueError(f"the page ends within {elements.open}")
