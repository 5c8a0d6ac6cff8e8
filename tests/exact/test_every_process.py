"""A change is in force at the next connection in every process, also where a process remembers the verdict."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from functions.registry import PREFIX
from shared.composition import App, build
from shared.config import DynamoDB, Firestore, Settings, SQLite
from shared.ports import RunAtOnce
from shared.records import Role
from shared.usecases.orgs.api_keys import create_key, revoke_key
from shared.usecases.orgs.default_certificate import ensure_default
from shared.usecases.orgs.organizations import create_org, set_suspended
from tests.support import certs
from tests.support.harness import DOMAIN, basic
from tests.support.server import Server, start
from tests.support.stores import Place

ORG = "mtxpd0"
DENY_LIST, CAS, POLICY = "/authorization/denylist", "/authentication/cacertificates", "/authorization/connectionpolicy"


def store_setting(place: Place) -> str:
    match place:
        case SQLite(path):
            return f"sqlite:///{path}"
        case Firestore(project, database, _):
            return f"firestore://{project}/{database}"
        case DynamoDB(table, region, _):
            return f"dynamodb://{table}?region={region}"


class Processes:
    """Two servers on one store, and the certificates of a device that both know."""

    def __init__(self, app: App, servers: list[Server]) -> None:
        self.app, self.servers = app, servers
        now = datetime.now(UTC)
        first, last = now - timedelta(days=1), now + timedelta(days=1)
        self.root = certs.ca("Root", not_before=first, not_after=last)
        self.leaf = certs.leaf("d:thermo:42", self.root, not_before=first, not_after=last)
        self.operator = basic(*self._key(Role.OPERATOR))
        self.renew_broker()
        self.ca_id = self.call(0, "POST", CAS, {"certificate": self.root.pem})["id"]

    def _key(self, role: Role) -> tuple[str, str]:
        key, token = create_key(self.app.context, org_id=ORG, role=role)
        return key.key, token

    def renew_broker(self) -> None:
        self.broker_key, token = self._key(Role.BROKER)
        self.broker = basic(self.broker_key, token)

    def call(
        self, number: int, method: str, path: str, fields: Any = None, *, authorization: str | None = None
    ) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Authorization": authorization or self.operator}
        body = None if fields is None else json.dumps(fields).encode()
        url = self.servers[number].url + PREFIX + path
        request = urllib.request.Request(url, body, headers, method=method)
        if method == "PUT":
            request.add_header("If-Match", "*")
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return dict(json.loads(reply.read() or b"{}"))
        except urllib.error.HTTPError as error:
            return dict(json.loads(error.read()))

    def ask(self, number: int) -> str:
        """Return the code of one server's verdict on the device."""
        client = {"serverName": f"{ORG}.messaging.{DOMAIN}", "clientId": f"d:{ORG}:thermo:42"}
        fields = {**client, "certificate": self.leaf.pem}
        code: str = self.call(number, "POST", "/authorization/verifyclient", fields, authorization=self.broker)["code"]
        return code

    def check(self, change: Callable[[], object], code: str, undo: Callable[[], object]) -> None:
        """Change, and undo the change. Each process answers differently at the very next question."""
        assert [self.ask(number) for number in (0, 1, 0, 1)] == ["allowed"] * 4
        change()
        assert [self.ask(1), self.ask(0)] == [code, code]
        undo()
        assert [self.ask(1), self.ask(0)] == ["allowed", "allowed"]


@pytest.fixture
def processes(tmp_path: Path, place: Place) -> Iterator[Processes]:
    keys = tmp_path / "keys"
    environment = {
        "TRUST_STORE": store_setting(place),
        "TRUST_KEYS": f"local:{keys}",
        "TRUST_DOMAIN": DOMAIN,
        "TRUST_LOG": "WARNING",
    }
    settings = Settings.from_env({"TRUST_DATA": str(tmp_path), **environment})
    app = build(replace(settings, store=place), background=RunAtOnce())  # with the patience of a test
    ensure_default(app.context, app.sealer)
    create_org(app.context, ORG)
    servers: list[Server] = []
    try:
        for number in range(2):
            servers.append(start(tmp_path / f"data{number}", log=None, module=("functions.local",), **environment))
        yield Processes(app, servers)
    finally:
        for server in servers:
            server.stop()
        app.close()


def test_a_change_is_in_force_at_the_next_connection_in_every_process(processes: Processes) -> None:
    """Each change is made in another process than the one that is asked first."""
    call, context = processes.call, processes.app.context
    entries = (
        {"kind": "fingerprint", "value": processes.leaf.fingerprint},
        {"kind": "identity", "value": "d:thermo:42"},
        {"kind": "key", "certificate": processes.leaf.pem},
        {"certificate": processes.root.pem},
    )
    for entry in entries:
        denied = partial(call, 0, "POST", DENY_LIST, entry)
        # A repetition changes nothing and returns the entry
        processes.check(denied, "certificate_revoked", lambda: call(0, "DELETE", f"{DENY_LIST}/{denied()['id']}"))  # noqa: B023
    path = f"{CAS}/{processes.ca_id}"
    processes.check(
        lambda: call(0, "PUT", path, {"status": "inactive"}),
        "no_trusted_ca",
        lambda: call(0, "PUT", path, {"status": "active"}),
    )
    processes.check(
        lambda: call(0, "DELETE", path),
        "no_trusted_ca",
        lambda: call(0, "POST", CAS, {"certificate": processes.root.pem}),
    )
    processes.check(
        lambda: call(0, "PUT", POLICY, {"default": "TLS with Token and Client Certificate Authentication"}),
        "token_required",
        lambda: call(0, "PUT", POLICY, {"default": "TLS with Client Certificate Authentication"}),
    )
    processes.check(
        lambda: set_suspended(context, ORG, True),
        "org_suspended",
        lambda: set_suspended(context, ORG, False),
    )
    processes.check(lambda: revoke_key(context, processes.broker_key), "not_authenticated", processes.renew_broker)
