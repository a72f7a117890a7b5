"""Targets and countries as numbers: the database finds and joins those faster than texts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from series import Target

TEST = "transform(test_name, %(tests)s, %(test_numbers)s, 0)"
TARGET = f"toUInt32({TEST} * %(step)s + transform(input, %(inputs)s, %(input_numbers)s, 0))"
COUNTRY = "toUInt32(transform(probe_cc, %(countries)s, %(country_numbers)s, 0))"

NUMBERS = (("target", "UInt32"), ("country", "UInt32"))  # columns of a table, and their types


class Numbered:
    """Numbers of targets, as TARGET makes them: `step` times that of the test, and the input's.

    What is none of them has another number, or shares that of nothing.

    Args:
        targets: which.
        countries: that COUNTRY numbers, where it is asked for.
        tests: that have a number even where no target is of them.

    Attributes:
        targets: sorted.
        of_targets, of_tests, of_countries: their numbers, in order.
        parameters: what the expressions need.
    """

    def __init__(
        self,
        targets: Collection[Target],
        countries: Collection[str] = (),
        tests: Collection[str] = (),
    ) -> None:
        self.targets = sorted(set(targets))
        self.of_tests = _numbers({*tests, *(test for test, _ in targets)})
        self.of_countries = _numbers(set(countries))
        inputs = _numbers({url for _, url in targets})
        step = len(inputs) + 1
        numbers = [self.of_tests[test] * step + inputs[url] for test, url in self.targets]
        self.of_targets = dict(zip(self.targets, numbers, strict=True))
        self.parameters: dict[str, Any] = {
            "step": step,
            **_lists("tests", "test_numbers", self.of_tests),
            **_lists("inputs", "input_numbers", inputs),
            **_lists("countries", "country_numbers", self.of_countries),
        }

    def table(
        self, name: str, structure: Mapping[str, str], rows: Iterable[Sequence[Any]]
    ) -> dict[str, Any]:
        """Return a table for one statement, with `target` and `country` in the place of texts.

        Args:
            name: of the table.
            structure: name → type; the first three are of test, input and country.
            rows: have these columns.
        """
        columns = [*NUMBERS, *list(structure.items())[3:]]
        names = [column for column, _ in columns]
        numbers = (
            (self.of_targets[test, url], self.of_countries[code], *rest)
            for test, url, code, *rest in rows
        )
        data = [dict(zip(names, row, strict=True)) for row in numbers]
        return {"name": name, "structure": columns, "data": data}


def _numbers(names: Collection[str]) -> dict[str, int]:
    """Number names from 1 on, in their order."""
    return {name: number for number, name in enumerate(sorted(names), start=1)}


def _lists(names: str, numbers: str, of: dict[str, int]) -> dict[str, list[Any]]:
    return {names: list(of), numbers: list(of.values())}
