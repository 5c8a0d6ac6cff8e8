"""manageCertificates over HTTP: lists, records, their versions, downloads, dry runs, previews."""

import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from tests.support import certs
from tests.support.certs import DAY, NOON
from tests.support.harness import Client, Service
from tests.support.openssl import OpenSSL

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"
PREVIEW = "/authentication/preview"
DENY = "/authorization/denylist"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Root")
DEVICE = certs.leaf("d:thermo:42", ROOT)


def add_ca(operator: Client, number: int, name: str | None = None) -> str:
    """Add a CA with its own name, or another CA with *name*. Return its id."""
    ca = certs.ca(name or f"CA {number}", private=certs.key("P-256", 600 + number))
    ca_id: str = operator.post(CAS, {"certificate": ca.pem}).ok(201)["id"]
    return ca_id


def add_server(operator: Client, number: int) -> str:
    server = certs.server(HOST, private=certs.key("P-256", 700 + number))
    fields = {"certificate": server.pem, "privateKey": server.key_pem}
    server_id: str = operator.post(SERVERS, fields).ok(201)["id"]
    return server_id


def add_denial(operator: Client, number: int) -> str:
    denial_id: str = operator.post(DENY, {"kind": "identity", "value": f"d:thermo:{number}"}).ok(201)["id"]
    return denial_id


def read_all(client: Client, path: str, limit: int, between: Callable[[int], None] = lambda _: None) -> list[str]:
    """Return the ids of a whole list, read page by page; *between* is called with the number of pages read so far."""
    ids: list[str] = []
    bookmark, pages = "", 0
    while True:
        query = {"limit": str(limit), **({"bookmark": bookmark} if bookmark else {})}
        page = client.get(path, query=query).ok()
        assert len(page["results"]) <= limit
        ids += [entry["id"] for entry in page["results"]]
        pages += 1
        if page["bookmark"] is None:
            return ids
        bookmark = page["bookmark"]
        between(pages)
        assert pages < 100


# -------------------------------------------------------------------------------------------------------- lists


LISTS: dict[str, Callable[[Client, int], str]] = {CAS: add_ca, SERVERS: add_server, DENY: add_denial}


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_list_is_paged_to_its_end(operator: Client, viewer: Client, path: str, limit: int) -> None:
    """Ordered by id, each entry once, `default` first. The last page has no bookmark."""
    made = sorted(LISTS[path](operator, number) for number in range(6))
    expected = ["default", *made] if path == SERVERS else made
    assert read_all(viewer, path, limit) == expected
    assert read_all(viewer, path, len(expected)) == expected
    assert [entry["id"] for entry in viewer.get(path).ok()["results"]] == expected


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_list_is_paged_to_its_end_under_changes(operator: Client, path: str, limit: int) -> None:
    """An entry that exists throughout is listed exactly once, also if the last entry of a page is deleted."""
    made = sorted(LISTS[path](operator, number) for number in range(8))
    gone: set[str] = set()

    def delete_the_last_listed(pages: int) -> None:
        listed = made[: pages * limit - (path == SERVERS)]
        if listed and listed[-1] not in gone:
            operator.delete(f"{path}/{listed[-1]}").ok(204)
            gone.add(listed[-1])

    ids = read_all(operator, path, limit, delete_the_last_listed)
    assert len(gone) > 1
    assert ids == (["default", *made] if path == SERVERS else made)


def test_cas_of_one_name_across_pages(operator: Client) -> None:
    """CAs of one subject are stored together. A page may end among them, or with the last of them."""
    made = sorted([*(add_ca(operator, n, "Same") for n in range(5)), add_ca(operator, 6), add_ca(operator, 7)])
    for limit in (1, 2, 3, 5):
        assert read_all(operator, CAS, limit) == made


def test_serials_of_one_issuer_across_pages(operator: Client) -> None:
    """Several entries of the deny list may share their look-up, or the beginning of it."""
    issuers = [add_ca(operator, n, "Same") for n in range(3)]
    made = sorted(
        operator.post(DENY, {"kind": "serial", "value": f"{issuer}:{serial}"}).ok(201)["id"]
        for issuer in issuers
        for serial in ("1", "10", "1a")
    )
    for limit in (1, 2, 4):
        assert read_all(operator, DENY, limit) == made


