"""The requests of the agent of version 0.1.0 under these functions, and a backup that is restored, over HTTP."""

import base64
import http.client
import json
import shutil
import signal
import sqlite3
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.composition import build
from shared.config import Settings, SQLite
from shared.records import Role
from shared.usecases.orgs.api_keys import create_key
from tests.support import server as servers

STORED = Path(__file__).parent.parent / "data" / "stored-0.1.0"
EXPECTED: dict[str, Any] = json.loads((STORED / "expected.json").read_text(encoding="utf-8"))


@dataclass
class Api:
    """A client of a running server with one API key, `key:token`."""

    url: str
    key: str

    def send(self, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode())
        request.add_header("Authorization", "Basic " + base64.b64encode(self.key.encode()).decode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def deny(self, identity: str) -> None:
        self.send("/api/v0002/authorization/denylist", {"kind": "identity", "value": identity})


@contextmanager
def running(data: Path) -> Iterator[servers.Server]:
    server = servers.start(data, TRUST_EDGE_PLAIN="loopback", TRUST_DOMAIN="example.com")
    try:
        yield server
    finally:
        server.stop()


def edge_key(data: Path) -> str:
    with closing(build(Settings(data=data, domain="example.com", store=SQLite(data / "trust.db")))) as app:
        key, token = create_key(app.context, org_id=None, role=Role.EDGE)
    return f"{key.key}:{token}"


def copy(source: Path, target: Path) -> None:
    """Copy a database whose server does not run."""
    with closing(sqlite3.connect(source)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in (target, target.with_name(target.name + "-wal"), target.with_name(target.name + "-shm")):
        name.unlink(missing_ok=True)
    shutil.copy(source, target)


def test_an_agent_of_the_version_before_goes_on(tmp_path: Path) -> None:
    """Its state folder has heads without ids: nothing is missed, and no list of all hosts comes."""
    data = tmp_path / "data"
    shutil.copytree(STORED, data)
    for key in (data / "keys").iterdir():
        key.chmod(0o600)
    with running(data) as server:
        names = {name: f"{key['key']}:{key['token']}" for name, key in EXPECTED["keys"].items()}
        agent, operator = Api(server.url, names["edge"]), Api(server.url, names["operator"])
        hosts_head, head = EXPECTED["edge"]["hosts"]["head"], EXPECTED["edge"]["withdrawals"]["head"]
        page = agent.send(f"/edge/v1/hosts?since={hosts_head}")
        assert (page["full"], page["hosts"]) == (False, [])
        page = agent.send(f"/edge/v1/withdrawals?since={head}")
        assert (page["missed"], page["withdrawals"]) == (False, [])
        operator.deny("d:thermo:9999")
        page = agent.send(f"/edge/v1/withdrawals?since={page['head']}")
        assert page["missed"] is False
        assert [(line["kind"], line["value"]) for line in page["withdrawals"]] == [("identity", "d:thermo:9999")]
        page = agent.send(f"/edge/v1/withdrawals?since={page['head']}")
        assert (page["missed"], page["withdrawals"]) == (False, [])


def test_an_edge_notices_a_restored_backup(tmp_path: Path) -> None:
    """The store is copied back, and goes on until its feeds have passed the numbers that the edge knows."""
    data, backup = tmp_path / "data", tmp_path / "backup.db"
    with running(data) as server:
        operator_key = server.keys["operator"]
    key = edge_key(data)
    copy(data / "trust.db", backup)
    with running(data) as server:
        edge, operator = Api(server.url, key), Api(server.url, operator_key)
        for number in range(3):
            operator.deny(f"d:thermo:{number}")
        head = edge.send("/edge/v1/withdrawals")["head"]
        hosts = edge.send("/edge/v1/hosts")
    copy(backup, data / "trust.db")
    with running(data) as server:
        edge, operator = Api(server.url, key), Api(server.url, operator_key)
        assert edge.send(f"/edge/v1/withdrawals?since={head}")["missed"], "the edge is ahead"
        for number in range(4):
            operator.deny(f"d:pump:{number}")
        page = edge.send(f"/edge/v1/withdrawals?since={head}")
        assert page["missed"], "the store has a line of that number, of another history"
        assert edge.send(f"/edge/v1/withdrawals?since={page['head']}")["missed"] is False
        again = edge.send(f"/edge/v1/hosts?since={hosts['head']}")
        assert again["full"] is False, "no host changed: the beginning of both histories is the same"


def test_a_kill_between_a_change_and_its_line_loses_no_withdrawal(tmp_path: Path) -> None:
    """The server dies before the line is in the feed. The server's next start brings the line."""
    data = tmp_path / "data"
    server = servers.start(data, module=("tests.support.killed_server",))
    operator_key = server.keys["operator"]
    with pytest.raises((OSError, http.client.HTTPException)):
        Api(server.url, operator_key).deny("d:thermo:1")
    assert server.process.wait(30) == -signal.SIGKILL
    server.output.close()
    key = edge_key(data)
    with running(data) as again:
        [entry] = Api(again.url, operator_key).send("/api/v0002/authorization/denylist")["results"]
        assert entry["value"] == "d:thermo:1"
        page = Api(again.url, key).send("/edge/v1/withdrawals?since=0")
        assert [(line["kind"], line["value"]) for line in page["withdrawals"]] == [("identity", "d:thermo:1")]
