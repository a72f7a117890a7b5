"""What happens to objects in the store, and on their way there."""

from collections.abc import Callable

from dev.chaos.actors.backup import MANIFESTS, PRIVATE, PUBLIC, Backup, damaged_objects
from dev.chaos.kinds.connections import FEW
from dev.chaos.kinds.kind import Kind
from dev.chaos.play import Play, Violation
from dev.servers.fault_proxy import Fault, after, cut_request, flip_request

ROWS = "clickhouse_export/csv/"
DATA = "clickhouse_backup/data/"
BACKUP = ("backup",)
MOST_UPLOADS = 20
Damage = Callable[[Backup, str, str, float], None]


def flip(tool: Backup, bucket: str, key: str, draw: float) -> None:
    """Change a bit."""
    content = bytearray(tool.get(bucket, key))
    content[int(draw * len(content))] ^= 1
    tool.put(bucket, key, bytes(content))


def truncate(tool: Backup, bucket: str, key: str, draw: float) -> None:
    """Leave the beginning."""
    content = tool.get(bucket, key)
    tool.put(bucket, key, content[: int(draw * len(content))])


def delete(tool: Backup, bucket: str, key: str, _draw: float) -> None:
    """Delete it."""
    tool.delete(bucket, key)


def replace(tool: Backup, bucket: str, key: str, draw: float) -> None:
    """Put another object's content in its place."""
    keys = [other for other in sorted(tool.objects(bucket)) if other != key]
    content = tool.get(bucket, keys[int(draw * len(keys))])
    if content == tool.get(bucket, key):
        content += b"0"
    tool.put(bucket, key, content)


DAMAGES = (flip, truncate, delete, replace)


def _tool(play: Play) -> Backup:
    if not isinstance(play.actor, Backup):
        raise TypeError(play.actor.name)
    return play.actor


def _damage(play: Play, bucket: str, prefix: str) -> str:
    """Damage an object of a bucket in one of four ways; return its key."""
    tool = _tool(play)
    damage = play.choose(DAMAGES)
    keys = [
        key
        for key, content in sorted(tool.objects(bucket).items())
        if key.startswith(prefix) and content
    ]
    key = play.choose(keys)
    play.told.append(f"{damage.__name__} {key}")
    damage(tool, bucket, key, play.draw())
    play.disturbed = True
    return key


def export_damaged(play: Play) -> None:
    """Damage an object with rows: `verify` names it, and a forced run mends it."""
    key = _damage(play, PUBLIC, ROWS)
    outcome = play.run("verify", "--from", "exports", allowed={65}, looks=True)
    if key not in outcome.output:
        raise Violation(f"verify does not name {key}:\n{outcome.output}")
    play.run("run", "--force", allowed={0})


def manifest_damaged(play: Play) -> None:
    """Damage the manifest of a table: `verify` says so, and a forced run mends it."""
    _damage(play, PUBLIC, MANIFESTS)
    play.run("verify", "--from", "exports", allowed={0, 65}, looks=True)
    play.disturbed = True
    play.run("run", "--force", allowed={0, 65})


def backup_damaged(play: Play) -> None:
    """Damage a backup: `verify` says so; a full one, and pruning the others, mends it."""
    _damage(play, PRIVATE, DATA)
    play.disturbed = False
    play.run("verify", "--from", "all", allowed={0, 65}, looks=True)
    _begin_a_chain(play)


def _begin_a_chain(play: Play) -> None:
    """Make a full backup, and remove those before it."""
    play.run("backup", "--full", allowed={0, 65}, looks=True)
    play.run(
        *("prune", "--keep", "1", "--older-than", "0", "--confirm"), allowed={0, 65}, looks=True
    )


def _fail_an_upload(play: Play, fault: Fault) -> None:
    first = int(play.draw() * MOST_UPLOADS)
    is_upload = after(first, lambda request: request.method in {"PUT", "POST"})
    play.scene.store.fail(fault, is_upload, times=1)


def upload_cut(play: Play) -> None:
    """Reset the connection in the middle of what is put into the store."""
    _fail_an_upload(play, cut_request(int(play.draw() * FEW)))
    play.run("run", "--force", allowed={0, 69})


def upload_flipped(play: Play) -> None:
    """Change a bit of what is put into a store that does not notice: `verify` names the object."""
    _fail_an_upload(play, flip_request(play.draw()))
    play.disturbed = True
    play.run("run", "--force", allowed={0, 65, 69}, looks=True)
    play.scene.store.heal()
    play.run("verify", "--from", "all", allowed={0, 65}, looks=True)
    outcome = play.run("verify", "--from", "exports", allowed={0, 65}, looks=True)
    for key in damaged_objects(_tool(play).objects(PUBLIC)):
        if key not in outcome.output:
            raise Violation(f"verify does not name {key}:\n{outcome.output}")
    play.run("run", "--force", allowed={0, 65})
    _begin_a_chain(play)


KINDS = (
    Kind("export damaged", BACKUP, export_damaged),
    Kind("manifest damaged", BACKUP, manifest_damaged),
    Kind("backup damaged", BACKUP, backup_damaged),
    Kind("upload cut", BACKUP, upload_cut),
    Kind("upload flipped", BACKUP, upload_flipped),
)
