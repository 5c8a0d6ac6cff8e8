"""Row 2: an organization's id is deleted and created again. What does the new tenant have of the old one?

The old tenant's calls are in flight while `org delete` runs; `org delete` is killed at many moments; a platform edge
key was scoped to the id. The new tenant must see nothing of the old one and trust no device of it, and no caller of
the old one may reach the new one.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from demo.processes import Failed
from demo.stack import DOMAIN, ApiRefused
from shared.records import Role
from tests.attacks.rig import Attacked, attacked
from tests.support import certs

pytestmark = pytest.mark.slow

ORG: Final = "reused"
HOST: Final = f"{ORG}.messaging.{DOMAIN}"
CAS: Final = "/authentication/cacertificates"
SERVERS: Final = "/authentication/servercertificates"
ROUNDS: Final = 5  # deletions under load
KILLS: Final = 4  # deletions that are killed


@pytest.fixture
def functions(tmp_path: Path) -> Iterator[Attacked]:
    with attacked(tmp_path, TRUST_ORG_QUARANTINE_DAYS="0", TRUST_EDGE_PLAIN="loopback") as running:
        yield running


ROOT: Final = certs.ca("Old tenant", not_after=certs.NOON + 20 * certs.YEAR)
CANDIDATES: Final = [certs.ca(f"Old tenant {number}", not_after=certs.NOON + 20 * certs.YEAR) for number in range(30)]


def verdict(functions: Attacked, broker: str, root: certs.Issued) -> Any:
    leaf = certs.leaf("d:thermo:42", root, not_after=certs.NOON + 20 * certs.YEAR)
    body = {"certificate": leaf.pem, "serverName": HOST, "clientId": f"d:{ORG}:thermo:42"}
    return functions.call(broker, "POST", "/verifyClient", body)


def status(functions: Attacked, key: str, path: str) -> int:
    try:
        functions.call(key, "GET", path)
    except ApiRefused as refused:
        return refused.status
    return 200


def new_tenant(functions: Attacked) -> tuple[str, str]:
    """Create the id. Return the keys of its operator and broker."""
    operator = functions.create_org(ORG)
    return operator, functions.key(Role.BROKER, ORG)


def inherited(functions: Attacked, operator: str, broker: str) -> list[str]:
    """Return what the new tenant has of the old one."""
    found = []
    cas = functions.call(operator, "GET", CAS)["results"]
    if cas:
        found.append(f"{len(cas)} CAs of the old tenant")
    servers = [one["id"] for one in functions.call(operator, "GET", SERVERS)["results"] if one["id"] != "default"]
    if servers:
        found.append(f"{len(servers)} server certificates of the old tenant")
    entries = functions.call(operator, "GET", "/activity?limit=100")["results"]
    old = [entry for entry in entries if entry["who"] != "admin"]
    if old:
        found.append(f"{len(old)} activity entries of the old tenant")
    if verdict(functions, broker, ROOT)["decision"] == "allow":
        found.append("a device of the old tenant is allowed")
    return found


class Uploads:
    """Callers of the old tenant who upload CAs and refuse devices, as fast as they can, until `stop`."""

    def __init__(self, functions: Attacked, operator: str, broker: str) -> None:
        self._functions, self._operator, self._broker = functions, operator, broker
        self._stopping = threading.Event()
        self.accepted = 0
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(4)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        mine = [ROOT] if number == 0 else CANDIDATES[number - 1 :: 3]
        while not self._stopping.is_set():
            for ca in mine:
                if self._stopping.is_set():
                    return
                with suppress(ApiRefused, OSError):
                    self._functions.call(self._operator, "POST", CAS, {"certificate": ca.pem})
                    self.accepted += 1
                with suppress(ApiRefused, OSError):
                    verdict(self._functions, self._broker, ca)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def test_uploads_in_flight_leave_nothing_to_the_next_tenant(functions: Attacked) -> None:
    """The id is deleted and created again while the old tenant uploads."""
    faults: dict[int, list[str]] = {}
    operator, broker = new_tenant(functions)
    for number in range(ROUNDS):
        functions.call(operator, "POST", CAS, {"certificate": ROOT.pem})
        uploads = Uploads(functions, operator, broker)
        time.sleep(random.uniform(0.0, 0.3))
        functions.delete_org(ORG)
        old, (operator, broker) = (operator, broker), new_tenant(functions)
        uploads.stop()
        found = inherited(functions, operator, broker)
        if status(functions, old[0], "/session") == 200:
            found.append("the old operator's key answers 200")
        if found:
            faults[number] = found
    assert not faults, f"{len(faults)} of {ROUNDS} new tenants inherited: {faults}"


def test_a_scoped_edge_key_does_not_fetch_the_key_of_the_next_tenant(functions: Attacked) -> None:
    """A platform's edge key was made for the old tenant's id."""
    new_tenant(functions)
    edge = functions.key(Role.EDGE, orgs=ORG)
    functions.delete_org(ORG)
    operator, _ = new_tenant(functions)
    issued = certs.server(HOST, not_after=certs.NOON + 2 * certs.YEAR)
    body = {"certificate": issued.pem, "privateKey": issued.key_pem}
    uploaded = functions.call(operator, "POST", SERVERS, body)["id"]
    functions.call(operator, "PUT", f"{SERVERS}/active", {"id": uploaded}, If_Match="*")
    assert status(functions, edge, f"//edge/v1/hosts/{HOST}") == 404, "the old edge fetches the new private key"
    assert [host for host in functions.call(edge, "GET", "//edge/v1/hosts")["hosts"] if not host.get("removed")] == []


def _has_organization(functions: Attacked, operator: str) -> bool:
    """Return whether the organization exists, suspended or not."""
    try:
        functions.call(operator, "GET", "/session")
    except ApiRefused as refused:
        return bool(refused.problem["code"] == "org_suspended")
    return True


def kill_a_deletion(functions: Attacked, operator: str, after: float) -> bool:
    """Kill `org delete` (-9) so many seconds after the organization is gone. Return whether it was still running."""
    command = [sys.executable, "-m", "functions.admin", "org", "delete", ORG, "--yes"]
    process = subprocess.Popen(
        command, cwd=functions.tree, env=functions.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while _has_organization(functions, operator) and process.poll() is None:
        pass
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_a_deletion_that_is_killed_is_completed_and_leaves_nothing(functions: Attacked) -> None:
    """`org delete` is killed after the organization is gone, then repeated, and the id is created again."""
    faults: dict[str, list[str]] = {}
    killed = 0
    for number in range(KILLS):
        operator, broker = new_tenant(functions)
        for ca in [ROOT, *CANDIDATES]:
            functions.call(operator, "POST", CAS, {"certificate": ca.pem})
        if not kill_a_deletion(functions, operator, 0.02 * number / KILLS):
            continue
        killed += 1
        found = []
        try:
            functions.delete_org(ORG)
        except Failed as failed:
            found.append(f"the deletion cannot be repeated ({str(failed).splitlines()[-1]})")
        old = operator
        operator, broker = new_tenant(functions)
        found += inherited(functions, operator, broker)
        if status(functions, old, "/session") == 200:
            found.append("the old operator's key answers 200")
        functions.delete_org(ORG)
        if found:
            faults[f"kill {number}"] = found
    assert killed, "no deletion was killed in time"
    assert not faults, f"{len(faults)} of {killed} killed deletions left something: {faults}"


def test_a_store_whose_organizations_are_deleted_prints_no_keys_at_the_next_start(functions: Attacked) -> None:
    functions.delete_org("demo01")
    functions.stop()
    log = functions.folder / "functions.log"
    before = len(log.read_text())
    functions.start()
    is_printed = "a-demo01-" in log.read_text()[before:]
    assert not is_printed, "the start printed the keys of demo01 again"
