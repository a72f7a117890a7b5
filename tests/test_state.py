"""Files that an earlier run has left: whatever is in their place, it costs one full run at most."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ooni_common.errors import ConfigError, DataRefused
from ooni_common.files import locked
from ooni_common.state import LARGEST, read_state, write_state


class State(msgspec.Struct, frozen=True):
    """What a script keeps."""

    source: dict[str, str] = {}
    numbers: list[int] = []


STATE = State({"commit": "1" * 40}, [1, 2, 3])


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)


def elsewhere(path: Path) -> Path:
    target = path.with_name("elsewhere")
    target.write_text('{"numbers": [7]}')
    return target


PLACES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a link": lambda path: path.symlink_to(elsewhere(path)),
    "a link to nothing": lambda path: path.symlink_to(path.with_name("nothing")),
    "a link to itself": lambda path: path.symlink_to(path),
    "a pipe": os.mkfifo,
    "a large file": large,
    "no UTF-8": lambda path: path.write_bytes(b'{"source": {"a": "\xff"}}'),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "nothing at all": lambda path: path.write_bytes(b""),
    "half of it": lambda path: path.write_text('{"source": {"commit": "1'),
    "another type": lambda path: path.write_text('{"numbers": "many"}'),
    "a list": lambda path: path.write_text("[]"),
    "null": lambda path: path.write_text("null"),
    "deep arrays": lambda path: path.write_text("[" * 200_000),
    "deep objects": lambda path: path.write_text('{"more":' * 200_000),
    "a large number": lambda path: path.write_text('{"numbers": [1e999]}'),
    "digits": lambda path: path.write_text(f'{{"numbers": [{"9" * 100_000}]}}'),
}


@pytest.mark.parametrize("put", PLACES.values(), ids=PLACES.keys())
def test_what_is_no_state_file_is_ignored(
    tmp_path: Path, put: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    put(path)
    assert read_state(path, State) == State()
    (line,) = caplog.messages
    assert line.startswith(f"{path}: ignored: ")
    assert len(line) < 200 + len(str(path))


def test_a_missing_file_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_state(tmp_path / "state.json", State) == State()
    assert not caplog.messages


@pytest.mark.parametrize("put", PLACES.values(), ids=PLACES.keys())
def test_a_run_puts_its_state_in_the_place(tmp_path: Path, put: Callable[[Path], object]) -> None:
    path = tmp_path / "state.json"
    put(path)
    if path.is_dir():
        with pytest.raises(ConfigError, match="a folder is in the place of a file; remove it"):
            write_state(path, STATE)
        path.rmdir()
    write_state(path, STATE)
    assert read_state(path, State) == STATE
    assert not path.is_symlink()
    linked = tmp_path / "elsewhere"
    assert not linked.exists() or linked.read_text() == '{"numbers": [7]}'


def test_what_no_run_would_read_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_state(path, STATE)
    overhead = len(msgspec.json.encode(State({"": ""}))) + 1
    with pytest.raises(DataRefused, match=r"state\.json: not written, .* what is there stays"):
        write_state(path, State({"": "x" * (LARGEST - overhead + 1)}))
    assert read_state(path, State) == STATE
    largest = State({"": "x" * (LARGEST - overhead)})
    write_state(path, largest)
    assert path.stat().st_size == LARGEST
    assert read_state(path, State) == largest


def test_a_large_state_file_is_not_made_larger_by_blanks(tmp_path: Path) -> None:
    for count, lines in ((1000, 1005), (10**6, 1)):
        write_state(tmp_path / "state.json", State(numbers=[1] * count))
        assert (tmp_path / "state.json").read_bytes().count(b"\n") == lines


def test_a_folder_in_the_place_of_the_temporary_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".state.json.new").mkdir()
    with pytest.raises(ConfigError, match=r"\.state\.json\.new: a folder"):
        write_state(tmp_path / "state.json", STATE)


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    (tmp_path / "tool.lock").symlink_to(target)
    with (
        pytest.raises(ConfigError, match="lock file is a symbolic link"),
        locked(tmp_path / "tool.lock"),
    ):
        pass
    assert target.read_text() == "precious"


def test_a_lock_that_is_no_file_of_its_own_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.lock")
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "link.lock").hardlink_to(precious)
    for name in ("pipe.lock", "link.lock"):
        with (
            pytest.raises(ConfigError, match="the lock has to be a regular file of its own"),
            locked(tmp_path / name),
        ):
            pass
    assert precious.read_text() == "precious"