@pytest.mark.parametrize("path", [*LISTS, "/activity"])
def test_an_invalid_limit_or_bookmark_is_refused(viewer: Client, path: str) -> None:
    for query in ("limit=0", "limit=201", "limit=x", "limit=", "limit=-1", "limit=1e2", "limit=٣"):
        refused = viewer.get(f"{path}?{query}")
        assert (refused.status, refused.code) == (400, "wrong_value")
        assert refused.json["violations"][0]["field"] == "limit"
    for bookmark in ("x" * 201, "../../org", "a\0b", "\x1f", "é", "a/b"):
        refused = viewer.get(path, query={"bookmark": bookmark})
        assert (refused.status, refused.json["violations"][0]["field"]) == (400, "bookmark")


# ----------------------------------------------------------------------------------------- records and versions


def test_describing_a_ca(service: Service, operator: Client) -> None:
    """Comments and status can change; a field that is not sent is unchanged. The view has the caller and the time.

    A change to the same values makes no new version.
    """
    ca = operator.post(CAS, {"certificate": ROOT.pem, "comments": "first"})
    path = f"{CAS}/{ca.json['id']}"
    assert operator.get(path).etag == ca.etag
    service.clock.now += timedelta(hours=1)
    other = service.client("operator")
    after = other.put(path, {"comments": "second"}, version=ca.etag)
    assert after.ok()["comments"] == "second"
    assert after.json["status"] == "active"
    assert (after.json["createdBy"], after.json["updatedBy"]) == (operator.key, other.key)
    assert (after.json["createdAt"], after.json["updatedAt"]) == ("2026-06-01T12:00:00Z", "2026-06-01T13:00:00Z")
    assert after.etag == f'"{after.json["version"]}"' != ca.etag
    same = other.put(path, {"comments": "second", "status": "active"}, version=after.etag)
    assert (same.ok()["version"], other.put(path, {}).etag) == (after.json["version"], after.etag)


def test_describing_a_server_certificate(operator: Client) -> None:
    server_id = add_server(operator, 1)
    path = f"{SERVERS}/{server_id}"
    before = operator.get(path)
    after = operator.put(path, {"comments": "spring"}, version=before.etag)
    assert after.ok()["comments"] == "spring"
    assert operator.get(path).etag == after.etag != before.etag
    assert operator.put(path, {"comments": "spring"}, version=after.etag).etag == after.etag


@pytest.mark.parametrize("kind", ["ca", "server"])
def test_a_change_needs_the_version_it_is_based_on(service: Service, operator: Client, kind: str) -> None:
    """428 without If-Match; 412 with an old version, with the caller and the time of the change; `*` overrides."""
    path = f"{CAS}/{add_ca(operator, 1)}" if kind == "ca" else f"{SERVERS}/{add_server(operator, 1)}"
    seen_names = operator.get(path).etag
    missing = operator.put(path, {"comments": "mine"}, version=None)
    assert (missing.status, missing.code) == (428, "precondition_required")
    service.clock.now += timedelta(minutes=90)
    other = service.client("operator")
    other.put(path, {"comments": "theirs"}, version=seen_names).ok()
    stale = operator.put(path, {"comments": "mine"}, version=seen_names)
    assert (stale.status, stale.code) == (412, "stale")
    assert stale.json["detail"].startswith(f"{other.key} changed this record at 1 Jun 2026, 13:30 UTC.")
    assert operator.delete(path, version=seen_names).status == 412
    assert operator.get(path).ok()["comments"] == "theirs"
    assert operator.put(path, {"comments": "mine"}, version="*").ok()["comments"] == "mine"
    for malformed in ('W/"abc"', '"a", "b"', '""', "a b", "\x00"):
        refused = operator.put(path, {"comments": "x"}, version=malformed)
        assert (refused.status, refused.code) == (400, "wrong_value")
    operator.delete(path, version=operator.get(path).etag).ok(204)
    assert operator.get(path).status == 404


def test_a_thing_deleted_and_made_again_has_a_new_version(operator: Client) -> None:
    first = operator.post(CAS, {"certificate": ROOT.pem})
    path = f"{CAS}/{first.json['id']}"
    operator.delete(path).ok(204)
    assert operator.post(CAS, {"certificate": ROOT.pem}).etag != first.etag
    assert operator.put(path, {"comments": "x"}, version=first.etag).status == 412


