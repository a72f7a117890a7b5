"""Parsers of foreign bytes, with the corpus of `make fuzz` and with what hypothesis makes of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "dev" / "fuzz" / "corpus"
EXAMPLES = {name: [path.read_bytes() for path in (CORPUS / name).iterdir()] for name in TARGETS}
WHERE = st.floats(0, 1, exclude_max=True)
CHANGES = st.lists(st.tuples(WHERE, st.integers(0, 20), st.binary(max_size=20)), max_size=4)


def changed(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """Put other bytes in the place of some."""
    for where, length, other in changes:
        start = int(where * len(content))
        content = content[:start] + other + content[start + length :]
    return content


def test_each_target_has_a_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_read_or_refused(name: str) -> None:
    for content in EXAMPLES[name]:
        TARGETS[name](content)


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_whatever_is_changed_in_it_is_read_or_refused(name: str, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(EXAMPLES[name]))
    TARGETS[name](changed(content, data.draw(CHANGES)))
