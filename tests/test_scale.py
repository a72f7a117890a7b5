"""The page of costs at scale has what its script says."""

import math

import msgspec
import pytest

from dev.scale import BEGIN, END, INPUTS, PAGE, Inputs, page_of, parts, read_inputs, work, written
from store.uploads import PART_SIZE, part_size


@pytest.fixture
def inputs() -> Inputs:
    return read_inputs(INPUTS.read_text())


def test_the_page_has_the_tables_of_the_script(inputs: Inputs) -> None:
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert written(page, page_of(inputs)) == page


def test_ten_times_the_rows_take_ten_times_the_time_and_no_more(inputs: Inputs) -> None:
    once, tenfold = (work(inputs, rows, 100, "export") for rows in (10**9, 10**10))
    assert tenfold.seconds == pytest.approx(10 * once.seconds, rel=0.1)


def test_other_prices_change_the_bill_alone(inputs: Inputs) -> None:
    classes = [msgspec.structs.replace(one, month=one.month * 2) for one in inputs.classes]
    before, after = page_of(inputs), page_of(msgspec.structs.replace(inputs, classes=classes))
    pairs = zip(before.splitlines(), after.splitlines(), strict=True)
    changed = [one for one, other in pairs if one != other]
    assert len(changed) == 2 * len(classes)
    assert all(any(kind.name in line for kind in classes) for line in changed)


@pytest.mark.parametrize("size", [1, PART_SIZE, PART_SIZE + 1, 10**11, 4 * 10**11, 10**12])
def test_parts_are_those_of_an_upload(size: int) -> None:
    assert parts(size) == (math.ceil(size / part_size(size)) if size > part_size(size) else 0)
