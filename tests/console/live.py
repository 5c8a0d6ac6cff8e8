"""The service on a port of this machine, for a real browser."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from cryptography import x509
from msgspec.structs import replace
from playwright.sync_api import Page

from functions.hosts.asgi import Application
from shared.connection_records import ConnectionEvent
from shared.usecases.devices.usage import add_batches, summarize
from shared.validation.policy import Presence
from tests.support.certs import DAY, YEAR, Issued, ca, key, leaf, server
from tests.support.harness import Client, Service, make_current_service


@dataclass(frozen=True)
class Live:
    """A running service and its address."""

    service: Service
    url: str
    operator: Client
    viewer: Client

    @property
    def console(self) -> str:
        return f"{self.url}/console/"

    @property
    def host(self) -> str:
        return self.service.host()

    def records(self, path: str) -> list[dict[str, Any]]:
        """Return the stored records, as the API lists them."""
        records: list[dict[str, Any]] = self.operator.get(path).ok()["results"]
        return records

    @property
    def cas(self) -> list[dict[str, Any]]:
        return self.records("/authentication/cacertificates")

    @property
    def servers(self) -> list[dict[str, Any]]:
        return self.records("/authentication/servercertificates")

    def add_ca(self, issued: Issued, comments: str = "") -> dict[str, Any]:
        body = {"certificate": issued.pem, "comments": comments}
        record: dict[str, Any] = self.operator.post("/authentication/cacertificates", body).ok(201)
        return record

    def add_server(self, issued: Issued, comments: str = "") -> dict[str, Any]:
        body = {"certificate": issued.pem, "privateKey": issued.key_pem, "comments": comments}
        record: dict[str, Any] = self.operator.post("/authentication/servercertificates", body).ok(201)
        return record

    def connect(self, issued: Issued, client_id: str, broker: Client, **more: Any) -> dict[str, Any]:
        """Connect a device: send the request of its broker."""
        body = {"serverName": self.host, "clientId": client_id, "certificate": issued.pem, **more}
        verdict: dict[str, Any] = broker.post("/authorization/verifyclient", body).ok()
        self.service.flush()
        return verdict


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Live]:
    """Run the service on a free port, and stop it at the end."""
    service = make_current_service(folder, **settings)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(Application(service.app), log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()  # the socket is already listening, so an early request waits
    try:
        port = listener.getsockname()[1]
        yield Live(service, f"http://127.0.0.1:{port}", service.client("operator"), service.client("viewer"))
    finally:
        server.should_exit = True
        server.force_exit = True  # a browser keeps its connections open
        thread.join(10)
        listener.close()
        service.app.close()


def record(live: Live, *, hours: int = 0, **codes: int) -> None:
    """Record connections of some hours ago: how many with each code."""
    at = now() - timedelta(hours=hours)
    events = [
        ConnectionEvent(
            org_id=live.service.org_id,
            at=at,
            decision="allow" if code == "allowed" else "deny",
            code=code,
            tls=True,
            presence=Presence.VALID,
        )
        for code, count in codes.items()
        for _ in range(count)
    ]
    batch = summarize(live.service.org_id, events)
    numbers = replace(batch, refusals=(), refused=0)  # the list of refusals has connections that were judged
    add_batches(live.service.app.context.repository, live.service.org_id, [numbers])


def choose(page: Page, action: str, name: str) -> None:
    """Choose an action in the menu of the first row that is called *name*."""
    page.get_by_role("button", name=f"Actions for {name}").first.click()
    page.get_by_role("button", name=f"{action} {name}").click()


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def root(common_name: str | x509.Name = "Factory Root", *, days: float = 3650, **more: Any) -> Issued:
    """Issue a CA certificate that is valid from yesterday and ends in *days*."""
    begins = min(now() - DAY, now() + days * DAY - DAY)
    return ca(common_name, not_before=begins, not_after=now() + days * DAY, **more)


def device(issuer: Issued, name: str = "d:thermo:42", *, days: float = 365, **more: Any) -> Issued:
    begins = min(now() - DAY, now() + days * DAY - DAY)
    return leaf(name, issuer, not_before=begins, not_after=now() + days * DAY, **more)


def server_cert(host: str, signer: Issued | None = None, *, number: int = 7, days: float = 365, **more: Any) -> Issued:
    begins = min(now() - DAY, now() + days * DAY - DAY)
    private = more.pop("private", None) or key("P-256", 700 + number)
    return server(host, signer, private=private, not_before=begins, not_after=now() + days * DAY, **more)


__all__ = ["DAY", "YEAR", "Live", "choose", "device", "now", "record", "root", "running", "server_cert"]
