"""Mistakes that other products of this kind have made, tried here.

Others are tested with their subject: JWT algorithm confusion in test_sign_in_tokens.py, secrets in logs and answers in
../test_secrets.py, activation racing deletion in ../usecases/test_concurrency.py, a duplicate key in an upload's event
in ../usecases/test_on_upload.py.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, SubjectInformationAccessOID

from functions.events.folder import UploadWatcher
from functions.events.uploads import import_all, parse_s3
from shared.adapters.folder_reader import FolderReader
from shared.errors import TrustError
from shared.ports import UploadedObject
from shared.usecases.jobs.uploads import End, on_upload
from shared.usecases.orgs.organizations import create_org
from tests.functions.addresses import ROUTES, client_path
from tests.support import certs
from tests.support.harness import Answer, Client, Service

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"
DENY = "/authorization/denylist"
VERIFY = "/authorization/verifyclient"
PASSPHRASE = "a passphrase of theirs"
ROOT = certs.ca("Root", private=certs.key("P-256", 1))


def ids(client: Client, path: str) -> list[str]:
    return [entry["id"] for entry in client.get(path).ok()["results"]]


def keys_in(service: Service) -> set[str]:
    """Return the key of every document of every organization."""
    import sqlite3

    with sqlite3.connect(service.app.settings.data / "trust.db") as database:
        return {row[0] for row in database.execute("SELECT key FROM documents")}


# ----------------------------------------------------------------------------------------------- names that are paths


DOTS = [
    "..",
    ".",
    "%2e%2e",
    "../other1",
    "..%2fother1",
    "other1/..",
    "....//",
    "..;",
    "..\\other1",
    "\uff0e\uff0e",
    "",
    "*",
]


@pytest.mark.parametrize("name", DOTS)
def test_an_organizations_id_cannot_be_a_path(service: Service, name: str) -> None:
    """In another product a namespace named `..` reached the bundles of other tenants, because names became paths.

    Here an organization's id has six letters and digits, and is checked when it is created and in every key, host,
    client ID and path.
    """
    service.other_org()
    with pytest.raises(TrustError):
        create_org(service.app.context, name)
    operator, broker, edge = (service.client(role) for role in ("operator", "broker", "edge"))
    forged = Client(service.app, operator.key.replace("mtxpd0", name), operator.token)
    assert forged.get("/session").status == 401
    for host in (f"{name}.messaging.example.com", f"{name}.other1.messaging.example.com"):
        verdict = broker.post(VERIFY, {"serverName": host}).ok()
        assert (verdict["decision"], verdict["identity"]) == ("deny", None)
        assert edge.get(f"//edge/v1/hosts/{quote(host, safe='')}").status == 404
        assert edge.post("//v3/discovery:secrets", {"resource_names": [f"server/{host}"]}).ok()["resources"] == []
    verdict = broker.post(VERIFY, {"clientId": f"d:{name}:thermo:42"}).ok()
    assert verdict["code"] in ("client_id_invalid", "sni_missing", "org_mismatch")
    for path in (CAS, SERVERS, DENY):
        for item in (name, f"{name}/other1", f"other1/{name}"):
            answer = operator.get(f"{path}/{quote(item, safe='')}")
            assert answer.status in (200, 404, 405)
            assert "other1" not in answer.text or item in answer.text


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("name", DOTS)
def test_an_upload_stays_in_its_organization(service: Service, tmp_path: Path, name: str) -> None:
    """`..` in an object's name, or a link in the folder of uploads, reaches no other organization."""
    other = service.client("operator", service.other_org())
    uploads = service.app.settings.data / "uploads"
    (uploads / "mtxpd0" / "ca").mkdir(parents=True)
    (uploads / "other1" / "ca").mkdir(parents=True)
    secret = tmp_path / "secret.pem"
    secret.write_text(ROOT.pem)
    (uploads / "mtxpd0" / "ca" / "link.pem").symlink_to(secret)
    (uploads / "mtxpd0" / "linked").symlink_to(uploads / "other1")
    reader = FolderReader(uploads)
    for key in (f"mtxpd0/{name}/other1/ca/x", f"{name}/other1/ca/x", f"mtxpd0/ca/{name}", "mtxpd0/linked/ca/x"):
        outcome = on_upload(
            service.app.context, service.app.sealer, reader, UploadedObject("folder", key), bucket="folder"
        )
        assert outcome.end is not End.DONE
    watcher = UploadWatcher(service.app)
    watcher.scan()
    watcher.scan()
    assert ids(other, CAS) == ids(service.client("operator"), CAS) == []
    assert secret.read_text() == ROOT.pem


