"""onUpload: how objects in the bucket are imported, and which events are refused."""

import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, NoEncryption, pkcs12
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from shared.errors import RateLimited, StoreUnavailable
from shared.ports import FoundObject, UploadedObject
from shared.records import ActivityPage
from shared.usecases.jobs.uploads import End, ForeignBucket, Outcome, on_upload
from shared.usecases.orgs.deletion import delete_org
from shared.usecases.orgs.organizations import set_suspended
from tests.support import certs
from tests.support.certs import NOON
from tests.support.harness import Client, Service
from tests.support.notifier import RecordingNotifier

BUCKET = "uploads"
ROOT = certs.ca("Root")


@dataclass
class Objects:
    """A bucket with versions, in memory. Records the calls."""

    held: dict[tuple[str, str], FoundObject] = field(default_factory=dict)
    data: dict[tuple[str, str], bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    down: bool = False

    def put(self, key: str, data: bytes | str) -> UploadedObject:
        data = data.encode() if isinstance(data, str) else data
        version = f"v{len(self.held)}"
        at = NOON + timedelta(seconds=len(self.held))
        self.held[key, version] = FoundObject(BUCKET, key, version, None, len(data), at)
        self.data[key, version] = data
        return UploadedObject(BUCKET, key, version)

    def _record(self, name: str) -> None:
        self.calls.append(name)
        if self.down:
            raise StoreUnavailable

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        self._record("find")
        return self.held.get((uploaded.key, uploaded.version or ""))

    def read(self, stored: FoundObject) -> bytes | None:
        self._record("read")
        return self.data.get((stored.key, stored.version or "")) if self.holds(stored) else None

    def remove(self, stored: FoundObject) -> None:
        self._record("remove")
        self.held.pop((stored.key, stored.version or ""), None)

    def holds(self, stored: FoundObject) -> bool:
        return (stored.key, stored.version) in self.held


@pytest.fixture
def objects() -> Objects:
    return Objects()


@dataclass(repr=False)
class Bucket:
    service: Service
    objects: Objects

    def event(self, uploaded: UploadedObject) -> Outcome:
        return on_upload(self.service.app.context, self.service.app.sealer, self.objects, uploaded, bucket=BUCKET)

    def put(self, key: str, data: bytes | str) -> Outcome:
        return self.event(self.objects.put(key, data))

    def receipts(self, operator: Client | None = None) -> list[dict[str, Any]]:
        reader = operator or self.service.client("viewer")
        return list(reader.get("/activity?kind=upload").ok()["results"])


@pytest.fixture
def bucket(service: Service, objects: Objects) -> Bucket:
    return Bucket(service, objects)


def server_bundle(service: Service) -> str:
    issued = certs.server(service.host(), ROOT)
    return issued.key_pem + issued.pem + ROOT.pem


def cas(client: Client) -> list[dict[str, Any]]:
    return list(client.get("/authentication/cacertificates").ok()["results"])


def servers(client: Client) -> list[dict[str, Any]]:
    results = client.get("/authentication/servercertificates").ok()["results"]
    return [server for server in results if server["id"] != "default"]


# ------------------------------------------------------------------------------------------------ what is imported


def test_a_ca_in_the_bucket_is_registered(bucket: Bucket, operator: Client) -> None:
    """As if its organization had sent it. The receipt names the object and the certificate."""
    assert bucket.put("mtxpd0/ca/my root.pem", ROOT.pem) == Outcome(End.DONE)
    [ca] = cas(operator)
    assert ca["status"] == "active"
    [receipt] = bucket.receipts()
    assert (receipt["what"], receipt["result"], receipt["who"]) == ("onUpload", "done", "upload")
    assert receipt["detail"] == {
        "object": "ca/my root.pem",
        "certificate": ca["id"],
        "warnings": "sni_required",
    }


def test_a_ca_beside_an_inactive_one_is_stored_inactive(bucket: Bucket, operator: Client) -> None:
    """A file in a bucket is no decision to let a deactivated CA's devices in again. Receipt and webhook say so."""
    own = certs.ca("Root", private=certs.key("P-256", 78))
    renewed = certs.ca("Root", private=own.key)
    bucket.put("mtxpd0/ca/first.pem", own.pem)
    [first] = cas(operator)
    operator.put(f"/authentication/cacertificates/{first['id']}", {"status": "inactive"}).ok()
    notifier = RecordingNotifier()
    structs.force_setattr(bucket.service.app.context, "notifier", notifier)
    assert bucket.put("mtxpd0/ca/second.pem", renewed.pem) == Outcome(End.DONE)
    assert [ca["status"] for ca in cas(operator)] == ["inactive", "inactive"]
    receipt = bucket.receipts()[0]
    assert receipt["detail"]["warnings"] == "reactivates"
    [(_, message)] = notifier.messages
    assert (message["type"], message["data"]["reactivates"]) == ("ca.reactivates", [first["id"]])


def test_a_ca_stays_in_the_bucket(bucket: Bucket) -> None:
    """A CA certificate is not secret, and the bucket belongs to its owner."""
    bucket.put("mtxpd0/ca/root.pem", ROOT.pem)
    assert len(bucket.objects.held) == 1


def test_a_server_certificate_is_imported_and_its_key_is_removed_from_the_bucket(
    bucket: Bucket, operator: Client
) -> None:
    """Once the key is sealed, the bucket holds no copy of the key."""
    assert bucket.put("mtxpd0/server/prod.pem", server_bundle(bucket.service)).end is End.DONE
    assert bucket.objects.held == {}
    [server] = servers(operator)
    assert server["hosts"] == [bucket.service.host()]
    [receipt] = bucket.receipts()
    assert receipt["detail"]["removed"] == "yes"


def test_the_receipt_of_a_completed_chain_does_not_say_unchanged(bucket: Bucket, operator: Client) -> None:
    """The chain that arrives later changes what devices get. A third copy of the same file changes nothing."""
    issuing = certs.ca("Issuing", ROOT)
    server = certs.server(bucket.service.host(), issuing)
    for number, text in enumerate((server.pem, server.pem + issuing.pem, server.pem + issuing.pem)):
        assert bucket.put(f"mtxpd0/server/{number}.pem", (text + server.key_pem).encode()).end is End.DONE
    details = [
        receipt["detail"] for receipt in sorted(bucket.receipts(), key=lambda receipt: receipt["detail"]["object"])
    ]
    assert [detail.get("unchanged") for detail in details] == [None, None, "yes"]
    assert ["chain_completed" in detail.get("warnings", "") for detail in details] == [False, True, False]


def test_a_pkcs12_file_is_a_bundle(bucket: Bucket, operator: Client) -> None:
    """Windows and Java tools export this format. It must have no passphrase."""
    issued = certs.server(bucket.service.host(), ROOT)
    data = pkcs12.serialize_key_and_certificates(b"x", issued.key, issued.cert, [ROOT.cert], NoEncryption())
    assert bucket.put("mtxpd0/server/prod.p12", data).end is End.DONE
    assert len(servers(operator)) == 1


@pytest.mark.parametrize("kind", ["pem", "p12"])
def test_an_encrypted_key_is_refused_because_an_event_carries_no_passphrase(
    kind: str, bucket: Bucket, operator: Client
) -> None:
    """The receipt has the code `passphrase_required`. Nothing is stored or removed."""
    issued = certs.server(bucket.service.host(), ROOT)
    if kind == "pem":
        data = (certs.key_pem(issued.key, "passphrase") + issued.pem).encode()
    else:
        secret = BestAvailableEncryption(b"passphrase")
        data = pkcs12.serialize_key_and_certificates(b"x", issued.key, issued.cert, None, secret)
    outcome = bucket.put("mtxpd0/server/prod", data)
    assert (outcome.end, outcome.code) == (End.REFUSED, "passphrase_required")
    assert servers(operator) == []
    assert len(bucket.objects.held) == 1
    [receipt] = bucket.receipts()
    assert (receipt["result"], receipt["code"]) == ("refused", "passphrase_required")


@pytest.mark.parametrize("suffix", ["", ".pem", ".CRT", ".p7b"])
def test_a_signed_certificate_replaces_its_request(suffix: str, bucket: Bucket, operator: Client) -> None:
    """The object is named by the id of the request, with or without a suffix."""
    request = operator.post("/authentication/servercertificates/csr", {"keyAlgorithm": "P-256"}).ok(201)
    signed = sign(request["csr"], bucket.service.host())
    assert bucket.put(f"mtxpd0/csr/{request['id']}{suffix}", signed) == Outcome(End.DONE)
    [server] = servers(operator)
    assert (server["id"], server["status"]) == (request["id"], "certificate")


def sign(csr_pem: str, host: str) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    csr = x509.load_pem_x509_csr(csr_pem.encode())
    builder = (
        x509.CertificateBuilder()
        .subject_name(csr.subject)
        .issuer_name(ROOT.cert.subject)
        .public_key(csr.public_key())
        .serial_number(7)
        .not_valid_before(NOON - certs.DAY)
        .not_valid_after(NOON + certs.YEAR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    )
    from cryptography.hazmat.primitives.serialization import Encoding

    return builder.sign(ROOT.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("key", "data", "code"),
    [
        ("mtxpd0/ca/x.pem", "no certificate", "not_a_certificate"),
        ("mtxpd0/ca/x.pem", b"", "not_a_certificate"),
        ("mtxpd0/ca/x.pem", certs.leaf("d:thermo:42", ROOT).pem, "not_a_ca"),
        ("mtxpd0/ca/x.pem", b"x" * 70_000, "file_too_large"),
        ("mtxpd0/ca/x.pem", b"x" * 300_000, "file_too_large"),
        ("mtxpd0/server/x.pem", ROOT.pem, "private_key_missing"),
        ("mtxpd0/csr/none", ROOT.pem, "not_found"),
        ("mtxpd0/csr/../csr/none", ROOT.pem, "not_found"),
        ("mtxpd0/x.pem", ROOT.pem, "upload_misplaced"),
        ("mtxpd0/certs/x.pem", ROOT.pem, "upload_misplaced"),
        ("mtxpd0/../other1/ca/x.pem", ROOT.pem, "upload_misplaced"),
        ("mtxpd0//ca/x.pem", ROOT.pem, "upload_misplaced"),
        ("mtxpd0/CA/x.pem", ROOT.pem, "upload_misplaced"),
        ("mtxpd0/ca", ROOT.pem, "upload_misplaced"),
    ],
)
def test_a_refusal_is_a_receipt_with_its_code(
    key: str, data: str | bytes, code: str, bucket: Bucket, operator: Client
) -> None:
    """The function returns normally: another delivery would be refused again."""
    outcome = bucket.put(key, data)
    assert (outcome.end, outcome.code) == (End.REFUSED, code)
    [receipt] = bucket.receipts()
    assert (receipt["result"], receipt["code"]) == ("refused", code)
    assert outcome.why.startswith(receipt["detail"]["reason"][:50])
    assert cas(operator) == servers(operator) == []


def test_an_object_that_is_too_large_is_not_read(bucket: Bucket) -> None:
    """The size is known before the object is read."""
    bucket.put("mtxpd0/ca/x.pem", b"x" * 300_000)
    assert bucket.objects.calls == ["find"]


def test_an_upload_of_a_suspended_org_is_refused(bucket: Bucket) -> None:
    """As other calls of the organization are."""
    viewer = bucket.service.client("viewer")
    set_suspended(bucket.service.app.context, "mtxpd0", True)
    assert bucket.put("mtxpd0/ca/x.pem", ROOT.pem).code == "org_suspended"
    assert bucket.objects.calls == ["find"]
    set_suspended(bucket.service.app.context, "mtxpd0", False)
    assert [receipt["code"] for receipt in bucket.receipts(viewer)] == ["org_suspended"]


# -------------------------------------------------------------------------------------- forged and hostile events


def test_an_event_of_another_bucket_is_refused_before_anything_is_read(bucket: Bucket) -> None:
    """Events can be forged. Only events of the configured bucket are accepted."""
    uploaded = bucket.objects.put("mtxpd0/ca/x.pem", ROOT.pem)
    reads = bucket.service.store.calls.total()
    with pytest.raises(ForeignBucket):
        bucket.event(structs.replace(uploaded, bucket="evil"))
    assert bucket.objects.calls == []
    assert bucket.service.store.calls.total() == reads


def test_an_event_about_an_object_that_does_not_exist_does_nothing(bucket: Bucket, operator: Client) -> None:
    """An event can only point at an object in the bucket."""
    assert bucket.event(UploadedObject(BUCKET, "mtxpd0/ca/x.pem", "v9")).end is End.IGNORED
    assert bucket.receipts() == []


@pytest.mark.parametrize(
    "key",
    [
        "ca/x.pem",
        "MTXPD0/ca/x.pem",
        "mtxpd0\n/ca/x.pem",
        "mtxpd0%2Fca%2Fx.pem",
        "../mtxpd0/ca/x.pem",
        "/mtxpd0/ca/x.pem",
        "mtxpd０/ca/x.pem",
        "nobody/ca/x.pem",
        "mtxpd0\0/ca/x.pem",
        "mtxpd0/ca/\ud800",
        "",
    ],
)
def test_an_object_outside_the_prefix_of_an_org_changes_nothing(key: str, bucket: Bucket, operator: Client) -> None:
    """The first segment must be exactly the id of an existing organization."""
    assert bucket.put(key, ROOT.pem).end is End.IGNORED
    assert "read" not in bucket.objects.calls
    assert cas(operator) == bucket.receipts() == []


HOSTILE = st.text(alphabet=st.one_of(st.characters(), st.sampled_from("./\\%+ \0\u202e\n")), max_size=400)


@pytest.fixture
def other(service: Service) -> Client:
    return service.client("viewer", service.other_org("other1"))


@given(name=HOSTILE, kind=st.sampled_from(["ca", "server", "csr", "..", "other1/ca", ""]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_object_of_any_name_affects_its_own_org_only(name: str, kind: str, bucket: Bucket, other: Client) -> None:
    """`..`, slashes, Unicode, NUL, a long name: no effect on another org, and no error that is retried forever."""
    bucket.put(f"mtxpd0/{kind}/{name}", ROOT.pem)
    assert cas(other) == servers(other) == bucket.receipts(other) == []


def test_a_receipt_shows_a_sanitized_object_name(bucket: Bucket) -> None:
    """Characters that hide, reverse or break lines are replaced, and a long name is cut."""
    bucket.put("mtxpd0/ca/\u202efdp.mep\n\x1b[31m\0" + "x" * 900, "no certificate")
    name = bucket.receipts()[0]["detail"]["object"]
    assert name.startswith("ca/\ufffdfdp.mep\ufffd\ufffd[31m\ufffdxxx")
    assert len(name) == 200


def test_a_folder_that_a_console_creates_is_ignored(bucket: Bucket) -> None:
    """The console of Amazon S3 stores an empty object for a new folder."""
    assert bucket.put("mtxpd0/ca/", b"").end is End.IGNORED
    assert bucket.receipts() == []


# ---------------------------------------------------------------------------------- repeated, concurrent, out of order


@pytest.mark.parametrize("kind", ["ca", "server"])
def test_an_event_delivered_again_changes_nothing(kind: str, bucket: Bucket, operator: Client) -> None:
    """One certificate, one receipt."""
    data = ROOT.pem if kind == "ca" else server_bundle(bucket.service)
    uploaded = bucket.objects.put(f"mtxpd0/{kind}/x.pem", data)
    for _ in range(3):
        bucket.event(uploaded)
    assert len(cas(operator)) + len(servers(operator)) == 1
    assert len(bucket.receipts()) == 1


def test_a_late_event_does_not_restore_a_deleted_ca(bucket: Bucket, operator: Client) -> None:
    """A CA was uploaded, then deleted because its key leaked. Hours later the platform delivers the event again."""
    uploaded = bucket.objects.put("mtxpd0/ca/x.pem", ROOT.pem)
    bucket.event(uploaded)
    operator.delete(f"/authentication/cacertificates/{cas(operator)[0]['id']}").ok(204)
    assert bucket.event(uploaded) == Outcome(End.DONE)
    assert cas(operator) == []
    assert bucket.put("mtxpd0/ca/x.pem", ROOT.pem).end is End.DONE, "a new upload is imported"
    assert len(cas(operator)) == 1


def test_a_refused_event_that_is_delivered_again_has_the_same_result(bucket: Bucket) -> None:
    """The object is not read again."""
    uploaded = bucket.objects.put("mtxpd0/ca/x.pem", "nothing")
    first = bucket.event(uploaded)
    reads = len(bucket.objects.calls)
    assert bucket.event(uploaded).code == first.code == "not_a_certificate"
    assert bucket.objects.calls[reads:] == ["find"]
    assert len(bucket.receipts()) == 1


def test_concurrent_deliveries_are_one_upload(bucket: Bucket, operator: Client) -> None:
    """One certificate and one receipt remain, and the key is removed from the bucket."""
    uploaded = bucket.objects.put("mtxpd0/server/x.pem", server_bundle(bucket.service))
    outcomes: list[End] = []
    start = threading.Barrier(4)

    def deliver() -> None:
        start.wait()
        outcomes.append(bucket.event(uploaded).end)

    threads = [threading.Thread(target=deliver) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert End.DONE in outcomes
    assert set(outcomes) <= {End.DONE, End.IGNORED}
    assert len(servers(operator)) == len(bucket.receipts()) == 1
    assert bucket.objects.held == {}


def test_events_out_of_order_have_the_same_result(bucket: Bucket, operator: Client) -> None:
    """Two versions of one name are two uploads, in whichever order their events arrive."""
    other = certs.ca("Other")
    first = bucket.objects.put("mtxpd0/ca/x.pem", ROOT.pem)
    second = bucket.objects.put("mtxpd0/ca/x.pem", other.pem)
    bucket.event(second)
    bucket.event(first)
    assert sorted(ca["subject"] for ca in cas(operator)) == ["CN=Other", "CN=Root"]
    newest, oldest = bucket.receipts()
    assert newest["at"] > oldest["at"], "receipts are ordered by the time the objects were stored"


@pytest.mark.parametrize("failing", ["objects", "store"])
def test_an_error_of_a_store_is_raised_and_the_next_delivery_completes_the_import(
    failing: str, bucket: Bucket, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform delivers the event again. No receipt is written before the import is complete."""
    uploaded = bucket.objects.put("mtxpd0/server/x.pem", server_bundle(bucket.service))

    def fails(*_: Any, **__: Any) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as patched:
        if failing == "objects":
            patched.setattr(bucket.objects, "remove", fails)
        else:
            patched.setattr(bucket.service.store, "put", fails)
        with pytest.raises(StoreUnavailable):
            bucket.event(uploaded)
    assert bucket.receipts() == []
    assert len(bucket.objects.held) == 1
    assert bucket.event(uploaded).end is End.DONE
    assert len(servers(operator)) == len(bucket.receipts()) == 1
    assert bucket.objects.held == {}


def test_uploads_beyond_the_rate_limit_are_imported_later(bucket: Bucket) -> None:
    """A rate limit is not a refusal of the file: the error is raised, and the next delivery succeeds."""
    context = structs.replace(bucket.service.app.context, ca_rate_per_minute=1)
    bucket.put("mtxpd0/ca/x.pem", ROOT.pem)
    uploaded = bucket.objects.put("mtxpd0/ca/y.pem", certs.ca("Other").pem)
    with pytest.raises(RateLimited):
        on_upload(context, bucket.service.app.sealer, bucket.objects, uploaded, bucket=BUCKET)
    bucket.service.clock.now += timedelta(minutes=1)
    assert on_upload(context, bucket.service.app.sealer, bucket.objects, uploaded, bucket=BUCKET).end is End.DONE


def test_a_deleted_org_gets_no_receipts(bucket: Bucket) -> None:
    """Nothing is written that would outlive the organization."""
    delete_org(bucket.service.app.context, "mtxpd0")
    assert bucket.put("mtxpd0/ca/x.pem", ROOT.pem).end is End.IGNORED
    assert bucket.service.app.context.repository.list("activity/mtxpd0/upload", ActivityPage, limit=1) == []
