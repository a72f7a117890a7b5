"""The documentation names what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("[!.]*/README.md")])
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)")
SHOWN_BY = re.compile(r"`((?:tests|debian)/[\w/.-]+)`")
STEPS = re.findall(r"^\d+\. `(\S+)`, `(\w+)`:", (ROOT / "docs/walks.md").read_text(), re.MULTILINE)


def test_the_walks_have_about_ten_steps_each() -> None:
    assert 28 <= len(STEPS) <= 33


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_a_walk_passes_functions_that_exist(file: str, name: str) -> None:
    source = (ROOT / file).read_text()
    assert re.search(rf"^ *(?:def|class) {name}\b", source, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_threat_model_names_tests_that_exist() -> None:
    names = SHOWN_BY.findall((ROOT / "SECURITY.md").read_text())
    assert len(names) > 10
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/decisions").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