def test_an_invalid_change_is_refused(operator: Client) -> None:
    path = f"{CAS}/{add_ca(operator, 1)}"
    for body in ({"status": "deleted"}, {"status": "ACTIVE"}, {"comments": 5}, {"subject": "CN=x"}):
        assert operator.put(path, body).status == 400
    assert operator.put(f"{SERVERS}/{add_server(operator, 1)}", {}).code == "missing_field"


def test_an_unknown_id_is_not_found(operator: Client) -> None:
    """404 with the same code for every form of id."""
    known = add_ca(operator, 1)
    for path in (f"{CAS}/{'0' * 16}-{'0' * 32}", f"{CAS}/{known[:16]}-{'0' * 32}", f"{CAS}/{known[:16]}"):
        for answer in (
            operator.get(path),
            operator.get(f"{path}/pem"),
            operator.put(path, {}),
            operator.delete(path),
            operator.delete(f"{path}?dryrun=true"),
        ):
            assert (answer.status, answer.code) == (404, "not_found")
    for tail in ("", "/pem", "/csr"):
        assert operator.get(f"{SERVERS}/{'0' * 32}{tail}").code == "not_found"


def test_downloads(operator: Client, viewer: Client) -> None:
    """A CA, and a server certificate with its chain, are PEM files."""
    ca = operator.post(CAS, {"certificate": base64.b64encode(ROOT.der).decode()}).ok(201)["id"]
    file = viewer.get(f"{CAS}/{ca}/pem")
    assert (file.status, file.text, file.reply.content_type) == (200, ROOT.pem, "application/x-pem-file")
    assert file.reply.headers["Content-Disposition"] == f'attachment; filename="{ca}.pem"'
    server = certs.server(HOST, ROOT)
    fields = {"certificate": certs.bundle(ROOT, server), "privateKey": server.key_pem}
    entry = operator.post(SERVERS, fields).ok(201)["id"]
    assert viewer.get(f"{SERVERS}/{entry}/pem").text == certs.bundle(server, ROOT)
    assert viewer.get(f"{SERVERS}/{entry}/csr").code == "not_found"


# ---------------------------------------------------------------------------------------------- use and dry run


def connect(broker: Client, device: certs.Issued = DEVICE, *sent: certs.Issued) -> str:
    fields = {"serverName": HOST, "certificate": certs.bundle(device, *sent)}
    decision: str = broker.post("/verifyClient", fields).ok()["decision"]
    return decision


def test_when_a_ca_was_used(service: Service, operator: Client, broker: Client) -> None:
    """lastUsed and the connections of the last 30 days, as soon as the connection events are written."""
    ca = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    assert connect(broker) == "allow"
    service.clock.now += timedelta(hours=2)
    connect(broker)
    connect(broker, certs.leaf("d:thermo:42", certs.ca("Stranger")))  # a refusal is no use of the CA
    assert operator.get(f"{CAS}/{ca}").ok()["lastUsed"] is None
    service.flush()
    view = operator.get(f"{CAS}/{ca}").ok()
    assert (view["lastUsed"], view["connections30d"]) == ("2026-06-01T14:00:00Z", 2)
    [listed] = operator.get(CAS).ok()["results"]
    assert (listed["lastUsed"], listed["connections30d"]) == ("2026-06-01T14:00:00Z", 2)
    service.clock.now += 10 * DAY
    connect(broker)
    service.flush()
    assert operator.get(f"{CAS}/{ca}").ok()["connections30d"] == 3
    service.clock.now += 25 * DAY
    view = operator.get(f"{CAS}/{ca}").ok()
    assert (view["lastUsed"], view["connections30d"]) == ("2026-06-11T14:00:00Z", 1)


def test_an_explained_verdict_is_no_use(service: Service, operator: Client, viewer: Client) -> None:
    ca = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)["id"]
    fields = {"serverName": HOST, "certificate": DEVICE.pem, "explain": True}
    assert viewer.post("/verifyClient", fields).ok()["decision"] == "allow"
    service.flush()
    assert operator.get(f"{CAS}/{ca}").ok()["lastUsed"] is None


