"""What somebody does to live and shadow tables, or lets a tool do to them."""

from dev.chaos.kinds.kind import UPDATERS, WITH_SHADOWS, Kind
from dev.chaos.play import Play

MERGE_TREE = "ENGINE = MergeTree ORDER BY tuple()"


def _execute(play: Play, *statements: str) -> None:
    with play.scene.client(play.actor.database, play.reader) as client:
        for statement in statements:
            client.execute(statement)


def _pair(play: Play) -> tuple[str, str]:
    return play.choose(list(play.actor.tables.items()))


def _change_live(play: Play) -> str:
    """Choose a live table that readers will see changed."""
    play.disturbed = True
    play.actor.forget_seen()
    play.actor.loosen_rollback()
    return _pair(play)[0]


def _without(play: Play) -> set[int]:
    """Return the replica that has a table of another kind: the others go on without it."""
    return {play.reader} if len(play.scene.readers) > 1 else set()


def shadow_dropped(play: Play) -> None:
    """Drop a shadow table."""
    _execute(play, f"DROP TABLE IF EXISTS {_pair(play)[1]} SYNC")
    play.run(allowed={0})


def shadow_of_another_engine(play: Play) -> None:
    """Make a shadow table of another engine."""
    live, shadow = _pair(play)
    engine = play.choose(("Memory", "Log", "MergeTree ORDER BY tuple()"))
    _execute(
        play,
        f"DROP TABLE IF EXISTS {shadow} SYNC",
        f"CREATE TABLE {shadow} ENGINE = {engine} AS SELECT * FROM {live}",
    )
    play.run(allowed={0})


def shadow_of_other_columns(play: Play) -> None:
    """Make a shadow table with other columns."""
    _, shadow = _pair(play)
    _execute(
        play,
        f"DROP TABLE IF EXISTS {shadow} SYNC",
        f"CREATE TABLE {shadow} (a String, b Nullable(Int8)) {MERGE_TREE}",
        f"INSERT INTO {shadow} VALUES ('x', NULL)",
    )
    play.run(allowed={0})


def live_emptied(play: Play) -> None:
    """Empty a live table."""
    _execute(play, f"TRUNCATE TABLE {_change_live(play)}")
    play.run(allowed={0})


def live_dropped(play: Play) -> None:
    """Drop a live table."""
    _execute(play, f"DROP TABLE {_change_live(play)} SYNC")
    play.run(allowed={0})


def live_of_another_engine(play: Play) -> None:
    """Make the live table of another engine, with the same rows."""
    live = _change_live(play)
    engine = play.choose(("MergeTree ORDER BY tuple()", "Log", "Memory"))
    _remake(play, live, "*", f"ENGINE = {engine}")
    play.run(allowed={0, 78}, late=_without(play))


def live_with_another_column(play: Play) -> None:
    """Make the live table with one more column, and another order."""
    _remake(play, _change_live(play), "1 AS more, *")
    play.run(allowed={0, 78}, late=_without(play))


def live_without_a_column(play: Play) -> None:
    """Make the live table without one of its columns."""
    _remake(play, _change_live(play), "1 AS other")
    late = _without(play)
    play.run(allowed={0, 78} if late else {78}, late=late)


def _remake(play: Play, live: str, columns: str, engine: str = MERGE_TREE) -> None:
    """Make a live table of what it holds, until the fault ends."""
    _execute(
        play,
        f"RENAME TABLE {live} TO old",
        f"CREATE TABLE {live} {engine} AS SELECT {columns} FROM old",
        "DROP TABLE old SYNC",
    )
    play.scene.mending.append(lambda: _execute(play, f"DROP TABLE {live} SYNC"))


def swapped_by_hand(play: Play) -> None:
    """Exchange live and shadow table, as a rollback by hand would: nobody takes a strange one."""
    live, shadow = _pair(play)
    play.disturbed = True
    play.actor.forget_seen()
    play.actor.loosen_rollback()
    with play.scene.client(play.actor.database, play.reader) as client:
        of_both = {"database": play.actor.database, "names": (live, shadow)}
        engines = client.execute(
            "SELECT engine FROM system.tables WHERE database = %(database)s AND name IN %(names)s",
            of_both,
        )
        columns = client.execute(
            "SELECT groupArray((name, type)) FROM system.columns"
            " WHERE database = %(database)s AND table IN %(names)s GROUP BY table",
            of_both,
        )
        if len(columns) == 2 and engines[0] == engines[1] and columns[0] == columns[1]:
            client.execute(f"EXCHANGE TABLES {live} AND {shadow}")
    play.run(allowed={0})


def rolled_back(play: Play) -> None:
    """Let it put back what the last update replaced: that stays until upstream changes."""
    play.run()
    play.actor.roll_back()
    play.run("--rollback")
    play.run()
    if play.draw() < 0.5:
        play.actor.advance(play.draw())


KINDS = (
    Kind("shadow dropped", WITH_SHADOWS, shadow_dropped),
    Kind("shadow of another engine", WITH_SHADOWS, shadow_of_another_engine),
    Kind("shadow of other columns", WITH_SHADOWS, shadow_of_other_columns),
    Kind("live emptied", WITH_SHADOWS, live_emptied),
    Kind("live dropped", WITH_SHADOWS, live_dropped),
    Kind("live of another engine", WITH_SHADOWS, live_of_another_engine),
    Kind("live with another column", WITH_SHADOWS, live_with_another_column),
    Kind("live without a column", WITH_SHADOWS, live_without_a_column, needs_news=True),
    Kind("swapped by hand", WITH_SHADOWS, swapped_by_hand),
    Kind("rolled back", UPDATERS, rolled_back, needs_news=True),
)
