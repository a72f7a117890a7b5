"""Writing the outputs of the detector: what is written, what is removed, what stays."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.samples.report import sample_report
from ooni_common.files import write_atomically
from outputs.publish import Published, outputs_of, publish

FILES = [
    ("rss/global.xml", b"<rss/>"),
    ("rss/by-country/IR.xml", b"<rss/>"),
    ("json/by-series/IR.AS7.signal-0123456789abcdef.json", b"{}"),
    ("index.html", b"<!doctype html>"),
]


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_files_are_there_and_readable_by_the_web_server_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "output"
    before = os.umask(0o077)
    try:
        assert publish(FILES, folder) == Published(written=4, kept=0, removed=0)
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
    assert publish(changed, tmp_path) == Published(written=1, kept=3, removed=0)
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
    assert publish(FILES[-1:], tmp_path) == Published(written=0, kept=1, removed=2)
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

    def noted(path: Path, content: bytes) -> None:
        written.append(path.relative_to(tmp_path).as_posix())
        write_atomically(path, content)

    monkeypatch.setattr("outputs.publish.write_atomically", noted)
    report = sample_report(3, series=50)
    first = publish(outputs_of(report), tmp_path)
    assert written[-3:] == ["json/status.json", "index.json", "index.html"]
    assert publish(outputs_of(report), tmp_path) == Published(0, first.written, 0)
    fewer = sample_report(2, series=50)
    publish(outputs_of(fewer), tmp_path)
    assert contents(tmp_path) == dict(outputs_of(fewer))