def test_the_effect_of_deleting_a_ca(service: Service, operator: Client, broker: Client) -> None:
    """`?dryrun=true` shows the use of the CA, and the active CAs of the same name and key."""
    old, new = certs.ca("Root"), certs.ca("Root")
    ids = [operator.post(CAS, {"certificate": ca.pem}).ok(201)["id"] for ca in (old, new)]
    other = add_ca(operator, 1, "Root")  # same name, another key: it vouches for no device of the others
    connect(broker, certs.leaf("d:thermo:42", old))
    service.flush()
    used, spare = ids if operator.get(f"{CAS}/{ids[0]}").ok()["lastUsed"] else ids[::-1]
    judged = {"certificates": 1, "since": "2026-06-01T12:00:00Z", "refused": 0, "codes": {}, "admitted": 0}
    effect = {
        "connections30d": 1,
        "lastUsed": "2026-06-01T12:00:00Z",
        "alsoVouchedBy": [spare],
        "lastActive": False,
        "judged": judged,
    }
    assert operator.delete(f"{CAS}/{used}?dryrun=true").ok() == effect
    assert operator.put(f"{CAS}/{used}?dryrun=true", {"status": "inactive"}).ok() == effect
    assert operator.get(f"{CAS}/{used}").ok()["status"] == "active"
    operator.put(f"{CAS}/{spare}", {"status": "inactive"}).ok()
    assert operator.delete(f"{CAS}/{used}?dryrun=true").ok()["alsoVouchedBy"] == []
    assert operator.delete(f"{CAS}/{spare}?dryrun=true").ok() == {
        "connections30d": 0,
        "lastUsed": None,
        "alsoVouchedBy": [used],
        "lastActive": False,
        "judged": judged,
    }
    operator.put(f"{CAS}/{other}", {"status": "inactive"}).ok()
    assert operator.delete(f"{CAS}/{used}?dryrun=true").ok()["lastActive"] is True
    operator.put(f"{CAS}/{spare}", {"status": "active"}).ok()
    operator.delete(f"{CAS}/{used}").ok(204)
    assert connect(broker, certs.leaf("d:thermo:42", old)) == "allow"  # as the dry run promised


@pytest.mark.parametrize(
    "limit",
    [
        {"more": [(x509.ExtendedKeyUsage([certs.SERVER_AUTH]), False)]},
        {"path_length": 0},
        {"more": [(x509.NameConstraints([x509.DNSName("example.org")], None), True)]},
        {"not_after": certs.NOON - certs.DAY},
        {"not_before": certs.NOON + certs.DAY},
    ],
    ids=["for servers", "path length", "name constraints", "expired", "not yet valid"],
)
def test_a_ca_with_a_further_limit_is_not_promised_to_vouch(
    service: Service, operator: Client, broker: Client, limit: dict[str, Any]
) -> None:
    """The dry run names no CA whose devices are then refused, and the certificates that were seen say what happens."""
    own = certs.ca("Root")
    limit = dict(limit)  # the cases are shared by the stores
    ended = {name: limit.pop(name) for name in ("not_after", "not_before") if name in limit}
    start = service.clock.now
    if ended:  # a CA that is not valid now cannot be uploaded now
        service.clock.now = ended.get("not_after", start) - certs.DAY if "not_after" in ended else start + 2 * certs.DAY
    other = certs.ca("Root", private=own.key, **ended, **limit)
    operator.post(CAS, {"certificate": other.pem}).ok(201)
    service.clock.now = start
    used = operator.post(CAS, {"certificate": own.pem}).ok(201)["id"]
    inter = certs.ca("Inter", own)
    leaf = certs.leaf("d:thermo:42", inter, dns=["device.example.com"])
    assert connect(broker, leaf, inter) == "allow"
    service.flush()
    effect = operator.put(f"{CAS}/{used}?dryrun=true", {"status": "inactive"}).ok()
    assert effect["alsoVouchedBy"] == []
    assert effect["judged"]["refused"] == 1
    operator.put(f"{CAS}/{used}", {"status": "inactive"}).ok()
    assert connect(broker, leaf, inter) == "deny"


def test_what_activating_a_ca_would_do(service: Service, operator: Client, broker: Client) -> None:
    """The status in the body decides what is rehearsed. A device that is allowed again is counted."""
    own = certs.ca("Root")
    ca = operator.post(CAS, {"certificate": own.pem}).ok(201)["id"]
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    leaf = certs.leaf("d:thermo:42", own)
    assert connect(broker, leaf) == "deny"
    service.flush()
    for status, admitted in (("active", 1), ("inactive", 0)):
        judged = operator.put(f"{CAS}/{ca}?dryrun=true", {"status": status}).ok()["judged"]
        assert (judged["certificates"], judged["admitted"], judged["refused"]) == (1, admitted, 0)
    operator.put(f"{CAS}/{ca}", {"status": "active"}).ok()
    assert connect(broker, leaf) == "allow"