# ---------------------------------------------------------------------------------------------- unknown organizations


@pytest.mark.stores("sqlite")
def test_an_upload_of_an_unknown_organization_leaves_nothing(service: Service) -> None:
    """An organization that is created later with this id starts empty."""
    uploads = service.app.settings.data / "uploads"
    for org in ("nobody", "MTXPD0", "mtxpd0 ", "platform", "default", "mtxpd0\u200b"):
        path = uploads / org / "ca" / "root.pem"
        path.parent.mkdir(parents=True)
        path.write_text(ROOT.pem)
    before = keys_in(service)
    reader = FolderReader(uploads)
    for org in sorted(path.name for path in uploads.iterdir()):
        outcome = on_upload(
            service.app.context,
            service.app.sealer,
            reader,
            UploadedObject("folder", f"{org}/ca/root.pem"),
            bucket="folder",
        )
        assert outcome.end is End.IGNORED
    assert keys_in(service) == before
    create_org(service.app.context, "nobody")
    later = service.client("operator", "nobody")
    assert ids(later, CAS) == []
    assert later.get("/activity?kind=upload").ok()["results"] == []


# -------------------------------------------------------------------------------------------------- what is in use


def test_things_in_use_cannot_be_deleted(service: Service, operator: Client) -> None:
    """The active server certificate, the platform's default, and the domain that the active certificate needs.

    A CA can be deleted, because a lost CA must be; the dry run shows the devices that it would refuse.
    """
    domain = {"customDomains": {"enabled": True, "domains": ["iot.example.org"]}}
    operator.put("/authorization/settings", domain).ok()
    server = certs.server("mtxpd0.messaging.iot.example.org", ROOT)
    active = operator.post(SERVERS, {"certificate": server.pem, "privateKey": server.key_pem}).ok(201)["id"]
    operator.put(f"{SERVERS}/active", {"id": active}).ok()
    assert operator.delete(f"{SERVERS}/{active}", version="*").code == "active_certificate"
    assert operator.delete(f"{SERVERS}/default", version="*").status in (404, 409)
    none: dict[str, Any] = {"customDomains": {"enabled": False, "domains": []}}
    assert operator.put("/authorization/settings", none).code == "domain_in_use"
    assert operator.get(f"{SERVERS}/active").ok()["active"] == active
    ca = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    device = certs.leaf("d:thermo:42", ROOT)
    asked = {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42", "certificate": device.pem}
    broker = service.client("broker")
    assert broker.post(VERIFY, asked).ok()["decision"] == "allow"
    service.flush()
    effect = operator.delete(f"{CAS}/{ca}?dryrun=true").ok()
    assert effect["connections30d"] == 1
    assert broker.post(VERIFY, asked).ok()["decision"] == "allow"


# ----------------------------------------------------------------------------------- addresses inside certificates


class Listener:
    """A server that must receive no connection."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.visits = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                visitor, _ = self._socket.accept()
            except TimeoutError:
                continue
            self.visits += 1
            visitor.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


_REACHING = (
    (socket.socket, "connect"),
    (socket.socket, "connect_ex"),
    (socket.socket, "sendto"),
    (socket, "getaddrinfo"),
    (socket, "gethostbyname"),
)


@contextmanager
def sockets_watched() -> Iterator[list[str]]:
    """Collect the names and addresses that this process connects to. (An audit hook could not be removed again.)"""
    connections: list[str] = []

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **more: Any) -> Any:
            connections.append(name)
            return call(*args, **more)

        return noted

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in _REACHING:
            patch.setattr(owner, name, watched(name, getattr(owner, name)))
        yield connections


def pointing_at(url: str) -> list[tuple[x509.ExtensionType, bool]]:
    """Return every extension that can hold an address."""
    uri = x509.UniformResourceIdentifier
    access = x509.AccessDescription
    policy = x509.PolicyInformation(x509.ObjectIdentifier("1.3.6.1.4.1.99.1"), [f"{url}/cps"])
    return [
        (
            x509.AuthorityInformationAccess(
                [
                    access(AuthorityInformationAccessOID.CA_ISSUERS, uri(f"{url}/issuer.cer")),
                    access(AuthorityInformationAccessOID.OCSP, uri(f"{url}/ocsp")),
                ]
            ),
            False,
        ),
        (x509.CRLDistributionPoints([x509.DistributionPoint([uri(f"{url}/crl")], None, None, None)]), False),
        (x509.FreshestCRL([x509.DistributionPoint([uri(f"{url}/delta")], None, None, None)]), False),
        (
            x509.SubjectInformationAccess(
                [access(SubjectInformationAccessOID.CA_REPOSITORY, uri(f"{url}/repository"))]
            ),
            False,
        ),
        (
            x509.CertificatePolicies([policy]),
            False,
        ),
        (x509.IssuerAlternativeName([uri(f"{url}/issuer")]), False),
    ]


@pytest.mark.stores("sqlite")  # the other protocols use sockets
def test_an_address_inside_a_certificate_is_never_visited(
    service: Service, operator: Client, listener: Listener, tmp_path: Path
) -> None:
    """A request to a URL that an uploader chooses would be a request into the operator's network (SSRF).

    No issuer, revocation list, OCSP responder or policy is fetched, through any function.
    """
    more = pointing_at(listener.url)
    top = certs.ca("Pointing", private=certs.key("P-256", 2), more=more)
    between = certs.ca("Missing", top, private=certs.key("P-256", 3), more=more)
    device = certs.leaf("d:thermo:42", between, more=more, uris=[f"{listener.url}/san"])
    private = certs.key("P-256", 4)
    server = certs.certificate(
        certs.name(service.host()), signer=between, private=private, extensions=[*more, san(service.host())]
    )
    bundle = {"certificate": server.pem, "privateKey": server.key_pem}
    asked = {"serverName": service.host(), "clientId": "d:mtxpd0:thermo:42", "certificate": device.pem}
    broker = service.client("broker")
    with sockets_watched() as connections:
        operator.post(CAS, {"certificate": top.pem}).ok(201)
        operator.post("/authentication/preview", {"certificate": server.pem}).ok()
        server_id = operator.post(SERVERS, bundle).ok(201)["id"]  # the issuer of the certificate is missing
        operator.put(f"{SERVERS}/active?dryrun=true", {"id": server_id}).ok()
        operator.put(f"{SERVERS}/active", {"id": server_id}).ok()
        operator.post(DENY, {"certificate": device.pem, "reason": listener.url}).ok(201)
        assert broker.post(VERIFY, asked).ok()["code"] == "untrusted_issuer"  # the device did not send the intermediate
        assert broker.post(VERIFY, {**asked, "certificate": certs.bundle(device, between)}).ok()["decision"] == "deny"
        for path in (f"{SERVERS}/{server_id}", CAS, "/activity"):
            operator.get(path).ok()
        uploads = tmp_path / "uploads"
        (uploads / "mtxpd0" / "ca").mkdir(parents=True)
        (uploads / "mtxpd0" / "ca" / "between.pem").write_text(between.pem)
        event = {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {
            "bucket": {"name": "folder"}, "object": {"key": "mtxpd0/ca/between.pem"}}}]}  # fmt: skip
        import_all(service.app, FolderReader(uploads), parse_s3(event), bucket="folder")
        service.flush()
    assert connections == []
    assert listener.visits == 0
    assert len(ids(operator, CAS)) == 2
    with (
        sockets_watched() as connections,
        socket.create_connection(("127.0.0.1", int(listener.url.rpartition(":")[2]))),
    ):
        pass
    assert connections, "a connection would have been noticed"


def san(host: str) -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectAlternativeName([x509.DNSName(host)]), False


# ------------------------------------------------------------------------------------------------- duplicate serials


def test_a_denied_serial_number_affects_no_other_issuer(service: Service, operator: Client) -> None:
    """Serial numbers are unique for an issuer at most, and recipes in use write the same number everywhere.

    An entry denies the serial number of one CA's key: not of another organization, of a CA of the same name, or of a
    forgery.
    """
    theirs = service.client("operator", service.other_org())
    clients = {"mtxpd0": service.client("broker"), "other1": service.client("broker", "other1")}
    first, second = (certs.ca("Same Name", private=certs.key("P-256", n)) for n in (11, 12))
    mine = [operator.post(CAS, {"certificate": ca.pem}).ok(201)["id"] for ca in (first, second)]
    for ca in (first, second):
        theirs.post(CAS, {"certificate": ca.pem}).ok(201)

    def decisions(org: str) -> list[str]:
        devices = [certs.leaf("d:thermo:42", ca, serial=1) for ca in (first, second)]
        asked = {"serverName": service.host(org), "clientId": f"d:{org}:thermo:42"}
        return [clients[org].post(VERIFY, {**asked, "certificate": ca.pem}).ok()["decision"] for ca in devices]

    assert decisions("mtxpd0") == decisions("other1") == ["allow", "allow"]
    operator.post(DENY, {"kind": "serial", "value": f"{mine[0]}:1"}).ok(201)
    assert decisions("mtxpd0") == ["deny", "allow"]
    assert decisions("other1") == ["allow", "allow"]
    assert theirs.get(DENY).ok()["results"] == []


# ------------------------------------------------------------------------------------------------- secrets in answers


@pytest.mark.parametrize("passphrase", [PASSPHRASE, "wrong " + PASSPHRASE])
def test_a_passphrase_is_never_returned(service: Service, operator: Client, passphrase: str) -> None:
    """No answer, no list and no document contains a passphrase, right or wrong."""
    server = certs.server(service.host(), ROOT)
    sealed = {"certificate": server.pem, "privateKey": certs.key_pem(server.key, PASSPHRASE), "passphrase": passphrase}
    answers: list[Answer] = [operator.post(SERVERS, sealed), operator.form(SERVERS, sealed)]
    known = [*ids(operator, SERVERS), "default"]
    for route in ROUTES:
        if route.method == "GET":
            path = client_path(route)
            answers += [
                operator.get(path.replace("{id}", answer).replace("{serverName}", service.host())) for answer in known
            ]
    edge = service.client("edge")
    answers.append(edge.get(f"//edge/v1/hosts/{service.host()}"))
    assert [answer for answer in answers if passphrase in answer.text or passphrase in str(answer.reply.headers)] == []
    for file in service.app.settings.data.rglob("*"):
        assert not file.is_file() or passphrase.encode() not in file.read_bytes()


# ------------------------------------------------------------------------------------------ export by another caller


def test_no_other_caller_can_export_a_key(service: Service, operator: Client) -> None:
    """A private key is exported by one endpoint only, to an edge of its organization, over TLS.

    No other caller gets the key from a route of this host, or from a plausible address of an export.
    """
    theirs = service.client("operator", service.other_org())
    server = certs.server(service.host("other1"), ROOT)
    server_id = theirs.post(SERVERS, {"certificate": server.pem, "privateKey": server.key_pem}).ok(201)["id"]
    theirs.put(f"{SERVERS}/active", {"id": server_id}).ok()
    assert service.client("edge", "other1").get(f"//edge/v1/hosts/{service.host('other1')}").ok()["privateKey"]
    callers = [
        operator,
        theirs,
        service.client("viewer", "other1"),
        service.client("broker", "other1"),
        service.client("edge"),
        service.platform("edge", orgs=[service.org_id]),
        service.anonymous,
    ]
    host = service.host("other1")
    paths = [
        f"//edge/v1/hosts/{host}",
        f"//edge/v1/hosts/{host}?format=pem",
        f"{SERVERS}/{server_id}",
        f"{SERVERS}/{server_id}/pem",
        f"{SERVERS}/{server_id}/key",
        f"{SERVERS}/{server_id}/export",
        f"{SERVERS}/{server_id}/privatekey",
        f"{SERVERS}/{server_id}?include=privateKey",
        "/export",
        "/authentication/export",
    ]
    answers = [caller.get(path) for caller in callers for path in paths]
    answers += [caller.post("//v3/discovery:secrets", {"resource_names": [f"server/{host}"]}) for caller in callers]
    secrets = [server.key_pem.splitlines()[2], "PRIVATE KEY"]
    assert [answer.text for answer in answers if any(server_id in answer.text for server_id in secrets)] == []
