"""A local server for the JSON API of Google Cloud Storage.

The server implements the three calls that GcsReader makes, as the reference describes them: objects.get (JSON and
alt=media) and objects.delete, each for one generation. An object with content encoding gzip is decompressed in transit
unless the client accepts gzip ("Transcoding of gzip-compressed files").
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from shared.adapters.gcs_reader import GcsReader


@dataclass
class Stored:
    data: bytes
    encoding: str = ""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass
class GcsServer:
    api: str = ""
    objects: dict[tuple[str, str, str], Stored] = field(default_factory=dict)  # bucket, name, generation
    asked: list[str] = field(default_factory=list)
    fails_with: int | None = None

    def put(self, bucket: str, name: str, data: bytes, *, encoding: str = "") -> str:
        """Store a new generation. Return its number."""
        generation = str(1_743_752_582_769_318 + len(self.objects))
        self.objects[bucket, name, generation] = Stored(data, encoding)
        return generation

    def live(self, bucket: str, name: str, generation: str | None) -> tuple[str, Stored] | None:
        generations = [(g, stored) for (b, n, g), stored in self.objects.items() if (b, n) == (bucket, name)]
        matching = [entry for entry in generations if generation in (None, entry[0])]
        return matching[-1] if matching else None

    def reader(self) -> GcsReader:
        import requests

        return GcsReader(connect=requests.Session, api=self.api)


@contextmanager
def serving() -> Iterator[GcsServer]:
    gcs = GcsServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _find(self) -> tuple[str, str, str, Stored, dict[str, list[str]]] | None:
            gcs.asked.append(f"{self.command} {self.path}")
            parts = urlsplit(self.path)
            _, _, _, _, bucket, o, name = parts.path.split("/", 6)
            assert o == "o"
            query = parse_qs(parts.query)
            entry = gcs.live(unquote(bucket), unquote(name), query.get("generation", [None])[0])
            if gcs.fails_with:
                self._answer(gcs.fails_with)
                return None
            if entry is None or "/" in name:
                self._answer(404, b'{"error": {"code": 404}}')
                return None
            return unquote(bucket), unquote(name), entry[0], entry[1], query

        def do_GET(self) -> None:
            if (match := self._find()) is None:
                return
            bucket, name, generation, stored, query = match
            if query.get("alt") != ["media"]:
                metadata = {
                    "bucket": bucket,
                    "name": name,
                    "generation": generation,
                    "size": str(len(stored.data)),
                    "timeCreated": stored.at.isoformat().replace("+00:00", "Z"),
                    "etag": "x",
                }
                self._answer(200, json.dumps(metadata).encode(), {"Content-Type": "application/json"})
            elif stored.encoding and "gzip" not in self.headers.get("Accept-Encoding", ""):
                self._answer(200, gzip.decompress(stored.data))
            else:
                self._answer(200, stored.data, {"Content-Encoding": stored.encoding} if stored.encoding else None)

        def do_DELETE(self) -> None:
            if (match := self._find()) is not None:
                del gcs.objects[match[0], match[1], match[2]]
                self._answer(204)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    gcs.api = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield gcs
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
