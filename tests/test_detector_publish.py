"""Writing the outputs of the detector: what is written, what is removed, what stays."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from detector_harness import outputs_of
from dev.samples.report import HOUR, UNTIL, sample_report
from outputs import writing
from outputs.news import news_of
from outputs.publish import Done, drafts_of
from outputs.publish import publish as publish_drafts
from outputs.report import Report
from pages.drafts import Draft, ready
from pages.rendering import Site

FILES = [
    ("rss/global.xml", b"<rss/>"),
    ("rss/by-country/IR.xml", b"<rss/>"),
    ("json/by-series/IR.AS7.signal-0123456789abcdef.json", b"{}"),
    ("index.html", b"<!doctype html>"),
]


def publish(files: Iterable[tuple[str, bytes]], folder: Path) -> Done:
    """Publish files that are there already."""
    return publish_drafts((ready(*file) for file in files), folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_files_are_there_and_readable_by_the_web_server_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    before = os.umask(0o077)
    try:
        assert publish(FILES, folder) == Done(written=4, kept=0, removed=0)
    finally:
        os.umask(before)
    assert contents(folder) == dict(FILES)
    for path in (folder, *folder.rglob("*")):
        expected = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_the_mode_of_a_folder_that_an_operator_made_is_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    publish(FILES, tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_only_what_has_changed_is_written(tmp_path: Path) -> None:
    publish(FILES, tmp_path)
    before = {name: (tmp_path / name).stat() for name, _ in FILES}
    changed = [*FILES[:-1], ("index.html", b"<!doctype html>!")]
    assert publish(changed, tmp_path) == Done(written=1, kept=3, removed=0)
    for name, _ in FILES[:-1]:
        after = (tmp_path / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before[name].st_ino, before[name].st_mtime_ns)
    assert contents(tmp_path) == dict(changed)


def test_feeds_that_are_no_more_are_removed_and_nothing_else_is(tmp_path: Path) -> None:
    publish(FILES, tmp_path)
    foreign = {
        "robots.txt",
        ".htaccess",
        "rss/index.xml",
        "rss/by-country/README",
        "rss/by-country/ir.xml",
        "rss/by-country/IR.xml.orig",
        "rss/by-country/IR.json.gz",
        "rss/by-country/more/IR.xml",
        "rss/by-series/notes.xml",
        "json/by-series/.hidden",
        "other/by-country/IR.xml",
    }
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("kept")
    (tmp_path / "rss/by-country/NL.xml").mkdir()
    assert publish(FILES[-1:], tmp_path) == Done(written=0, kept=1, removed=2)
    assert set(contents(tmp_path)) == foreign | {"index.html", "rss/global.xml"}


def test_what_a_killed_run_has_left_is_removed(tmp_path: Path) -> None:
    publish(FILES, tmp_path)
    for name in (".index.html.new", "rss/.global.xml.new", "rss/by-country/.NL.xml.new"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".foreign.new").write_bytes(b"kept")
    assert publish(FILES, tmp_path).removed == 3
    assert contents(tmp_path) == {**dict(FILES), ".foreign.new": b"kept"}


@pytest.mark.parametrize("left", range(len(FILES)))
def test_a_run_that_ends_at_any_point_is_made_good_by_the_next(tmp_path: Path, left: int) -> None:
    def interrupted() -> Iterator[tuple[str, bytes]]:
        yield from FILES[:left]
        raise KeyboardInterrupt

    old = [("rss/global.xml", b"old"), ("json/by-country/NL.json", b"{}"), ("index.html", b"old")]
    publish(old, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        publish(interrupted(), tmp_path)
    now = contents(tmp_path)
    assert all(
        content in (dict(old).get(name), dict(FILES).get(name)) for name, content in now.items()
    )
    assert "json/by-country/NL.json" in now, "the old page links to it"
    publish(FILES, tmp_path)
    assert contents(tmp_path) == dict(FILES)


def test_nothing_half_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(FILES, tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        publish([(name, content + b"!") for name, content in FILES], tmp_path)
    assert contents(tmp_path) == dict(FILES)


def test_the_page_is_written_last_and_a_second_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    write = writing.Writer.write

    def noted(self: writing.Writer, path: Path, content: bytes) -> None:
        written.append(path.relative_to(tmp_path).as_posix())
        write(self, path, content)

    monkeypatch.setattr(writing.Writer, "write", noted)
    report = sample_report(3, series=50)
    first = publish(outputs_of(report), tmp_path)
    assert written[-3:] == ["data.html", "index.json", "index.html"]
    assert publish(outputs_of(report), tmp_path) == Done(0, first.written, 0)
    fewer = sample_report(2, series=50)
    publish(outputs_of(fewer), tmp_path)
    assert contents(tmp_path) == dict(outputs_of(fewer))


def made_of(report: Report, made: list[str], public_url: str = "") -> Iterator[Draft]:
    """Yield all drafts, and note which of those that need not be made again are made."""

    def make(draft: Draft) -> bytes:
        made.append(draft.path)
        return draft.make()

    for draft in drafts_of(report, news_of(report), Site(public_url)):
        yield draft._replace(make=partial(make, draft)) if draft.seed else draft


def test_what_cannot_have_changed_is_not_made_again(tmp_path: Path) -> None:
    folder, ledger = tmp_path / "output", tmp_path / "ledger.json"
    report = sample_report(20, series=50)
    made: list[str] = []
    publish_drafts(made_of(report, made), folder, ledger)
    before, could = dict(outputs_of(report)), set(made)
    assert len(could) > 20
    made.clear()
    later = replace(report, until=UNTIL + HOUR)
    publish_drafts(made_of(later, made), folder, ledger)
    after = dict(outputs_of(later))
    assert set(made) == {name for name in could if before[name] != after[name]}
    assert len(made) < len(could) / 2
    assert contents(folder) == after


def test_feeds_are_made_again_only_for_what_they_tell_or_where_they_are_served(
    tmp_path: Path,
) -> None:
    folder, ledger = tmp_path / "output", tmp_path / "ledger.json"
    report = sample_report(20, series=50)
    address = "https://example.org/"
    for shown, public_url in ((report, ""), (report, address), (sample_report(21), address)):
        publish_drafts(made_of(shown, [], public_url), folder, ledger)
        assert contents(folder) == dict(outputs_of(shown, public_url=public_url))
    made: list[str] = []
    publish_drafts(made_of(shown, made, address), folder, ledger)
    assert made == []


@pytest.mark.parametrize("damage", ["removed", "changed", "ledger"])
def test_what_is_not_as_it_was_left_is_made_again(tmp_path: Path, damage: str) -> None:
    folder, ledger = tmp_path / "output", tmp_path / "ledger.json"
    report = sample_report(5, series=50)
    publish_drafts(made_of(report, []), folder, ledger)
    page = next((folder / "incident").iterdir())
    if damage == "removed":
        page.unlink()
    else:
        page.write_bytes(b"half")
    if damage == "ledger":
        ledger.write_bytes(b'{"files": {"incident/x.html": 7}}')
    assert publish_drafts(made_of(report, []), folder, ledger).written == 1
    assert contents(folder) == dict(outputs_of(report))


def test_many_files_wait_for_the_disk_once_each_and_each_folder_once_in_five_hundred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr("os.fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_mode))
    files = [(f"rss/by-series/{number:016x}.xml", b"x") for number in range(700)]
    assert publish(files, tmp_path).written == 700
    assert len([mode for mode in synced if stat.S_ISREG(mode)]) == 700
    assert len([mode for mode in synced if stat.S_ISDIR(mode)]) == 2
