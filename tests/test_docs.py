"""The documentation names what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STEPS = re.findall(r"^\d+\. `(\S+)`, `(\w+)`:", (ROOT / "docs/walks.md").read_text(), re.MULTILINE)


def test_the_walks_have_ten_steps_each() -> None:
    assert len(STEPS) == 30


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_a_walk_passes_functions_that_exist(file: str, name: str) -> None:
    source = (ROOT / file).read_text()
    assert re.search(rf"^ *(?:def|class) {name}\b", source, re.MULTILINE)
