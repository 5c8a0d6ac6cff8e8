"""Documents that the version before stored: this version reads each of them and gives the same answers.

`tests/data/stored-0.1.0` is a data folder of version 0.1.0: a SQLite store, its master key, and the answers that 0.1.0
gave. The folder holds every kind of document: CA certificates (active, inactive, denied, two of one name), server
certificates (default, uploaded, requested, fulfilled, renewed), settings, policy, deny list, API keys, usage,
activity, both feeds. The documents that expire do so in the year 2100.
"""

import copy
import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from shared.composition import App, build
from shared.config import Settings, SQLite
from shared.usecases.callers import label_key
from shared.usecases.edges.hosts import HostFeed
from shared.usecases.jobs.maintenance import sweep_org
from shared.usecases.jobs.reseal import reseal
from shared.usecases.orgs.organizations import get_org
from shared.version import VERSION
from tests.support.harness import DOMAIN, Client, Clock

pytestmark = pytest.mark.stores("sqlite")

STORED = Path(__file__).parent / "data" / "stored-0.1.0"
EXPECTED: dict[str, Any] = json.loads((STORED / "expected.json").read_text(encoding="utf-8"))
ORG = "mtxpd0"
ADDED: dict[str, dict[str, Any]] = {  # fields that this version added
    "/authorization/connectionpolicy": {"unnamedCertificates": "deny"},
    "/session": {"version": VERSION},
}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """The service on a copy of the stored folder, at the time of the expected answers."""
    folder = tmp_path / "data"
    shutil.copytree(STORED, folder)
    for key in (folder / "keys").iterdir():
        key.chmod(0o600)  # git keeps no such mode
    settings = Settings(data=folder, domain=DOMAIN, rate_per_minute=1_000_000, store=SQLite(folder / "trust.db"))
    clock = Clock(datetime.fromisoformat(EXPECTED["at"]))
    made = build(settings, clock=clock, queue_pause=3600, verdict_seconds=60)
    yield made
    made.close()


def client(app: App, name: str) -> Client:
    return Client(app, EXPECTED["keys"][name]["key"], EXPECTED["keys"][name]["token"])


@pytest.mark.parametrize("path", EXPECTED["answers"])
def test_an_operator_reads_what_the_version_before_stored(app: App, path: str) -> None:
    """Each view has the same status, body and ETag as in the version before. Platform keys have labels now."""
    expected = copy.deepcopy(EXPECTED["answers"][path])
    if path == "/activity":
        for entry in expected["body"]["results"]:
            entry["who"] = label_key(entry["who"])
    answer = client(app, "operator").get(path)
    body: Any = answer.json if answer.reply.content_type.startswith("application/json") else answer.text
    for field, default in ADDED.get(path, {}).items():
        assert body.pop(field) == default
    assert (answer.status, body, answer.reply.headers.get("ETag")) == (
        expected["status"],
        expected["body"],
        expected["etag"],
    )


@pytest.mark.parametrize("name", EXPECTED["verdicts"])
def test_a_device_gets_the_verdict_of_the_version_before(app: App, name: str) -> None:
    """With fields that the version before did not have, and with the sentences of this version.

    The verdict of an inactive CA is in the next test.
    """
    expected = EXPECTED["verdicts"][name]
    if name == "inactive":
        client(app, "operator").put(_replacement(app), {"status": "inactive"}).ok()
    for broker in ("broker", "platformBroker"):
        verdict = client(app, broker).post("/authorization/verifyclient", expected["body"]).ok()
        before = {field: value for field, value in expected["answer"].items() if field not in ("reason", "mend")}
        assert {field: verdict.get(field) for field in before} == before


def test_an_active_ca_with_the_name_and_key_of_an_inactive_ca_lets_its_devices_in(app: App) -> None:
    """The version before refused them: see "Before you upgrade" in CHANGELOG.md."""
    expected = EXPECTED["verdicts"]["inactive"]
    verdict = client(app, "broker").post("/authorization/verifyclient", expected["body"]).ok()
    assert (verdict["decision"], expected["answer"]["code"]) == ("allow", "ca_inactive")
    assert _replacement(app).endswith(verdict["ca"]["id"])


def _replacement(app: App) -> str:
    """Return the path of the active CA with the name and key of an inactive CA."""
    cas = client(app, "operator").get("/authentication/cacertificates").ok()["results"]
    subjects = {ca["subject"] for ca in cas if ca["status"] == "inactive"}
    [active] = [ca["id"] for ca in cas if ca["status"] == "active" and ca["subject"] in subjects]
    return f"/authentication/cacertificates/{active}"


def test_an_edge_reads_the_feeds_and_opens_the_key_of_the_version_before(app: App) -> None:
    """Hosts, withdrawals, and the private key that the master key of the version before sealed."""
    edge, expected = client(app, "edge"), EXPECTED["edge"]
    assert edge.get("//edge/v1/hosts").ok() == expected["hosts"]
    assert edge.get("//edge/v1/withdrawals?since=0").ok() == expected["withdrawals"]
    host = expected["key"]["serverName"]
    assert edge.get(f"//edge/v1/hosts/{host}").ok() == expected["key"]


def test_changes_continue_from_the_stored_versions(app: App) -> None:
    """An ETag of the version before is valid for If-Match, and the activity list continues."""
    operator, ids = client(app, "operator"), EXPECTED["ids"]
    for path, fields in (
        (f"/authentication/cacertificates/{ids['root']}", {"comments": "changed"}),
        ("/authorization/settings", {"typeCertificates": False}),
    ):
        operator.put(path, fields, version=EXPECTED["answers"][path]["etag"]).ok()
    operator.delete(f"/authentication/cacertificates/{ids['second']}").ok(204)
    listed = operator.get("/authentication/cacertificates").ok()["results"]
    assert sorted(ca["id"] for ca in listed) == sorted(ids[name] for name in ids if name != "second")
    newest = operator.get("/activity?kind=change&limit=3").ok()["results"]
    assert sorted(entry["what"] for entry in newest) == ["deleteCA", "describeCA", "settings"]


def test_maintenance_changes_nothing(app: App) -> None:
    """A sweep neither removes nor publishes what is whole, and every key is sealed under the current master key."""
    assert sweep_org(app.context, get_org(app.context, ORG), at=app.context.clock()) == 0
    assert HostFeed(app.context).sweep() == 0
    resealed, current = reseal(app.context, app.sealer)
    assert (resealed, current) == (0, 4)
