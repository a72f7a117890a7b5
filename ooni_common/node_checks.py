"""Checks of every node: what they say is one line where they agree."""

from collections.abc import Callable, Mapping, Sequence

from ooni_common.config import DatabaseConfig
from ooni_common.database_checks import check_clock, is_near
from ooni_common.doctor import Note, worst_of
from ooni_common.errors import ConfigError, Unavailable
from ooni_common.nodes import Node, Nodes


def attendance(nodes: Nodes, config: DatabaseConfig) -> str:
    """Say which nodes are there; a run does without a minority."""
    if not nodes.is_cluster:
        return "not set; one server"
    total = len(nodes.up) + len(nodes.absent)
    count = f"{len(nodes.up)} of {total} nodes of {config.cluster or '`nodes`'}"
    if not nodes.absent:
        return count
    return Note("; ".join([count, *(f"{name}: {why}" for name, why in nodes.absent.items())]))


def on_all(nodes: Nodes, among: Sequence[Node], check: Callable[[Node], str]) -> str:
    """Make a check on each node; return what was said, once if it is the same everywhere.

    A run goes on without the nodes that fail, as long as enough are left.

    Raises:
        ConfigError, Unavailable: too few are left.
    """
    texts: dict[str, list[Node]] = {}
    failures: dict[Node, ConfigError | Unavailable] = {}
    for node in among:
        try:
            texts.setdefault(check(node), []).append(node)
        except (ConfigError, Unavailable) as error:
            failures[node] = error
            texts.setdefault(str(error), []).append(node)
    if failures and not nodes.suffice_without(failures):
        raise worst_of(list(failures.values()))
    if len(texts) == 1:
        return next(iter(texts))
    said = "; ".join(f"{', '.join(map(str, at))}: {text}" for text, at in texts.items())
    noted = failures or any(isinstance(text, Note) for text in texts)
    return Note(said) if noted else said


def check_clocks(nodes: Nodes, ahead: Mapping[Node, float]) -> str:
    """Compare the nodes' clocks with this machine's; those that are right are one group.

    Args:
        nodes: of the cluster, or the one server.
        ahead: how many seconds this machine was ahead of each when that told its time.

    Raises:
        ConfigError: too many are so wrong that a run takes other hours for over.
    """
    right = [abs(seconds) for seconds in ahead.values() if is_near(seconds)]

    def check(node: Node) -> str:
        if is_near(ahead[node]) and len(right) > 1:
            return f"at most {max(right):.0f} s from this machine's"
        return check_clock(0, ahead[node])

    return on_all(nodes, list(ahead), check)
