"""What an error code of ClickHouse means to the operator, and its message in one short line."""

import re
from typing import NamedTuple

MOST_CHARACTERS = 160  # of the server's own words in a line

GRANT = "grant it to the user of db_uri"
LOGIN = "check user and password in db_uri"
ANOTHER_DATABASE = "name another one in db_uri"
ATOMIC = "create the database with ENGINE = Atomic and move its tables there"
UTC = (
    "every tool sets it to UTC: use a profile with readonly = 0 (2 is enough where nothing is"
    " written), and without a constraint on that setting"
)
OTHER_PATH = "another table has had this replica path: create the table with another one"
REPLICA_IN_ZOOKEEPER = r"(?P<path>/[^\s']+)/replicas/(?P<replica>[^\s/']+)"
DROP_REPLICA = (
    "if no node has that table any more: SYSTEM DROP REPLICA '{replica}' FROM ZKPATH '{path}';"
    " otherwise create the table with another replica path"
)
UNREACHABLE = "the server could not reach another one"
BETWEEN_NODES = "one server says so to another: see the cluster in the server's configuration"
KEEPER = "the server has no connection to ZooKeeper; see system.zookeeper_connection and its log"
BUSY = "the server is too busy; see SHOW PROCESSLIST"
REPLICAS = "too few replicas take part; see system.replicas on each node"


class Rule(NamedTuple):
    """What to do about a code.

    Attributes:
        code: ClickHouse's.
        name: ClickHouse's for it.
        advice: a half sentence, with what the groups of `message` have matched.
        message: is searched in the server's text, and must match.
    """

    code: int
    name: str
    advice: str = ""
    message: str = ""


# Exit status 78: no later run succeeds until somebody has mended it. The first that fits counts.
REFUSALS = (
    Rule(
        36,
        "BAD_ARGUMENTS",
        "create the table yourself, with a replica path without {{uuid}} or with ON CLUSTER",
        "Macro 'uuid'",
    ),
    Rule(48, "NOT_IMPLEMENTED", ATOMIC, r"only in Atomic|renameTable\(\)"),
    Rule(48, "NOT_IMPLEMENTED", "check the version of the server, and the engine of the table"),
    Rule(56, "UNKNOWN_STORAGE", "this server can't have such a table"),
    Rule(80, "INCORRECT_QUERY", ATOMIC, r"not Atomic|\bReplicated database"),
    Rule(81, "UNKNOWN_DATABASE", f"create it, or {ANOTHER_DATABASE}"),
    Rule(115, "UNKNOWN_SETTING", "remove it where it is set, or upgrade the server"),
    Rule(122, "INCOMPATIBLE_COLUMNS", OTHER_PATH, "ZooKeeper"),
    Rule(139, "NO_ELEMENTS_IN_CONFIG", "add it to the configuration of the server"),
    Rule(164, "READONLY", UTC, "session_timezone"),
    Rule(164, "READONLY", "give the user of db_uri a settings profile with readonly = 0"),
    Rule(170, "BAD_GET", "see SELECT DISTINCT cluster FROM system.clusters", "[Cc]luster"),
    Rule(181, "ILLEGAL_FINAL", "make it a ReplacingMergeTree: its rows are to replace others"),
    Rule(192, "UNKNOWN_USER", LOGIN),
    Rule(193, "WRONG_PASSWORD", LOGIN),
    Rule(194, "REQUIRED_PASSWORD", LOGIN),
    Rule(195, "IP_ADDRESS_NOT_ALLOWED", "let the user of db_uri connect from this host"),
    Rule(
        253,
        "REPLICA_ALREADY_EXISTS",
        DROP_REPLICA,
        REPLICA_IN_ZOOKEEPER,
    ),
    Rule(253, "REPLICA_ALREADY_EXISTS", OTHER_PATH),
    Rule(291, "DATABASE_ACCESS_DENIED", GRANT),
    Rule(342, "METADATA_MISMATCH", OTHER_PATH),
    Rule(344, "SUPPORT_IS_DISABLED", "enable it in the settings profile of the user of db_uri"),
    Rule(359, "TABLE_SIZE_EXCEEDS_MAX_DROP_SIZE_LIMIT", "drop it yourself, or raise the limit"),
    Rule(392, "QUERY_IS_PROHIBITED", "give the user of db_uri a profile with allow_ddl = 1"),
    Rule(452, "SETTING_CONSTRAINT_VIOLATION", UTC, "session_timezone"),
    Rule(
        452,
        "SETTING_CONSTRAINT_VIOLATION",
        "loosen the constraint in the settings profile of the user of db_uri",
    ),
    Rule(497, "ACCESS_DENIED", GRANT),
    Rule(516, "AUTHENTICATION_FAILED", LOGIN),
    Rule(669, "NAMED_COLLECTION_DOESNT_EXIST", "create it, or name another one"),
    Rule(701, "CLUSTER_DOESNT_EXIST", "see SELECT DISTINCT cluster FROM system.clusters"),
)
# Exit status 69: the server lacks something now, and a later run may succeed.
LACKS = (
    Rule(159, "TIMEOUT_EXCEEDED", "the server is too slow now, or max_execution_time too short"),
    Rule(201, "QUOTA_EXCEEDED", "the quota of the user of db_uri is used up"),
    Rule(202, "TOO_MANY_SIMULTANEOUS_QUERIES", BUSY),
    Rule(203, "NO_FREE_CONNECTION", BUSY),
    Rule(209, "SOCKET_TIMEOUT", UNREACHABLE),
    Rule(210, "NETWORK_ERROR", UNREACHABLE),
    Rule(224, "REPLICA_ALREADY_ACTIVE", "its server was just restarted, or two have one name"),
    Rule(225, "NO_ZOOKEEPER", KEEPER),
    Rule(241, "MEMORY_LIMIT_EXCEEDED", "the server lacks memory now, or max_memory_usage is low"),
    Rule(242, "TABLE_IS_READ_ONLY", KEEPER),
    Rule(243, "NOT_ENOUGH_SPACE", "a disk of the server is full: free space there"),
    Rule(252, "TOO_MANY_PARTS", "the merges of the server do not keep up; see system.merges"),
    Rule(279, "ALL_CONNECTION_TRIES_FAILED", UNREACHABLE),
    Rule(285, "TOO_FEW_LIVE_REPLICAS", REPLICAS),
    Rule(286, "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE", REPLICAS),
    Rule(319, "UNKNOWN_STATUS_OF_INSERT", "rows may or may not be stored; the next run sees to it"),
    Rule(394, "QUERY_WAS_CANCELLED", "somebody ended it, or the server is stopping"),
    Rule(499, "S3_ERROR"),
    Rule(519, "NO_REMOTE_SHARD_AVAILABLE", UNREACHABLE),
    Rule(999, "KEEPER_EXCEPTION", KEEPER),
)
# Tables that must exist before a run are looked for at its beginning; so this one has vanished.
VANISHED = Rule(60, "UNKNOWN_TABLE", "somebody has dropped it; the next run begins again")
OTHERS = (*LACKS, VANISHED)
CODES_OF_LACKS = {rule.code for rule in LACKS}
LOGS = {279, 519}  # whose text is a log of what other servers have said