def test_deleting_and_deactivating_differ_for_a_cross_signed_ca(
    service: Service, operator: Client, broker: Client
) -> None:
    """A deactivated CA blocks every certificate with its name and key; a deleted CA does not. The dry runs say so."""
    old, new = certs.ca("Old Root"), certs.ca("New Root")
    crossed = certs.ca("New Root", old, private=new.key)
    operator.post(CAS, {"certificate": old.pem}).ok(201)
    ca = operator.post(CAS, {"certificate": new.pem}).ok(201)["id"]
    leaf = certs.leaf("d:thermo:42", new)
    assert connect(broker, leaf, crossed) == "allow"
    service.flush()
    deactivated = operator.put(f"{CAS}/{ca}?dryrun=true", {"status": "inactive"}).ok()["judged"]
    deleted = operator.delete(f"{CAS}/{ca}?dryrun=true").ok()["judged"]
    assert (deactivated["refused"], deactivated["codes"], deleted["refused"]) == (1, {"ca_inactive": 1}, 0)
    operator.put(f"{CAS}/{ca}", {"status": "inactive"}).ok()
    assert connect(broker, leaf, crossed) == "deny"
    operator.delete(f"{CAS}/{ca}").ok(204)
    assert connect(broker, leaf, crossed) == "allow"


def test_a_denied_device_is_not_counted(service: Service, operator: Client, broker: Client) -> None:
    """What is refused anyway is no effect of the change."""
    own = certs.ca("Root")
    ca = operator.post(CAS, {"certificate": own.pem}).ok(201)["id"]
    leaf = certs.leaf("d:thermo:42", own)
    assert connect(broker, leaf) == "allow"
    service.flush()
    operator.post("/authorization/denylist", {"certificate": leaf.pem}).ok(201)
    assert operator.delete(f"{CAS}/{ca}?dryrun=true").ok()["judged"]["refused"] == 0


def test_a_ca_beside_an_inactive_one_is_announced(service: Service, operator: Client, broker: Client) -> None:
    """Such a certificate allows the devices of the inactive CA again: a warning says so, and the activity list."""
    old = certs.ca("Root")
    renewed = certs.ca("Root", private=old.key)
    first = operator.post(CAS, {"certificate": old.pem}).ok(201)["id"]
    operator.put(f"{CAS}/{first}", {"status": "inactive"}).ok()
    added = operator.post(CAS, {"certificate": renewed.pem}).ok(201)
    assert [warning["code"] for warning in added["warnings"]] == ["reactivates"]
    assert first in added["warnings"][0]["message"]
    assert connect(broker, certs.leaf("d:thermo:42", old)) == "allow"
    details = [entry["detail"] for entry in operator.get("/activity").ok()["results"]]
    assert {"certificate": added["id"], "reactivates": first} in details
    assert operator.post(CAS, {"certificate": renewed.pem}).ok(200)["warnings"] == []
    of_another_key = certs.ca("Root", private=certs.key("P-256", 77))
    assert operator.post(CAS, {"certificate": of_another_key.pem}).ok(201)["warnings"] == []


def test_a_ca_can_be_stored_inactive(operator: Client, broker: Client) -> None:
    own = certs.ca("Root")
    added = operator.post(CAS, {"certificate": own.pem, "status": "inactive"}).ok(201)
    assert added["status"] == "inactive"
    assert connect(broker, certs.leaf("d:thermo:42", own)) == "deny"
    operator.put(f"{CAS}/{added['id']}", {"status": "active"}).ok()
    assert connect(broker, certs.leaf("d:thermo:42", own)) == "allow"


def test_a_dry_run_is_true_or_false(operator: Client) -> None:
    ca = add_ca(operator, 1)
    assert operator.delete(f"{CAS}/{ca}?dryrun=maybe").code == "wrong_value"
    assert operator.get(f"{CAS}/{ca}").status == 200


# -------------------------------------------------------------------------------------------------------- preview


