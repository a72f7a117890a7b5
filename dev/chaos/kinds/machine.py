"""What happens to the machine: disks, clock, configuration."""

import os
import shutil
import subprocess
from pathlib import Path

from dev.chaos.actors.actor import FILLING
from dev.chaos.kinds.kind import EVERYBODY, UPDATERS, WITH_DATABASE, WITH_SHADOWS, Kind
from dev.chaos.play import Play

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
DISK_BYTES = 2_000_000
LEFT_BYTES = 20_000
FAILED = {0, 65, 69, 75, 78}


def _not_root() -> str:
    return "" if os.geteuid() == 0 else "only root can mount a small disk"


def _no_faketime() -> str:
    return "" if FAKETIME.exists() else "Debian's libfaketime is not installed"


def _fill(play: Play, folder: Path) -> None:
    """Let a folder be on a disk of its own, with hardly any room left."""
    copy = play.actor.folder / "moved"
    folder.rename(copy)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)

    def mend() -> None:
        (folder / FILLING).unlink(missing_ok=True)
        shutil.rmtree(copy)
        shutil.copytree(folder, copy, symlinks=True)
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()
        copy.rename(folder)

    play.scene.mending.append(mend)
    shutil.copytree(copy, folder, dirs_exist_ok=True)
    room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with (folder / FILLING).open("wb") as file:
        file.write(bytes(max(0, room - int(play.draw() * LEFT_BYTES))))


def disk_of_state_full(play: Play) -> None:
    """Leave no room for the state."""
    _fill(play, play.actor.state_dir)
    play.run(allowed={0, 75})


def disk_of_outputs_full(play: Play) -> None:
    """Leave no room for what is written for others."""
    for folder in play.actor.outputs:
        _fill(play, folder)
    play.run(allowed={0, 75})


def disk_of_temporary_files_full(play: Play) -> None:
    """Leave no room for temporary files."""
    _fill(play, play.actor.temporary)
    play.run(allowed={0, 69, 75})


def clock_jumped(play: Play) -> None:
    """Run it years from now, or years ago."""
    days = int(play.between(1, 800)) * play.choose((-1, 1))
    play.run(
        allowed=FAILED,
        LD_PRELOAD=str(FAKETIME),
        FAKETIME=f"{days:+}d",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )


def clock_jumps(play: Play) -> None:
    """Let the clock jump while it runs."""
    jump = play.actor.folder / "jump"
    jump.write_text("+0")
    play.scene.mending.append(jump.unlink)
    tool = play.start(
        LD_PRELOAD=str(FAKETIME),
        FAKETIME_TIMESTAMP_FILE=str(jump),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    tool.pause(play.draw() * play.actor.usual_seconds)
    jump.write_text(f"{int(play.between(-400, 400)):+}d")
    play.end(tool, FAILED)


def configuration_damaged(play: Play) -> None:
    """Write a configuration that is none."""
    text = play.choose(
        ("{", "db_uri = ", '{"db_uri": 7}', '{"no_such_key": 1}', "\0", "[" * 10_000)
    )
    play.actor.config_file.write_text(text)
    play.run(allowed={78})


def password_wrong(play: Play) -> None:
    """Configure another password."""
    play.actor.configure(db_uri=play.scene.uri(play.actor.database, password="wrong"))  # noqa: S106 (a wrong one)
    play.run(allowed={78})


def database_missing(play: Play) -> None:
    """Configure a database that is not there."""
    play.actor.configure(db_uri=play.scene.uri("chaos_nowhere"))
    play.run(allowed={78})


def may_only_read(play: Play) -> None:
    """Configure a user who may only read."""
    play.actor.configure(db_uri=play.scene.uri(play.actor.database, writes=False))
    play.run(allowed={0, 78})


def metrics_go_nowhere(play: Play) -> None:
    """Configure a statsd that is not there."""
    play.actor.configure(statsd=play.choose(("127.0.0.1:1", "nowhere.invalid:8125")))
    play.run(allowed={0})


KINDS = (
    Kind("disk of the state full", EVERYBODY, disk_of_state_full, missing=_not_root),
    Kind("disk of outputs full", ("geoip", "detector"), disk_of_outputs_full, missing=_not_root),
    Kind(
        "disk of temporary files full", EVERYBODY, disk_of_temporary_files_full, missing=_not_root
    ),
    Kind("clock jumped", EVERYBODY, clock_jumped, missing=_no_faketime),
    # Short waits, as the backup tool has them, can fail in libfaketime 0.9.10 when it jumps.
    Kind("clock jumps", (*UPDATERS, "detector"), clock_jumps, missing=_no_faketime),
    Kind("configuration damaged", EVERYBODY, configuration_damaged),
    Kind("password wrong", WITH_DATABASE, password_wrong),
    Kind("database missing", WITH_DATABASE, database_missing),
    Kind("user may only read", WITH_SHADOWS, may_only_read, needs_news=True),
    Kind("metrics go nowhere", EVERYBODY, metrics_go_nowhere),
)
