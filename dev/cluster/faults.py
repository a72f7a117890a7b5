"""What a test wants to go wrong on a node: a file that the node reads whenever it matters."""

import json
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dev.embedded_clickhouse.errors import ConnectionLost, ServerError


@dataclass
class StatementFault:
    """What happens to statements, instead of or before their being run.

    Attributes:
        pattern: a regular expression that is searched in the statement.
        code: error code of the answer; 0 lets the statement run.
        message: text of the answer.
        delay: seconds to wait before either.
    """

    pattern: str
    code: int = 0
    message: str = "injected"
    delay: float = 0


@dataclass
class Faults:
    """All that goes wrong on one node.

    Attributes:
        serve_parts_after: seconds that each request for a part waits; negative refuses it.
        statements: the first whose pattern matches is the one that counts.
        cut: connections of clients are closed, the old ones and each new one.
    """

    serve_parts_after: float = 0
    statements: list[StatementFault] = field(default_factory=list)
    cut: bool = False

    @classmethod
    def load(cls, path: Path) -> "Faults":
        """Return what the file says; no file, no faults."""
        try:
            members = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        statements = [StatementFault(**fault) for fault in members.pop("statements")]
        return cls(statements=statements, **members)

    def save(self, path: Path) -> None:
        """Put it in place in one step."""
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)

    def meet(self, statement: str) -> None:
        """Let a statement of a client suffer what is meant for it.

        Raises:
            ServerError: the one that the fault asks for.
            ConnectionLost: connections are cut.
        """
        if self.cut:
            raise ConnectionLost
        for fault in self.statements:
            if re.search(fault.pattern, statement):
                time.sleep(fault.delay)
                if fault.code:
                    raise ServerError(fault.code, fault.message)
                return