def preview(client: Client, certificate: str | bytes) -> Any:
    if isinstance(certificate, bytes):
        return client.form(PREVIEW, {"certificate": certificate}).ok()
    return client.post(PREVIEW, {"certificate": certificate}).ok()


def test_preview_of_a_ca(service: Service, viewer: Client) -> None:
    """The fields of the certificate, and whether it would be accepted; nothing is saved."""
    viewer.get("/session").ok()
    writes = service.store.calls["put"]
    result = preview(viewer, ROOT.pem)
    assert (result["subject"], result["issuer"], result["selfSigned"]) == ("CN=Root", "CN=Root", True)
    assert result["fingerprintSha256"] == ROOT.fingerprint
    assert (result["ca"]["accepted"], result["server"]["accepted"]) == (True, False)
    assert result["server"]["code"] == "host_mismatch"
    assert preview(viewer, ROOT.der) == result
    assert service.store.calls["put"] == writes


def test_preview_of_a_ca_that_is_registered(service: Service, operator: Client, viewer: Client) -> None:
    """Here, and not at another organization."""
    assert preview(viewer, ROOT.pem)["registered"] is None
    stored = operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    assert preview(viewer, ROOT.der)["registered"] == {"id": stored["id"], "createdAt": stored["createdAt"]}
    other = service.client("viewer", service.other_org("other1"))
    assert preview(other, ROOT.pem)["registered"] is None


def test_preview_of_a_server_certificate(viewer: Client) -> None:
    """With the warnings of an upload."""
    result = preview(viewer, certs.server(HOST, ROOT).pem)
    assert (result["names"], result["selfSigned"]) == ([HOST], False)
    assert (result["ca"]["accepted"], result["ca"]["code"]) == (False, "not_a_ca")
    assert (
        result["ca"]["message"] == "This is not a CA certificate: it does not say CA:TRUE. "
        "Add the CA certificate that signed it, CN=Root (usually ca.pem or root.pem)."
    )
    assert result["server"]["accepted"] is True
    assert [warning["code"] for warning in result["server"]["warnings"]] == ["chain_incomplete", "sni_required"]


def test_preview_of_other_certificates(viewer: Client) -> None:
    """A device's certificate, an expired CA, a chain, and a key type that no server may have."""
    device = preview(viewer, DEVICE.pem)
    assert (device["ca"]["code"], device["server"]["code"]) == ("not_a_ca", "host_mismatch")
    assert preview(viewer, certs.ca("Old", not_after=NOON - DAY).pem)["ca"]["code"] == "certificate_expired"
    chain = preview(viewer, certs.bundle(certs.server(HOST, ROOT), ROOT))
    assert (chain["ca"]["code"], chain["server"]["accepted"]) == ("several_certificates", True)
    p7b = pkcs7.serialize_certificates([certs.server(HOST, ROOT).cert, ROOT.cert], serialization.Encoding.PEM)
    assert preview(viewer, p7b)["server"]["accepted"] is True
    edwards = preview(viewer, certs.ca("Ed", private=certs.key("Ed25519")).pem)
    assert (edwards["ca"]["accepted"], edwards["server"]["code"]) == (True, "key_unsupported")


def test_preview_of_other_files(viewer: Client, openssl: OpenSSL) -> None:
    """422 with the code of an upload; the answer does not repeat a private key."""
    openssl("req -new -newkey rsa:2048 -nodes -keyout k.pem -out r.pem -subj", "/CN=Request")
    openssl("req -in r.pem -outform DER -out r.der")
    p12 = pkcs12.serialize_key_and_certificates(
        b"x",
        certs.key("P-256", 1),
        certs.server(HOST, private=certs.key("P-256", 1)).cert,
        None,
        serialization.NoEncryption(),
    )
    for sent, code in (
        (ROOT.key_pem.encode(), "private_key_given"),
        (openssl.bytes("r.pem"), "csr_given"),
        (openssl.bytes("r.der"), "csr_given"),
        (p12, "not_a_certificate"),
        (b"hello", "not_a_certificate"),
        (b"", "not_a_certificate"),
        (bytes(range(256)), "not_a_certificate"),
        (ROOT.der[:-5], "not_a_certificate"),
    ):
        refused = viewer.form(PREVIEW, {"certificate": sent})
        assert (refused.status, refused.code) == (422, code)
        assert ROOT.key_pem.splitlines()[1] not in refused.text
