"""The kinds of faults, and whom each can happen to."""

from dev.chaos.kinds import (
    connections,
    database,
    machine,
    objects,
    processes,
    state,
    tables,
    upstreams,
)
from dev.chaos.kinds.kind import Kind

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
