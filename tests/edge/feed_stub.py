"""An edgeFeed that tests can make say anything; over real HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class FeedStub:
    """*hosts*: server name -> (version, PEM chain, PEM key); each change is a line of *changes*."""

    port: int = 0
    hosts: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)  # hosts whose key cannot be handed out now
    down: bool = False
    page: int = 500
    fetched: list[str] = field(default_factory=list)
    served: dict[str, str] = field(default_factory=dict)
    withdrawn: list[dict[str, str]] = field(default_factory=list)
    missed: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, version: str, chain: str, key: str) -> None:
        self.hosts[name] = (version, chain, key)
        self.changes.append(name)

    def remove(self, name: str) -> None:
        del self.hosts[name]
        self.changes.append(name)

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(path)
        if self.down:
            return 503, {"detail": "down"}
        if parts.path == "/edge/v1/hosts":
            return 200, self._page(parse_qs(parts.query).get("since", [""])[0])
        if parts.path == "/edge/v1/served":
            self.served.update({one["serverName"]: one["version"] for one in body["hosts"]})
            return 200, {"taken": len(body["hosts"]), "stale": []}
        if parts.path == "/edge/v1/withdrawals":
            return 200, self._withdrawals(parse_qs(parts.query).get("since", [""])[0])
        name = unquote(parts.path.rpartition("/")[2])
        self.fetched.append(name)
        if name in self.failing:
            return 503, {"detail": "the seal does not open"}
        if name not in self.hosts:
            return 404, {"detail": "none"}
        version, chain, key = self.hosts[name]
        return 200, {"serverName": name, "org": "x", "version": version, "certificate": chain, "privateKey": key}

    def _withdrawals(self, since: str) -> Any:
        told = self.withdrawn[int(since or len(self.withdrawn)) :][: self.page]
        head = int(since) + len(told) if since else len(self.withdrawn)
        more = head < len(self.withdrawn)
        missed, self.missed = self.missed, False
        return {"head": str(head), "withdrawals": told, "more": more, "missed": missed}

    def _page(self, since: str) -> Any:
        everything = not since or since.startswith("all")
        if everything:
            start = int(since[3:] or 0) if since else 0
            names = sorted(self.hosts)[start : start + self.page]
            more = start + self.page < len(self.hosts)
            head = f"all{start + self.page}" if more else str(len(self.changes))
            first = not since
        else:
            changed = self.changes[int(since) : int(since) + self.page]
            names, first = list(dict.fromkeys(changed)), False
            head = str(int(since) + len(changed))
            more = int(head) < len(self.changes)
        hosts = [
            {"serverName": one, "org": "x", "version": self.hosts.get(one, ("",))[0], "removed": one not in self.hosts}
            for one in names
        ]
        return {"head": head, "hosts": hosts, "more": more, "full": everything, "first": first}


@contextmanager
def running(stub: FeedStub) -> Iterator[FeedStub]:
    """Answer until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: Any) -> None:
            status, found = stub.answer(self.path, body)
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    stub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
