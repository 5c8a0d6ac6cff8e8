"""An organization that is deleted, and the one that gets its id: what the second may never see of the first."""

from dataclasses import dataclass
from typing import Any, Final

from tests.support import certs
from tests.support.harness import Client, Service

CAS: Final = "/authentication/cacertificates"
SERVERS: Final = "/authentication/servercertificates"
DENIALS: Final = "/authorization/denylist"
SETTINGS: Final = "/authorization/settings"
POLICY: Final = "/authorization/connectionpolicy"
ROOT: Final = certs.ca("Old root")
LATER: Final = certs.ca("Later root")


@dataclass(frozen=True)
class Tenant:
    """The callers of an organization, and the platform's callers that are scoped to it."""

    service: Service
    org_id: str
    operator: Client
    broker: Client
    edge: Client
    scoped_edge: Client
    scoped_broker: Client

    @property
    def host(self) -> str:
        return self.service.host(self.org_id)

    def question(self, root: certs.Issued) -> dict[str, str]:
        return {
            "serverName": self.host,
            "clientId": f"d:{self.org_id}:thermo:42",
            "certificate": certs.leaf("d:thermo:42", root).pem,
        }

    def connect(self, root: certs.Issued = ROOT) -> Any:
        """Return the verdict on a device of *root*."""
        return self.broker.post("/verifyClient", self.question(root)).ok()

    def fill(self) -> None:
        """Store something of every kind."""
        self.operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
        issued = certs.server(self.host)
        uploaded = self.operator.post(SERVERS, {"certificate": issued.pem, "privateKey": issued.key_pem}).ok(201)["id"]
        self.operator.put(f"{SERVERS}/active", {"id": uploaded}).ok()
        self.operator.post(DENIALS, {"kind": "identity", "value": "d:thermo:666"}).ok(201)
        self.operator.put(SETTINGS, {"typeCertificates": True}).ok()
        assert self.connect()["decision"] == "allow"
        assert self.connect(LATER)["decision"] == "deny"
        self.service.flush()
        assert self.scoped_edge.get(f"//edge/v1/hosts/{self.host}").ok()["certificateId"] == uploaded


def new_tenant(service: Service, org_id: str) -> Tenant:
    """Return the callers of an organization that exists."""
    return Tenant(
        service,
        org_id,
        operator=service.client("operator", org_id),
        broker=service.client("broker", org_id),
        edge=service.client("edge", org_id),
        scoped_edge=service.platform("edge", orgs=[org_id]),
        scoped_broker=service.platform("broker", orgs=[org_id]),
    )


def inherited(old: Tenant, new: Tenant) -> list[str]:
    """Return what the new organization, or a caller of the old one, has of the other."""
    found: list[str] = []

    def expect(what: str, value: object, expected: object) -> None:
        if value != expected:
            found.append(f"{what}: {value}")

    # The new operator sees nothing.
    for path, expected in ((CAS, []), (SERVERS, ["default"]), (DENIALS, [])):
        expect(path, [item["id"] for item in new.operator.get(path).ok()["results"]], expected)
    entries = new.operator.get("/activity?limit=100").ok()["results"]
    expect("activity", [(entry["who"], entry["what"]) for entry in entries], [("admin", "createOrg")])
    expect("settings", new.operator.get(SETTINGS).ok()["typeCertificates"], False)
    expect("active", new.operator.get(f"{SERVERS}/active").ok()["active"], "default")
    dry_run = new.operator.post(f"{POLICY}/dryrun", {"default": "TLS Optional"})
    expect("clients of the dry run", dry_run.ok()["sample"]["identities"], 0)
    # The old devices are refused, and the new deny list is empty.
    for root in (ROOT, LATER):
        expect(f"a device of {root.cert.subject}", new.connect(root)["code"], "no_trusted_ca")
    # The old callers are refused, and the platform's callers of the old organization do not reach the new one.
    expect("the old operator", old.operator.get("/session").status, 401)
    expect("the old broker", old.broker.post("/verifyClient", old.question(ROOT)).status, 401)
    expect("the old edge", old.edge.get(f"//edge/v1/hosts/{old.host}").status, 401)
    expect("a key", old.scoped_edge.get(f"//edge/v1/hosts/{old.host}").status, 404)
    served = [host for host in old.scoped_edge.get("//edge/v1/hosts").ok()["hosts"] if not host.get("removed")]
    expect("hosts of the old edge", served, [])
    verdict = old.scoped_broker.post("/verifyClient", old.question(ROOT)).ok()
    expect("the platform's broker of the old organization", verdict["code"], "org_mismatch")
    exported = new.scoped_edge.get(f"//edge/v1/hosts/{new.host}").ok()
    expect("the served certificate", exported["certificateId"], "default")
    return found
