"""The kinds of faults, and whom each can happen to, by what the tools work on."""

from collections.abc import Mapping
from dataclasses import replace

from dev.chaos.kinds import (
    connections,
    database,
    machine,
    objects,
    processes,
    replicas,
    state,
    tables,
    upstreams,
)
from dev.chaos.kinds.kind import WITH_SHADOWS, Kind

ALL: tuple[Kind, ...] = (
    *processes.KINDS,
    *connections.KINDS,
    *database.KINDS,
    *upstreams.KINDS,
    *state.KINDS,
    *tables.KINDS,
    *objects.KINDS,
    *machine.KINDS,
)
# Of what can happen on one server, what may go another way on replicas.
ON_REPLICAS_TOO = (
    "killed",
    "terminated",
    "paused",
    "started twice",
    "answers cut",
    "database cut off",
    "database stalled",
    "upstream: a page",
    "upstream: old",
    "upstream: a broken list",
    "state: garbage",
    "state: gone",
    "state: old",
    "user may only read",
    *(kind.name for kind in tables.KINDS),
)


def _on_replicas(kind: Kind) -> Kind:
    """Return it for the tools that replace tables: each node gets the same there."""
    return replace(kind, actors=tuple(name for name in kind.actors if name in WITH_SHADOWS))


BEDS: Mapping[str, tuple[Kind, ...]] = {
    "server": ALL,
    "replicas": (
        *replicas.KINDS,
        *(_on_replicas(kind) for kind in ALL if kind.name in ON_REPLICAS_TOO),
    ),
}
