"""What happens to the files that runs leave for the next one."""

import os
import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dev.chaos.kinds.kind import EVERYBODY, Kind
from dev.chaos.play import Play

LARGE = 80_000_000  # bytes; of a sparse file
Damage = Callable[[Path, random.Random], None]


def garbage(path: Path, dice: random.Random) -> None:
    """Put random bytes in its place."""
    path.write_bytes(dice.randbytes(path.stat().st_size + 1))


def flip(path: Path, dice: random.Random) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    if content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, dice: random.Random) -> None:
    """Leave the beginning of it."""
    os.truncate(path, dice.randrange(path.stat().st_size + 1))


def delete(path: Path, _dice: random.Random) -> None:
    """Delete it."""
    path.unlink()


def nest(path: Path, _dice: random.Random) -> None:
    """Put what is nested deeply in its place."""
    path.write_bytes(b"[" * 200_000)


def put_other_json(path: Path, dice: random.Random) -> None:
    """Put JSON of another kind in its place."""
    path.write_text(dice.choice(("null", "[]", '{"version": 99}', "7", '{"commit": ["a"]}')))


def link(path: Path, dice: random.Random) -> None:
    """Put a link in its place, to a file or to nothing."""
    path.unlink()
    path.symlink_to(dice.choice(("/etc/passwd", "/nowhere")))


def put_pipe(path: Path, _dice: random.Random) -> None:
    """Put a pipe in its place, which nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def enlarge(path: Path, _dice: random.Random) -> None:
    """Let it be larger than anything that is written."""
    os.truncate(path, LARGE)


def _files(play: Play) -> list[Path]:
    paths = sorted(play.actor.state_dir.rglob("*"))
    return [path for path in paths if path.is_file() and path.suffix != ".lock"]


def damaged(damage: Damage, play: Play) -> None:
    """Damage a file: it costs a full run at most."""
    play.actor.loosen_rollback()
    if files := _files(play):
        path = play.choose(files)
        play.told.append(f"{damage.__name__} {path.name}")
        damage(path, random.Random(play.draw()))  # noqa: S311 (not for secrets)
    play.run(allowed={0})


def foldered(play: Play) -> None:
    """Put a folder in the place of a file."""
    play.actor.loosen_rollback()
    for path in _files(play)[:1]:
        path.unlink()
        path.mkdir()
        play.scene.mending.append(partial(shutil.rmtree, path))
    play.run(allowed={0, 78})


def gone(play: Play) -> None:
    """Delete the whole folder."""
    play.actor.loosen_rollback()
    shutil.rmtree(play.actor.state_dir)
    play.run(allowed={0})


def old(play: Play) -> None:
    """Put back what the folder held two runs ago."""
    play.actor.loosen_rollback()
    copy = play.actor.folder / "copy"
    shutil.copytree(play.actor.state_dir, copy)
    play.run(allowed={0})
    play.actor.advance(play.draw())
    play.run(allowed={0})
    shutil.rmtree(play.actor.state_dir)
    copy.rename(play.actor.state_dir)
    play.run(allowed={0})


DAMAGES = (
    garbage,
    flip,
    truncate,
    delete,
    nest,
    put_other_json,
    link,
    put_pipe,
    enlarge,
)
KINDS = (
    *(
        Kind(f"state: {damage.__name__.replace('_', ' ')}", EVERYBODY, partial(damaged, damage))
        for damage in DAMAGES
    ),
    Kind("state: a folder", EVERYBODY, foldered),
    Kind("state: gone", EVERYBODY, gone),
    Kind("state: old", EVERYBODY, old),
)
