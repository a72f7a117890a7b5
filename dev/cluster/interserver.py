"""Part exchange between replicas: what the others ask the interserver port for.

Protocol version 3 of ClickHouse's DataPartsExchange: size, TTL information, kind of part, files
with their checksums. A newer replica speaks it, too, when the cookie of the answer says so.
"""

import contextlib
import http.server
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl, urlsplit

from dev.cluster.cityhash import PIECE, chained
from dev.cluster.faults import Faults
from dev.embedded_clickhouse import sql
from dev.embedded_clickhouse.blocks import text
from dev.embedded_clickhouse.engine import Engine

_VERSION = "server_protocol_version=3"
_NO_TTL = "ttl format version: 1\n{}"
_LOCAL_FILES = {"txn_version.txt"}


class Interserver(http.server.ThreadingHTTPServer):
    """Serves the parts of one engine.

    Args:
        port: on 127.0.0.1.
        engine: whose parts they are.
        faults: the file with what goes wrong.
    """

    daemon_threads = True

    def __init__(self, port: int, engine: Engine, faults: Path) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.engine = engine
        self.faults = faults


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Interserver

    def do_POST(self) -> None:
        """Answer a request for a part."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wait = Faults.load(self.server.faults).serve_parts_after
        if wait < 0:
            self.send_error(500, "injected")
            return
        time.sleep(wait)
        asked = dict(parse_qsl(urlsplit(self.path).query))
        replica = asked.get("endpoint", "").removeprefix("DataPartsExchange:")
        part = _part(self.server.engine, replica, asked.get("part", ""))
        if part is None:
            self.send_error(404, "no such part")
            return
        # A part that is merged away meanwhile: the other one asks somebody again.
        with contextlib.suppress(OSError):
            self._send(*part)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def _send(self, folder: Path, kind: str) -> None:
        with contextlib.ExitStack() as opened:
            names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
            files = {
                name: opened.enter_context((folder / name).open("rb"))
                for name in names
                if name not in _LOCAL_FILES
            }
            sizes = {name: os.fstat(file.fileno()).st_size for name, file in files.items()}
            head = struct.pack("<Q", sum(sizes.values())) + text(_NO_TTL) + text(kind)
            head += struct.pack("<Q", len(files))
            frames = sum(len(text(name)) + 8 + size + 16 for name, size in sizes.items())
            self.send_response(200)
            self.send_header("Set-Cookie", _VERSION)
            self.send_header("Content-Length", str(len(head) + frames))
            self.end_headers()
            self.wfile.write(head)
            for name, file in files.items():
                self.wfile.write(text(name) + struct.pack("<Q", sizes[name]))
                self.wfile.write(chained(self._copied(file, sizes[name])))

    def _copied(self, file: BinaryIO, size: int) -> Iterator[bytes]:
        """Send the file while its pieces are hashed."""
        while size and (piece := file.read(min(PIECE, size))):
            self.wfile.write(piece)
            yield piece
            size -= len(piece)


def _part(engine: Engine, replica: str, name: str) -> tuple[Path, str] | None:
    """Return folder and kind of a part of the table that is this replica in ZooKeeper."""
    query = f"""
        SELECT path, part_type FROM system.parts
        WHERE name = {sql.quote_string(name)} AND (database, table) IN (
            SELECT database, table FROM system.replicas
            WHERE replica_path = {sql.quote_string(replica)}
        )
    """  # noqa: S608 - quoted
    rows = engine.ask(query)
    return (Path(rows[0][0]), rows[0][1]) if rows else None
