"""What happens to the database, and on the way there."""

import re
from signal import SIGTERM

from dev.chaos.kinds.connections import ONE_SECOND
from dev.chaos.kinds.kind import MOSTLY_ROWS, WITH_DATABASE, Kind
from dev.chaos.kinds.processes import STOPPED
from dev.chaos.play import Play
from dev.servers.tcp_proxy import Fault, calling, cut, flip, stall

FAILED = {0, 69}
STATEMENT = re.compile(rb"SELECT|INSERT|CREATE|DROP|EXCHANGE|TRUNCATE|SHOW|EXISTS|SYSTEM|ALTER")


def _fail(play: Play, fault: Fault) -> None:
    answers = play.draw() < 0.5
    position = int(play.draw() * play.actor.usual_bytes[answers])
    play.scene.database.fail(fault, after=position, answers=answers)


def cut_off(play: Play) -> None:
    """End a connection."""
    _fail(play, cut)
    play.run(allowed=FAILED)


def stalled(play: Play) -> None:
    """Pass nothing more on a connection; somebody loses patience."""
    _fail(play, stall)
    tool = play.start()
    tool.pause(2 * play.actor.usual_seconds + ONE_SECOND)
    tool.send(SIGTERM)
    play.end(tool, STOPPED)


def away(play: Play) -> None:
    """Run it while there is no database."""
    play.server.clickhouse.kill()
    play.run(allowed={69})


def crashed(play: Play) -> None:
    """Kill the database at some moment of the run."""
    _fail(play, calling(play.server.clickhouse.kill))
    play.run(allowed=FAILED)


def _has_no_statement(piece: bytes) -> bool:
    return not STATEMENT.search(piece)


def flipped(play: Play) -> None:
    """Change a bit of the rows on their way; where both then wait for more, somebody intervenes."""
    position = int(play.between(0.3, 0.9) * play.actor.usual_bytes[False])
    play.scene.database.fail(flip, after=position, answers=False, when=_has_no_statement)
    tool = play.start()
    tool.pause(3 * play.actor.usual_seconds + ONE_SECOND)
    tool.send(SIGTERM)
    play.end(tool, {65, 69, 78} | STOPPED)


def rows_cut_off(play: Play) -> None:
    """End the connection that brings the rows of an export."""
    position = int(play.draw() * play.actor.usual_row_bytes)
    play.scene.rows.fail(cut, after=position, answers=True)
    play.run("run", "--force", allowed=FAILED)


def rows_stalled(play: Play) -> None:
    """Let no more rows come for an export; somebody loses patience."""
    position = int(play.draw() * play.actor.usual_row_bytes)
    play.scene.rows.fail(stall, after=position, answers=True)
    tool = play.start("run", "--force")
    tool.pause(2 * play.actor.usual_seconds + ONE_SECOND)
    tool.send(SIGTERM)
    play.end(tool, STOPPED)


KINDS = (
    Kind("database cut off", WITH_DATABASE, cut_off),
    Kind("database stalled", WITH_DATABASE, stalled),
    Kind("database away", WITH_DATABASE, away),
    Kind("database crashed", WITH_DATABASE, crashed),
    Kind("rows flipped", MOSTLY_ROWS, flipped, needs_news=True),
    Kind("rows of an export cut off", ("backup",), rows_cut_off),
    Kind("rows of an export stalled", ("backup",), rows_stalled),
)