STACK = re.compile(r",? ?Stack trace(?: \(when copying[^)]*\))?:.*", re.DOTALL)
NAME = r"\([A-Z][A-Z0-9_]{3,}\)"
VERSION = re.compile(rf"\.?(?:\s*{NAME})?\s*\(version [^()]*(?:\([^()]*\))?\)")
NAME_AT_END = re.compile(rf"\.?\s*{NAME}[. ]*$", re.MULTILINE)
LOG = re.compile(r"All (?:connection tries|attempts to get table structure) failed\. Log:")
CODE = re.compile(r"\bCode: (\d+)\.")
CHAIN = re.compile(
    r"(?:Code: \d+\. )?\b(?:DB|Coordination|Poco|zkutil|std)::[\w:]*xception(?::|\.) "
)
COLUMNS = re.compile(r"\(\w+(?:, \w+){3,}\)")  # of a grant


class Meaning(NamedTuple):
    """What an exception of the server means.

    Attributes:
        code: ClickHouse's; of the reason, where the exception only passes a reason on.
        line: for the operator.
        said: all that the server said, but for the stack trace, in one line.
        refused: only a person can mend it.
    """

    code: int
    line: str
    said: str
    refused: bool


def meaning_of(code: int, message: str) -> Meaning:
    """Return what an exception means to the operator.

    Args:
        code: ClickHouse's.
        message: its text, with stack trace and version or without.
    """
    refusal = _rule(REFUSALS, code, message)
    if code in LOGS:
        reasons = (_rule(REFUSALS, int(reason), message) for reason in CODE.findall(message))
        if refusal := next(filter(None, reasons), None):
            refusal = refusal._replace(advice=BETWEEN_NODES, message="")
    rule = refusal or _rule(OTHERS, code, message) or Rule(code, _name(code))
    cause = f"code {rule.code} {rule.name}".rstrip()
    line = f"database: {in_one_line(message)} ({cause})"
    if rule.advice:
        groups = re.search(rule.message, message)
        line += f"; {rule.advice.format(**groups.groupdict() if groups else {})}"
    said = " ".join(STACK.sub("", message).split())
    return Meaning(rule.code, line, said, refusal is not None)


def in_one_line(message: str) -> str:
    """Return what an exception says, without where in the server's program, and not too long."""
    text = NAME_AT_END.sub("", VERSION.sub("", STACK.sub("", message)))
    if LOG.search(text):  # one line for each attempt; those of the enclosing logs are empty
        lines = (line.strip(" .:") for line in LOG.split(text)[-1].splitlines())
        text = "; ".join(dict.fromkeys(line for line in lines if line and CODE.match(line)))
    words = COLUMNS.sub("(…)", " ".join(CHAIN.sub("", text).split())).rstrip(" .,:")
    if len(words) <= MOST_CHARACTERS:
        return words
    cut = words[:MOST_CHARACTERS]
    whole = cut.rpartition(" ")[0]
    return f"{(whole if len(whole) > MOST_CHARACTERS // 2 else cut).rstrip(' .,:')}…"


def _name(code: int) -> str:
    """Return the driver's name for a code without a rule; "" for what it does not know."""
    from clickhouse_driver.errors import ErrorCodes  # noqa: PLC0415 (--help must not wait for it)

    return next((name for name, number in vars(ErrorCodes).items() if number == code), "")


def _rule(rules: tuple[Rule, ...], code: int, message: str) -> Rule | None:
    fitting = (rule for rule in rules if rule.code == code and re.search(rule.message, message))
    return next(fitting, None)
