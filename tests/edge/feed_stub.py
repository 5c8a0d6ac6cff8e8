"""A stub of edgeFeed over HTTP, whose responses the tests control."""

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
    """A stub of edgeFeed.

    Attributes:
        hosts: version, chain (PEM) and private key (PEM) by server name.
        changes: the server name of each change, in order.
        failing: server names whose key material is not available.
        down: whether every response is a 503.
        page: the largest number of entries of a page.
        fetched: the server names whose key material was requested.
        served: the reported version by server name.
        withdrawals: the withdrawals, in order.
        missed: whether the next page of withdrawals has `missed`.
        history: the id in every head. A head with another id is answered with everything, and with `missed`.
        rechecked: the sessions of each question, by question.
        refused: the names of the sessions that would be refused now; None: the version before, without this question.
        recheck_answers: cleared: a question waits for an answer.
    """

    port: int = 0
    hosts: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    down: bool = False
    page: int = 500
    fetched: list[str] = field(default_factory=list)
    served: dict[str, str] = field(default_factory=dict)
    withdrawals: list[dict[str, str]] = field(default_factory=list)
    missed: bool = False
    history: str = "a1"
    rechecked: list[list[dict[str, Any]]] = field(default_factory=list)
    refused: set[str] | None = None
    recheck_answers: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.recheck_answers.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, name: str, version: str, chain: str, key: str) -> None:
        self.hosts[name] = (version, chain, key)
        self.changes.append(name)

    def remove(self, name: str) -> None:
        del self.hosts[name]
        self.changes.append(name)

    def respond(self, path: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(path)
        if self.down:
            return 503, {"detail": "down"}
        if parts.path == "/edge/v1/hosts":
            return 200, self._list_hosts(parse_qs(parts.query).get("since", [""])[0])
        if parts.path == "/edge/v1/served":
            self.served.update({host["serverName"]: host["version"] for host in body["hosts"]})
            return 200, {"taken": len(body["hosts"]), "stale": []}
        if parts.path == "/edge/v1/withdrawals":
            return 200, self._list_withdrawals(parse_qs(parts.query).get("since", [""])[0])
        if parts.path == "/edge/v1/recheck":
            return self._recheck(body["sessions"])
        name = unquote(parts.path.rpartition("/")[2])
        self.fetched.append(name)
        if name in self.failing:
            return 503, {"detail": "the seal does not open"}
        if name not in self.hosts:
            return 404, {"detail": "none"}
        version, chain, key = self.hosts[name]
        return 200, {"serverName": name, "org": "x", "version": version, "certificate": chain, "privateKey": key}

    def _recheck(self, sessions: list[dict[str, Any]]) -> tuple[int, Any]:
        self.rechecked.append(sessions)
        self.recheck_answers.wait(30)
        if self.refused is None:
            return 404, {"detail": "none"}
        return 200, {"end": [session["session"] for session in sessions if session["session"] in self.refused]}

    def _list_withdrawals(self, since: str) -> Any:
        number, _, history = since.partition(".")
        is_other = bool(since) and history != self.history
        start = int(number) if since and not is_other else len(self.withdrawals)
        entries = self.withdrawals[start:][: self.page]
        head = start + len(entries)
        has_more = head < len(self.withdrawals)
        missed, self.missed = self.missed or is_other, False
        return {"head": f"{head}.{self.history}", "withdrawals": entries, "more": has_more, "missed": missed}

    def _list_hosts(self, since: str) -> Any:
        cursor, _, history = since.rpartition(".")
        if history != self.history:  # no cursor, or a cursor of another history
            since = cursor = ""
        is_full = not since or cursor.startswith("all")
        if is_full:
            start = int(cursor[3:] or 0) if cursor else 0
            names = sorted(self.hosts)[start : start + self.page]
            has_more = start + self.page < len(self.hosts)
            head = f"all{start + self.page}" if has_more else str(len(self.changes))
            is_first = not since
        else:
            changed = self.changes[int(cursor) : int(cursor) + self.page]
            names, is_first = list(dict.fromkeys(changed)), False
            head = str(int(cursor) + len(changed))
            has_more = int(head) < len(self.changes)
        head = f"{head}.{self.history}"
        hosts = [
            {
                "serverName": name,
                "org": "x",
                "version": self.hosts.get(name, ("",))[0],
                "removed": name not in self.hosts,
            }
            for name in names
        ]
        return {"head": head, "hosts": hosts, "more": has_more, "full": is_full, "first": is_first}


@contextmanager
def running(stub: FeedStub) -> Iterator[FeedStub]:
    """Run the stub's HTTP server within the block."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._respond(None)

        def do_POST(self) -> None:
            self._respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _respond(self, body: Any) -> None:
            status, document = stub.respond(self.path, body)
            data = json.dumps(document).encode()
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
