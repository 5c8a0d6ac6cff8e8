"""onUpload: what an object in the bucket becomes, and what an event can never do."""

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
from shared.usecases.orgs.organizations import delete_org, set_suspended
from tests import certs
from tests.certs import NOON
from tests.harness import Client, Service

BUCKET = "uploads"
ROOT = certs.ca("Root")


@dataclass
class Objects:
    """A bucket with versions, in memory. Keeps book of what was asked."""

    held: dict[tuple[str, str], FoundObject] = field(default_factory=dict)
    data: dict[tuple[str, str], bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    down: bool = False

    def put(self, key: str, data: bytes | str) -> UploadedObject:
        data = data.encode() if isinstance(data, str) else data
        version = f"v{len(self.held)}"
        at = NOON + timedelta(seconds=len(self.held))
        self.held[key, version] = FoundObject(BUCKET, key, version, None, len(data), at)
        self.data[key, version] = data
        return UploadedObject(BUCKET, key, version)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.down:
            raise StoreUnavailable

    def find(self, uploaded: UploadedObject) -> FoundObject | None:
        self._ask("find")
        return self.held.get((uploaded.key, uploaded.version or ""))

    def read(self, found: FoundObject) -> bytes | None:
        self._ask("read")
        return self.data.get((found.key, found.version or "")) if self.find_held(found) else None

    def remove(self, found: FoundObject) -> None:
        self._ask("remove")
        self.held.pop((found.key, found.version or ""), None)

    def find_held(self, found: FoundObject) -> bool:
        return (found.key, found.version) in self.held


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
        asking = operator or self.service.client("viewer")
        return list(asking.get("/activity?kind=upload").ok()["results"])


@pytest.fixture
def bucket(service: Service, objects: Objects) -> Bucket:
    return Bucket(service, objects)


def server_bundle(service: Service) -> str:
    issued = certs.server(service.host(), ROOT)
    return issued.key_pem + issued.pem + ROOT.pem


def cas(client: Client) -> list[dict[str, Any]]:
    return list(client.get("/authentication/cacertificates").ok()["results"])


def servers(client: Client) -> list[dict[str, Any]]:
    found = client.get("/authentication/servercertificates").ok()["results"]
    return [one for one in found if one["id"] != "default"]


# ------------------------------------------------------------------------------------------------ what comes of it


def test_a_ca_put_into_the_bucket_is_trusted(bucket: Bucket, operator: Client) -> None:
    """As if its org had sent it; the receipt names the object and the certificate."""
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


def test_a_ca_stays_in_the_bucket(bucket: Bucket) -> None:
    """It is no secret, and the bucket is its owner's."""
    bucket.put("mtxpd0/ca/root.pem", ROOT.pem)
    assert len(bucket.objects.held) == 1


def test_a_server_certificate_is_imported_and_its_key_leaves_the_bucket(bucket: Bucket, operator: Client) -> None:
    """Once the key is sealed here, no copy of it lies in a bucket."""
    assert bucket.put("mtxpd0/server/prod.pem", server_bundle(bucket.service)).end is End.DONE
    assert bucket.objects.held == {}
    [server] = servers(operator)
    assert server["hosts"] == [bucket.service.host()]
    [receipt] = bucket.receipts()
    assert receipt["detail"]["removed"] == "yes"


def test_a_pkcs12_file_is_a_bundle_too(bucket: Bucket, operator: Client) -> None:
    """What Windows and Java tools export, where it has no passphrase."""
    issued = certs.server(bucket.service.host(), ROOT)
    data = pkcs12.serialize_key_and_certificates(b"x", issued.key, issued.cert, [ROOT.cert], NoEncryption())
    assert bucket.put("mtxpd0/server/prod.p12", data).end is End.DONE
    assert len(servers(operator)) == 1


@pytest.mark.parametrize("kind", ["pem", "p12"])
def test_an_encrypted_key_is_refused_because_nobody_is_there_to_ask(
    kind: str, bucket: Bucket, operator: Client
) -> None:
    """The receipt says `passphrase_required`; nothing is stored, nothing is removed."""
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
    """Named by the request's id, with a suffix or without."""
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
    """And a normal return: delivered again, it would be refused again."""
    outcome = bucket.put(key, data)
    assert (outcome.end, outcome.code) == (End.REFUSED, code)
    [receipt] = bucket.receipts()
    assert (receipt["result"], receipt["code"]) == ("refused", code)
    assert outcome.why.startswith(receipt["detail"]["reason"][:50])
    assert cas(operator) == servers(operator) == []


def test_what_is_too_large_is_not_read(bucket: Bucket) -> None:
    """Its size is known before."""
    bucket.put("mtxpd0/ca/x.pem", b"x" * 300_000)
    assert bucket.objects.asked == ["find"]


def test_a_suspended_orgs_upload_is_refused(bucket: Bucket) -> None:
    """As its other calls are."""
    viewer = bucket.service.client("viewer")
    set_suspended(bucket.service.app.context, "mtxpd0", True)
    assert bucket.put("mtxpd0/ca/x.pem", ROOT.pem).code == "org_suspended"
    assert bucket.objects.asked == ["find"]
    set_suspended(bucket.service.app.context, "mtxpd0", False)
    assert [one["code"] for one in bucket.receipts(viewer)] == ["org_suspended"]


# -------------------------------------------------------------------------------------- forged, hostile, another's


def test_an_event_of_another_bucket_is_refused_before_anything_is_read(bucket: Bucket) -> None:
    """Anybody can write an event; only one bucket's are believed."""
    uploaded = bucket.objects.put("mtxpd0/ca/x.pem", ROOT.pem)
    reads = bucket.service.store.calls.total()
    with pytest.raises(ForeignBucket):
        bucket.event(structs.replace(uploaded, bucket="evil"))
    assert bucket.objects.asked == []
    assert bucket.service.store.calls.total() == reads


def test_a_forged_event_of_an_object_that_is_not_there_does_nothing(bucket: Bucket, operator: Client) -> None:
    """An event can only point at what is really in the bucket."""
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
def test_an_object_of_no_org_changes_nothing(key: str, bucket: Bucket, operator: Client) -> None:
    """Its first segment must be an org that is here, letter by letter."""
    assert bucket.put(key, ROOT.pem).end is End.IGNORED
    assert "read" not in bucket.objects.asked
    assert cas(operator) == bucket.receipts() == []


HOSTILE = st.text(alphabet=st.one_of(st.characters(), st.sampled_from("./\\%+ \0\u202e\n")), max_size=400)


@pytest.fixture
def other(service: Service) -> Client:
    return service.client("viewer", service.other_org("other1"))


@given(name=HOSTILE, kind=st.sampled_from(["ca", "server", "csr", "..", "other1/ca", ""]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_its_name_an_object_stays_in_its_org(name: str, kind: str, bucket: Bucket, other: Client) -> None:
    """`..`, slashes, unicode, NUL, a kilobyte: never another org, never an error that is retried for ever."""
    bucket.put(f"mtxpd0/{kind}/{name}", ROOT.pem)
    assert cas(other) == servers(other) == bucket.receipts(other) == []


def test_a_receipt_shows_an_objects_name_without_tricks(bucket: Bucket) -> None:
    """Characters that hide, reverse or break lines are replaced, and a long name is cut."""
    bucket.put("mtxpd0/ca/\u202efdp.mep\n\x1b[31m\0" + "x" * 900, "no certificate")
    shown = bucket.receipts()[0]["detail"]["object"]
    assert shown.startswith("ca/\ufffdfdp.mep\ufffd\ufffd[31m\ufffdxxx")
    assert len(shown) == 200


def test_a_folder_that_a_console_makes_is_no_upload(bucket: Bucket) -> None:
    """S3's console stores an empty object for a new folder."""
    assert bucket.put("mtxpd0/ca/", b"").end is End.IGNORED
    assert bucket.receipts() == []


# ---------------------------------------------------------------------------------- again, at once, out of order


@pytest.mark.parametrize("kind", ["ca", "server"])
def test_an_event_delivered_again_changes_nothing(kind: str, bucket: Bucket, operator: Client) -> None:
    """One certificate, one receipt."""
    data = ROOT.pem if kind == "ca" else server_bundle(bucket.service)
    uploaded = bucket.objects.put(f"mtxpd0/{kind}/x.pem", data)
    for _ in range(3):
        bucket.event(uploaded)
    assert len(cas(operator)) + len(servers(operator)) == 1
    assert len(bucket.receipts()) == 1


def test_an_event_that_comes_late_does_not_bring_back_what_was_deleted(bucket: Bucket, operator: Client) -> None:
    """A CA was uploaded, then deleted because it leaked; hours later the platform delivers its event again."""
    uploaded = bucket.objects.put("mtxpd0/ca/x.pem", ROOT.pem)
    bucket.event(uploaded)
    operator.delete(f"/authentication/cacertificates/{cas(operator)[0]['id']}").ok(204)
    assert bucket.event(uploaded) == Outcome(End.DONE)
    assert cas(operator) == []
    assert bucket.put("mtxpd0/ca/x.pem", ROOT.pem).end is End.DONE, "a new upload is a new wish"
    assert len(cas(operator)) == 1


def test_a_refusal_delivered_again_is_the_same_refusal(bucket: Bucket) -> None:
    """And is not judged anew."""
    uploaded = bucket.objects.put("mtxpd0/ca/x.pem", "nothing")
    first = bucket.event(uploaded)
    reads = len(bucket.objects.asked)
    assert bucket.event(uploaded).code == first.code == "not_a_certificate"
    assert bucket.objects.asked[reads:] == ["find"]
    assert len(bucket.receipts()) == 1


def test_two_deliveries_at_once_are_one_upload(bucket: Bucket, operator: Client) -> None:
    """Both import the same; one certificate and one receipt remain, and the key is gone from the bucket."""
    uploaded = bucket.objects.put("mtxpd0/server/x.pem", server_bundle(bucket.service))
    outcomes: list[End] = []
    start = threading.Barrier(4)

    def deliver() -> None:
        start.wait()
        outcomes.append(bucket.event(uploaded).end)

    threads = [threading.Thread(target=deliver) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert End.DONE in outcomes
    assert set(outcomes) <= {End.DONE, End.IGNORED}
    assert len(servers(operator)) == len(bucket.receipts()) == 1
    assert bucket.objects.held == {}


def test_events_in_the_wrong_order_end_the_same(bucket: Bucket, operator: Client) -> None:
    """Two versions of one name are two uploads, in whichever order they are told of."""
    other = certs.ca("Other")
    first = bucket.objects.put("mtxpd0/ca/x.pem", ROOT.pem)
    second = bucket.objects.put("mtxpd0/ca/x.pem", other.pem)
    bucket.event(second)
    bucket.event(first)
    assert sorted(one["subject"] for one in cas(operator)) == ["CN=Other", "CN=Root"]
    newest, oldest = bucket.receipts()
    assert newest["at"] > oldest["at"], "receipts are listed by when the objects were stored"


@pytest.mark.parametrize("failing", ["objects", "store"])
def test_a_store_that_does_not_answer_raises_and_the_next_delivery_finishes(
    failing: str, bucket: Bucket, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform repeats what raises. No receipt says what is not true yet."""
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


def test_too_many_at_once_are_taken_later(bucket: Bucket) -> None:
    """A rate limit is no judgement on the file: it raises, and the platform's next delivery succeeds."""
    context = structs.replace(bucket.service.app.context, ca_rate_per_minute=1)
    bucket.put("mtxpd0/ca/x.pem", ROOT.pem)
    uploaded = bucket.objects.put("mtxpd0/ca/y.pem", certs.ca("Other").pem)
    with pytest.raises(RateLimited):
        on_upload(context, bucket.service.app.sealer, bucket.objects, uploaded, bucket=BUCKET)
    bucket.service.clock.now += timedelta(minutes=1)
    assert on_upload(context, bucket.service.app.sealer, bucket.objects, uploaded, bucket=BUCKET).end is End.DONE


def test_an_org_that_was_deleted_gets_no_receipts(bucket: Bucket) -> None:
    """Nothing is written that would outlive it."""
    delete_org(bucket.service.app.context, "mtxpd0")
    assert bucket.put("mtxpd0/ca/x.pem", ROOT.pem).end is End.IGNORED
    assert bucket.service.app.context.repository.list("activity/mtxpd0/upload", ActivityPage, limit=1) == []
