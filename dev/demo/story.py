"""What the demo tells: a story for the terminal, and every detail for a log file."""

import re
import sys
from dataclasses import dataclass, field
from typing import TextIO

MOST_LINES = 70  # two screens
LABEL_WIDTH = 18
TOOL_WIDTH = 26


@dataclass
class Story:
    """The story as it goes on: each line is printed at once, and stands in the log, too.

    Attributes:
        log: gets the details as well.
        outcomes: what the summary says: tool and outcome.
        pages: what there is to open: path and what it shows.
        lines: how many the terminal has got.
    """

    log: TextIO
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    pages: list[tuple[str, str]] = field(default_factory=list)
    lines: int = 0

    def note(self, text: str = "") -> None:
        """Write a detail, for the log alone."""
        print(text, file=self.log, flush=True)

    def step(self, text: str) -> None:
        """Begin a step, for the log alone."""
        self.note(f"\n\n{text}\n{'-' * len(text)}")

    def say(self, text: str = "") -> None:
        """Print a line."""
        self.lines += 1
        print(text, flush=True)
        self.note(text)

    def chapter(self, tool: str, purpose: str) -> None:
        """Begin the chapter of a tool: what it is good for."""
        self.note("\n")
        self.say()
        self.say(f"{tool}: {purpose}")

    def tell(self, occasion: str, result: str) -> None:
        """Print what came of a run, and on what occasion it was run."""
        self.say(f"  {occasion:<{LABEL_WIDTH}}{result}")

    def outcome(self, tool: str, result: str) -> None:
        """Keep a line for the summary."""
        self.outcomes.append((tool, result))

    def page(self, path: str, content: str) -> None:
        """Keep a line for what there is to open."""
        self.pages.append((path, content))

    def sum_up(self) -> None:
        """Print what came of it all, and what there is to open."""
        self.note("\n")
        self.say()
        self.say(f"{'TOOL':<{TOOL_WIDTH}}RESULT")
        for tool, result in self.outcomes:
            self.say(f"{tool:<{TOOL_WIDTH}}{result}")
        self.say()
        width = max(len(path) for path, _ in self.pages) + 2
        self.say(f"{'OPEN':<{width}}TO SEE")
        for path, content in self.pages:
            self.say(f"{path:<{width}}{content}")
        expect(self.lines <= MOST_LINES, f"a story of {MOST_LINES} lines, not of {self.lines}")


def expect(fulfilled: bool, expectation: str) -> None:  # noqa: FBT001 (reads like the sentence it is)
    """End the demo with an error unless the expectation is fulfilled."""
    if not fulfilled:
        sys.exit(f"the demo failed; expected: {expectation}")


def figure(pattern: str, text: str) -> str:
    """Return what the first group of a pattern matches in a text, or end the demo with an error."""
    match = re.search(pattern, text)
    if not match:
        sys.exit(f"the demo failed; expected in what was printed: {pattern}")
    return match[1]
