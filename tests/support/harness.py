"""The whole service in the test's process: real functions, real rules, a real store. Only HTTP is left out.

service.client("operator").post("/authentication/cacertificates", {"certificate": root.pem})
"""

import base64
import json
import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from functions.dispatch import Dispatcher
from functions.registry import PREFIX
from functions.web.message import Reply, Request
from shared.composition import VERDICT_SECONDS, App, build
from shared.config import Settings, SQLite
from shared.ports import Document, DocumentStore, Key, RunAtOnce, Version
from shared.records import Role
from shared.usecases.orgs.api_keys import create_key
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.organizations import create_org
from tests.support.certs import NOON

DOMAIN = "example.com"


class Clock:
    """A clock that returns the same time until a test moves it."""

    def __init__(self, at: datetime = NOON) -> None:
        self.now = at

    def __call__(self) -> datetime:
        return self.now


class CountingStore:
    """Pass every call on to the real store, and count the calls by name.

    *between* runs instead of each call. Its arguments are the call's name, the key to write or None, and the call
    itself, which *between* may make or leave out.
    """

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.between: Callable[[str, Key | None, Callable[[], Any]], Any] = lambda name, key, call: call()

    def _pass_on(self, name: str, key: Key | None, call: Callable[[], Any]) -> Any:
        with self._lock:
            self.calls[name] += 1
        return self.between(name, key, call)

    def get_many(self, keys: Collection[Key]) -> dict[Key, Document]:
        documents: dict[Key, Document] = self._pass_on("get_many", None, lambda: self._store.get_many(keys))
        return documents

    def put(
        self, key: Key, body: Mapping[str, Any], *, expected: Version | None, expires: datetime | None = None
    ) -> Version:
        version: Version = self._pass_on(
            "put", key, lambda: self._store.put(key, body, expected=expected, expires=expires)
        )
        return version

    def delete(self, key: Key, *, expected: Version) -> None:
        self._pass_on("delete", key, lambda: self._store.delete(key, expected=expected))

    def list(self, partition: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        documents: Sequence[Document] = self._pass_on(
            "list", None, lambda: self._store.list(partition, after=after, limit=limit)
        )
        return documents

    def close(self) -> None:
        self._store.close()


@dataclass(frozen=True)
class Answer:
    """A reply, with accessors for tests."""

    reply: Reply

    @property
    def status(self) -> int:
        return self.reply.status

    @property
    def json(self) -> Any:
        return json.loads(self.reply.body)

    @property
    def text(self) -> str:
        return self.reply.body.decode()

    @property
    def code(self) -> str:
        """Return the code of a problem document or verdict."""
        code: str = self.json["code"]
        return code

    @property
    def etag(self) -> str:
        return self.reply.headers["ETag"]

    def ok(self, status: int = 200) -> Any:
        """Return the JSON of a reply that must have *status*."""
        assert self.status == status, f"{self.status}: {self.text}"
        return self.json if self.reply.body else None


@dataclass(frozen=True)
class Client:
    """One caller. Paths are relative to the API's prefix; a path that begins with `//` is relative to the root."""

    app: App
    key: str = ""
    token: str = field(default="", repr=False)
    scheme: str = "https"
    peer: str = "192.0.2.7"

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        sent = {"content-type": "application/json", **(headers or {})}
        if self.key:
            sent["authorization"] = basic(self.key, self.token)
        whole = path[1:] if path.startswith("//") else PREFIX + path
        whole, _, inline = whole.partition("?")
        pairs = dict(pair.split("=", 1) for pair in inline.split("&") if pair)
        request = Request(method, whole, {**pairs, **(query or {})}, sent, body, scheme=self.scheme, peer=self.peer)
        return Answer(answer(self.app, request))

    def get(self, path: str, **more: Any) -> Answer:
        return self.send("GET", path, **more)

    def post(self, path: str, fields: Any, **more: Any) -> Answer:
        return self.send("POST", path, json.dumps(fields).encode(), **more)

    def put(self, path: str, fields: Any, *, version: str | None = "*", **more: Any) -> Answer:
        headers = {} if version is None else {"if-match": version}
        return self.send("PUT", path, json.dumps(fields).encode(), headers=headers, **more)

    def delete(self, path: str, *, version: str | None = None, **more: Any) -> Answer:
        return self.send("DELETE", path, headers={} if version is None else {"if-match": version}, **more)

    def form(self, path: str, fields: Mapping[str, str | bytes], *, method: str = "POST") -> Answer:
        """Send multipart/form-data. Values of type bytes are sent as files."""
        content_type, body = multipart(fields)
        return self.send(method, path, body, headers={"content-type": content_type})


def answer(app: App, request: Request) -> Reply:
    """Answer *request* as a process with every function does."""
    return Dispatcher(lambda: app).dispatch(request)


def basic(key: str, token: str) -> str:
    return "Basic " + base64.b64encode(f"{key}:{token}".encode()).decode()


def multipart(fields: Mapping[str, str | bytes]) -> tuple[str, bytes]:
    """Return (content type, body) of multipart/form-data, as curl -F encodes the fields."""
    mark = "------------------------d74496d66958873e"
    parts = []
    for name, value in fields.items():
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(value, bytes):
            head += f'; filename="{name}.pem"\r\nContent-Type: application/octet-stream'
        data = value if isinstance(value, bytes) else value.encode()
        parts.append(head.encode() + b"\r\n\r\n" + data + b"\r\n")
    return f"multipart/form-data; boundary={mark}", b"".join(parts) + f"--{mark}--\r\n".encode()


@dataclass
class Service:
    """The service with one organization."""

    app: App
    clock: Clock
    store: CountingStore
    org_id: str = "mtxpd0"

    def client(self, role: Role | str, org_id: str | None = None, **more: Any) -> Client:
        """Return a client with a new key of *role*, of the service's organization or of *org_id*."""
        key, token = create_key(self.app.context, org_id=org_id or self.org_id, role=Role(role), **more)
        return Client(self.app, key.key, token)

    def platform(self, role: Role | str = Role.BROKER, **more: Any) -> Client:
        key, token = create_key(self.app.context, org_id=None, role=Role(role), **more)
        return Client(self.app, key.key, token)

    def other_org(self, org_id: str = "other1") -> str:
        create_org(self.app.context, org_id)
        return org_id

    @property
    def anonymous(self) -> Client:
        return Client(self.app)

    def host(self, org_id: str | None = None) -> str:
        return f"{org_id or self.org_id}.messaging.{self.app.context.platform_domain}"

    def flush(self) -> None:
        """Write the queued usage, connection events and activity now."""
        self.app.queue.flush()


def make_service(folder: Path, *, at: datetime = NOON, in_time: bool = False, **settings: Any) -> Service:
    """Return a service with the org `mtxpd0` and the default certificate, on an empty store.

    *settings* may name the store; the default is SQLite in *folder*. With *in_time*, verdicts have the time limit of
    the product; without it a minute, so that a busy machine fails no test.
    """
    clock = Clock(at)
    counting: list[CountingStore] = []

    def wrap(store: DocumentStore) -> DocumentStore:
        counting.append(CountingStore(store))
        return counting[0]

    defaults: dict[str, Any] = {"domain": DOMAIN, "rate_per_minute": 1_000_000, "store": SQLite(folder / "trust.db")}
    chosen = Settings(data=folder, **{**defaults, **settings})
    app = build(
        chosen,
        clock=clock,
        wrap=wrap,
        queue_pause=3600,  # a test writes the queue with flush()
        background=RunAtOnce(),
        verdict_seconds=VERDICT_SECONDS if in_time else 60,
    )
    service = Service(app, clock, counting[0])
    ensure_default(app.context, app.sealer)
    create_org(app.context, service.org_id)
    return service


def make_current_service(folder: Path, **settings: Any) -> Service:
    """Return a service at the machine's own time, for certificates that openssl has just made."""
    return make_service(folder, at=datetime.now(UTC), **settings)
