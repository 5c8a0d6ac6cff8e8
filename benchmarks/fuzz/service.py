"""The whole service as a target; every input meets the same state."""

import logging
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from benchmarks.fuzz import world
from functions.hosts.static import Console
from functions.registry import PREFIX
from functions.web.message import Reply, build_request
from shared.ports import InlineKeyWorker
from shared.records import Proof, Role
from shared.validation.csr import KEY_ALGORITHMS
from shared.x509.private_keys import PrivateKey
from tests.support.harness import Client, Service, answer, basic, make_service

_ROWS: Final = "SELECT key, version, body, expires FROM documents"
_LISTENER: Final = "certificates"  # the listener of the broker that proves names
_BY_NAMES: Final = ("/verifyClient/rabbitmq", "/verifyClient/vernemq", "/verifyClient/mosquitto")
_UNFORESEEN: Final = ("unforeseen error", "a client was refused because of")


class Unforeseen(AssertionError):
    """An error that is no refusal, found only in the log."""


class Arena:
    """Two orgs, ours with one entry of each kind. The state is restored after each input that changed it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self.service: Service = make_service(Path(self._folder.name), metrics="off")
        app = self.service.app
        self.service.app = replace(app, context=replace(app.context, key_work=_KnownKey()))
        self.service.other_org(world.OTHER)
        self._operator = self.service.client(Role.OPERATOR)
        self._broker = self.service.client(Role.BROKER)
        self._names = self.service.client(Role.BROKER, proof=Proof.BROKER, listener=_LISTENER)
        self._edge = self.service.client(Role.EDGE)
        for client in (self._operator, self.service.client(Role.OPERATOR, world.OTHER)):
            client.post("/uploadCA", {"certificate": world.root().pem}).ok(201)
            client.post("/uploadCA", {"certificate": world.edwards_root().pem}).ok(201)
        server = world.server()
        fields = {"certificate": server.pem, "privateKey": server.key_pem}
        self.server_id: str = self._operator.post("/uploadServerCert", fields).ok(201)["id"]
        self.csr_id: str = self._operator.post("/generateCSR", {"keyAlgorithm": "P-256"}).ok(201)["id"]
        self.service.flush()
        self._log = _Log()
        self._database = sqlite3.connect(Path(self._folder.name) / "trust.db", check_same_thread=False)
        self._rows = {row[0]: row for row in self._database.execute(_ROWS)}
        self._console = Console()
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def close(self) -> None:
        logging.getLogger().setLevel(self._level)
        self._log.close()
        self._database.close()
        self.service.app.close()
        self._folder.cleanup()

    def run(self, work: Callable[[], object]) -> None:
        """Run *work*. Raises: Unforeseen; AssertionError, if *work* changed a document of another org."""
        try:
            work()
            self.service.flush()
            if self._log.errors:
                raise Unforeseen(self._log.errors[0])
        finally:
            self._log.errors.clear()
            self._restore()

    def _restore(self) -> None:
        now = {row[0]: row for row in self._database.execute(_ROWS)}
        if now == self._rows:
            return
        changed = [key for key in {**now, **self._rows} if now.get(key) != self._rows.get(key)]
        with self._database:
            self._database.execute("DELETE FROM documents")
            self._database.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", self._rows.values())
        strangers = [key for key in changed if not _is_ours(key, now.get(key))]
        assert not strangers, f"documents of other orgs were changed: {strangers}"

    def answer(self, message: bytes) -> Reply:
        """Answer an HTTP request as text: a line `METHOD path?query`, headers, an empty line, the body.

        A request without an Authorization header gets a key of the role that the path requires.
        """
        head, _, body = message.partition(b"\n\n")
        first, *lines = head.decode("latin-1").split("\n")
        method, _, target = first.partition(" ")
        path, _, query = target.partition("?")
        path = path.replace("{server}", self.server_id).replace("{csr}", self.csr_id)
        client = self._client_for(path)
        headers = {"authorization": basic(client.key, client.token), "x-trust-listener": _LISTENER}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        request = build_request(method[:20] or "GET", path or "/", query, headers, body, scheme="https")
        if self._console.answers(request.path):
            return self._console.reply(request)
        return answer(self.service.app, request)

    def _client_for(self, path: str) -> Client:
        path = path.removeprefix(PREFIX)
        if path.startswith(("/edge/", "/v3/")):
            return self._edge
        if path.startswith(_BY_NAMES):
            return self._names
        return self._broker if path.lower().endswith("verifyclient") or "/verifyClient/" in path else self._operator


def _is_ours(key: str, row: tuple[str, str, bytes, int | None] | None) -> bool:
    """Return whether a changed document is ours. Feeds are shared, so an added feed document must be about our org."""
    return world.ORG in key or (key.startswith("feed/") and row is not None and world.OTHER.encode() not in row[2])


class _KnownKey(InlineKeyWorker):
    """Key work that makes no key: parsing finds no primes, so new keys are not worth the time."""

    def make(self, algorithm: str, *, org_id: str) -> PrivateKey:
        return world.key(1005) if algorithm in KEY_ALGORITHMS else super().make(algorithm, org_id=org_id)


class _Log(logging.Handler):
    """Collect the unexpected errors that the service logs."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith(_UNFORESEEN):
            trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            self.errors.append(f"{message}\n{trace}")

    def close(self) -> None:
        logging.getLogger().removeHandler(self)
        super().close()
