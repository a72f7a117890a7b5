"""What happens to replicas, and to the ZooKeeper that they share."""

import time
from collections.abc import Callable
from signal import SIGKILL

from dev.chaos.kinds.connections import ONE_SECOND
from dev.chaos.kinds.kind import WITH_SHADOWS, Kind
from dev.chaos.kinds.processes import KILLED
from dev.chaos.play import Play
from dev.cluster.cluster import Node

FAILED = {0, 69}
STEPS = ("^DROP", "^CREATE", "^INSERT", "^EXCHANGE", "^SELECT count", "^SHOW CREATE", "^SYSTEM")
SESSION_LOST = 999  # the code of an error of ZooKeeper
A_MOMENT, A_WHILE = 0.5, 3.0  # seconds


def _node(play: Play) -> Node:
    """Return the replica that it happens to."""
    return play.replicas.cluster.nodes[play.reader]


def _others(play: Play) -> list[Node]:
    return [node for node in play.replicas.cluster.nodes if node is not _node(play)]


def _meanwhile(play: Play, *actions: Callable[[], object]) -> None:
    """Let things happen while the tool runs, one after the other."""
    tool = play.start()
    for action in actions:
        tool.pause(play.between(0, 1.1) * play.actor.usual_seconds / len(actions))
        action()
    play.end(tool, FAILED, late={play.reader})


def replica_away(play: Play) -> None:
    """Run without one replica: a majority suffices."""
    _node(play).kill()
    play.run()


def replica_back(play: Play) -> None:
    """Run without a replica, and once more with it, as it came back."""
    _node(play).kill()
    play.run()
    play.replicas.mend_database()
    play.actor.advance(play.draw())
    play.run(allowed=FAILED, late={play.reader})


def majority_away(play: Play) -> None:
    """Leave one replica of three: nothing is changed."""
    for node in _others(play):
        node.kill()
    play.run(allowed={69})


def replica_killed(play: Play) -> None:
    """Kill a replica at some moment of the run."""
    _meanwhile(play, _node(play).kill)


def replica_restarted(play: Play) -> None:
    """Kill a replica at some moment, and start it again while the tool runs."""
    _meanwhile(play, _node(play).kill, _node(play).start)


def replica_killed_at_a_step(play: Play) -> None:
    """Kill a replica while a certain statement waits there."""
    _node(play).delay(play.choose(STEPS), ONE_SECOND)
    _meanwhile(play, _node(play).kill)


def replica_cut_off(play: Play) -> None:
    """Close all connections to a replica, which goes on."""
    _node(play).cut()
    play.run(allowed=FAILED, late={play.reader})


def replica_cut_off_meanwhile(play: Play) -> None:
    """Close the connections to a replica at some moment."""
    _meanwhile(play, _node(play).cut)


def statement_fails(play: Play) -> None:
    """Let statements of one kind fail on a replica."""
    _node(play).fail(play.choose(STEPS), SESSION_LOST, "Session expired")
    play.run(allowed=FAILED, late={play.reader})


def statement_late(play: Play) -> None:
    """Let a statement of one kind wait on a replica, and kill the tool in that time."""
    _node(play).delay(play.choose(STEPS), A_WHILE)
    tool = play.start()
    tool.pause(play.between(0, 1) * play.actor.usual_seconds + ONE_SECOND)
    tool.send(SIGKILL)
    play.end(tool, KILLED, late={play.reader})
    time.sleep(A_WHILE)  # a statement that still waits is not to meet the next run


def parts_late(play: Play) -> None:
    """Let the other replicas wait for each part that they fetch from one."""
    _node(play).serve_parts_after(A_MOMENT)
    play.run()


def parts_refused(play: Play) -> None:
    """Let no replica get parts from the others, for a while."""
    for node in play.replicas.cluster.nodes:
        node.refuse_parts()
    tool = play.start()
    tool.pause(play.actor.usual_seconds + A_WHILE)
    play.replicas.cluster.mend()
    play.end(tool, FAILED)


def zookeeper_away(play: Play) -> None:
    """Run without ZooKeeper: replicated tables can't be changed, others can."""
    play.replicas.cluster.zookeeper.kill()
    play.run(allowed=FAILED)


def zookeeper_restarted(play: Play) -> None:
    """Kill ZooKeeper at some moment, and start it again."""
    zookeeper = play.replicas.cluster.zookeeper
    _meanwhile(play, zookeeper.kill, zookeeper.start)


KINDS = (
    Kind("replica away", WITH_SHADOWS, replica_away),
    Kind("replica back", WITH_SHADOWS, replica_back),
    Kind("two replicas away", WITH_SHADOWS, majority_away),
    Kind("replica killed", WITH_SHADOWS, replica_killed),
    Kind("replica restarted", WITH_SHADOWS, replica_restarted),
    Kind("replica killed at a step", WITH_SHADOWS, replica_killed_at_a_step, needs_news=True),
    Kind("replica cut off", WITH_SHADOWS, replica_cut_off),
    Kind("replica cut off meanwhile", WITH_SHADOWS, replica_cut_off_meanwhile, needs_news=True),
    Kind("statement fails on a replica", WITH_SHADOWS, statement_fails, needs_news=True),
    Kind("statement late on a replica", WITH_SHADOWS, statement_late, needs_news=True),
    Kind("parts late", ("citizenlab",), parts_late, needs_news=True),
    Kind("parts refused for a while", ("citizenlab",), parts_refused, needs_news=True),
    Kind("ZooKeeper away", WITH_SHADOWS, zookeeper_away),
    Kind("ZooKeeper restarted", WITH_SHADOWS, zookeeper_restarted),
)
