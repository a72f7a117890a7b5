"""The demo tells a short story; its log has every detail, and a failure's reason comes last."""

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from dev.demo.story import MOST_LINES, Story, figure

ROOT = Path(__file__).parents[1]
FAILING = """
import sys
from pathlib import Path
from dev.demo.stage import Script, Servers
from dev.demo.story import Story
servers = Servers(Path(sys.argv[1]), None, None, Story(open(sys.argv[1] + "/log.txt", "w")))
servers.story.say("a line of the story")
servers.run(Script("geoip/ooni_download_geoip.py", "download-geoip.conf"), {"max_byte": 1})
"""


def test_details_are_for_the_log_and_the_story_for_both(capsys: pytest.CaptureFixture[str]) -> None:
    story = Story(StringIO())
    story.chapter("Detector", "where social media are blocked")
    story.note("a detail")
    story.tell("first run", "3 incidents")
    printed = capsys.readouterr().out
    assert (
        printed == "\nDetector: where social media are blocked\n  first run         3 incidents\n"
    )
    logged = story.log.getvalue()  # type: ignore[attr-defined]
    assert "a detail\n  first run         3 incidents\n" in logged


def test_a_story_of_more_than_two_screens_is_a_failure() -> None:
    story = Story(StringIO(), pages=[("log.txt", "details")])
    for number in range(MOST_LINES):
        story.say(str(number))
    with pytest.raises(SystemExit, match="the demo failed; expected: a story of 70 lines"):
        story.sum_up()


def test_a_figure_that_was_not_printed_is_a_failure_that_names_it() -> None:
    assert figure(r"(\d+) rows", "loaded 12 rows") == "12"
    with pytest.raises(SystemExit, match="the demo failed; expected in what was printed: "):
        figure(r"(\d+) rows", "nothing to do")


def test_the_reason_of_a_failure_is_the_last_line_in_a_file_too(tmp_path: Path) -> None:
    """Where output and errors go into one file, nothing that was held back comes after it."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        status = subprocess.run(
            [sys.executable, "-c", FAILING, str(tmp_path)],
            cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False,
        ).returncode  # fmt: skip
    first, *_, last = output.read_text().splitlines()
    assert (status, first) == (1, "a line of the story")
    assert last.startswith("geoip/ooni_download_geoip.py failed with exit status 78: ")
    assert "unknown key 'max_byte'" in last
