"""The activity list, the session, the roles of every route, addresses and methods."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from functions.registry import PREFIX
from functions.web.contract import PUBLIC, Route
from shared.errors import StoreUnavailable
from shared.records import Activity, ActivityKind, Role
from shared.refs import activity_id
from shared.usecases.orgs.api_keys import revoke_key
from shared.usecases.orgs.organizations import set_suspended
from shared.version import VERSION
from tests.functions.addresses import ROUTES, client_path, handler_of
from tests.support import certs
from tests.support.certs import DAY, NOON
from tests.support.harness import Client, Service, basic

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"
DENY = "/authorization/denylist"
POLICY = "/authorization/connectionpolicy"
SETTINGS = "/authorization/settings"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Root")
DEVICE = certs.leaf("d:thermo:42", ROOT)


def signed(csr: str) -> str:
    """Return the certificate that a CA issues for a request."""
    request = x509.load_pem_x509_csr(csr.encode())
    cert = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(ROOT.cert.subject)
        .public_key(request.public_key())
        .serial_number(7)
        .not_valid_before(NOON - DAY)
        .not_valid_after(NOON + DAY)
        .sign(ROOT.key, hashes.SHA256())
    )
    return certs.Issued(cert, ROOT.key).pem


# ----------------------------------------------------------------------------------------------------- activity


def test_every_change_has_an_activity_entry(service: Service, operator: Client, viewer: Client) -> None:
    """Newest first, with the caller, the time and the ids; without free text. A call without effect has no entry."""
    server = certs.server(HOST)

    def steps() -> Iterator[Callable[[], Any]]:
        ca: dict[str, str] = {}
        uploaded: dict[str, str] = {}
        csr: dict[str, str] = {}
        denial: dict[str, str] = {}
        yield lambda: ca.update(operator.post(CAS, {"certificate": ROOT.pem, "comments": "secret plan"}).ok(201))
        yield lambda: operator.put(f"{CAS}/{ca['id']}", {"comments": "secret plan b"}).ok()
        yield lambda: operator.put(f"{CAS}/{ca['id']}", {"status": "inactive"}).ok()
        yield lambda: operator.put(f"{CAS}/{ca['id']}", {"status": "active"}).ok()
        yield lambda: uploaded.update(
            operator.post(SERVERS, {"certificate": server.pem, "privateKey": server.key_pem}).ok(201)
        )
        yield lambda: operator.put(f"{SERVERS}/{uploaded['id']}", {"comments": "secret"}).ok()
        yield lambda: operator.put(f"{SERVERS}/active", {"id": uploaded["id"]}).ok()
        yield lambda: csr.update(operator.post(f"{SERVERS}/csr", {"keyAlgorithm": "P-256"}).ok(201))
        yield lambda: operator.post("/fulfillCSR", {"id": csr["id"], "certificate": signed(csr["csr"])}).ok()
        yield lambda: operator.post(f"{SERVERS}/{csr['id']}/renewal", {}).ok(201)
        yield lambda: operator.delete(f"{SERVERS}/{csr['id']}").ok(204)
        yield lambda: operator.put(POLICY, {"default": "TLS Optional"}).ok()
        yield lambda: operator.put(SETTINGS, {"typeCertificates": True}).ok()
        yield lambda: denial.update(
            operator.post(DENY, {"kind": "identity", "value": "d:a:b", "reason": "secret"}).ok(201)
        )
        yield lambda: operator.delete(f"{DENY}/{denial['id']}").ok(204)
        yield lambda: operator.delete(f"{CAS}/{ca['id']}").ok(204)

    for step in steps():
        service.clock.now += timedelta(seconds=1)
        step()
    # calls that change nothing have no entry
    operator.put(POLICY, {"default": "TLS Optional"}).ok()
    operator.put(POLICY, {"default": "TLS Optional"}, version='"0"')
    operator.post(CAS, {"certificate": "nonsense"})
    answer = viewer.get("/activity?kind=change")
    entries = answer.ok()["results"]
    assert [entry["what"] for entry in reversed(entries)] == [
        "createOrg",
        "uploadCA",
        "describeCA",
        "set inactive",
        "set active",
        "uploadServerCert",
        "describeServerCert",
        "activateServerCert",
        "generateCSR",
        "fulfillCSR",
        "renewCSR",
        "deleteServerCert",
        "connectionPolicy",
        "settings",
        "deny",
        "lift",
        "deleteCA",
    ]
    assert entries[0]["at"] == "2026-06-01T12:00:16Z"
    assert {entry["who"] for entry in entries} == {operator.key, "admin"}
    assert {(entry["kind"], entry["result"]) for entry in entries} == {("change", "done")}
    assert entries[9]["detail"].keys() == {"certificate", "previous"}
    assert "secret" not in answer.text


def test_activity_is_paged_to_its_end(service: Service, operator: Client, viewer: Client) -> None:
    """Newest first, page by page. Entries that are added meanwhile are newer, and are on no later page."""
    for number in range(7):
        service.clock.now += timedelta(minutes=1)
        operator.post(DENY, {"kind": "identity", "value": f"d:thermo:{number}"}).ok(201)
    for limit in (1, 2, 3):
        expected = [entry["id"] for entry in viewer.get("/activity").ok()["results"]]
        assert len(expected) > 7
        ids: list[str] = []
        bookmark: str | None = ""
        while bookmark is not None:
            query = {"limit": str(limit), **({"bookmark": bookmark} if bookmark else {})}
            page = viewer.get("/activity", query=query).ok()
            ids += [entry["id"] for entry in page["results"]]
            bookmark = page["bookmark"]
            service.clock.now += timedelta(minutes=1)
            operator.post(DENY, {"kind": "identity", "value": f"d:new{limit}:{len(ids)}"}).ok(201)
        assert ids == expected == sorted(set(expected))


def test_refusals_of_several_writers_are_in_order(service: Service, viewer: Client) -> None:
    """Each process writes groups of refusals that overlap in time. No refusal is lost between two pages."""
    groups = [[9, 8, 5, 1], [9, 7, 6, 2], [4, 3, 2]]
    for group in groups:
        entries = [
            Activity(activity_id(at), at, ActivityKind.REFUSAL, "d:a:b", "connection", "refused", str(second))
            for second in group
            for at in (NOON + timedelta(seconds=second),)
        ]
        service.app.context.repository.append(service.org_id, ActivityKind.REFUSAL, entries)
    for limit in (1, 2, 3, 100):
        codes, bookmark = [], ""
        while bookmark is not None:
            query = {"kind": "refusal", "limit": str(limit), **({"bookmark": bookmark} if bookmark else {})}
            page = viewer.get("/activity", query=query).ok()
            codes += [int(refusal["code"]) for refusal in page["results"]]
            bookmark = page["bookmark"]
        assert codes == sorted((second for group in groups for second in group), reverse=True)


def test_a_refused_connection_is_listed_with_its_certificate(
    service: Service, operator: Client, viewer: Client, broker: Client
) -> None:
    """The device, the server name, the certificate and the refusal. An allowed connection is not listed."""
    operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    stranger = certs.leaf("d:thermo:42", certs.ca("Stranger"))
    fields = {"serverName": HOST, "clientId": "d:mtxpd0:thermo:42"}
    broker.post("/verifyClient", fields | {"certificate": stranger.pem}).ok()
    broker.post("/verifyClient", fields | {"certificate": stranger.pem, "explain": True}).ok()
    broker.post("/verifyClient", fields | {"certificate": DEVICE.pem}).ok()
    assert viewer.get("/activity?kind=refusal").ok()["results"] == []  # written asynchronously
    service.flush()
    [refusal] = viewer.get("/activity?kind=refusal").ok()["results"]
    assert refusal == {
        "id": refusal["id"],
        "at": "2026-06-01T12:00:00Z",
        "kind": "refusal",
        "who": "d:thermo:42",
        "what": "connection",
        "result": "refused",
        "code": "untrusted_issuer",
        "clientId": "d:mtxpd0:thermo:42",
        "serverName": HOST,
        "certificate": stranger.pem,
        "fingerprintSha256": stranger.fingerprint,
        "failing": {"subject": "CN=d:thermo:42", "fingerprintSha256": stranger.fingerprint},
        "step": 6,
        "reason": "The certificate was issued by CN=Stranger, which is not among your CA certificates.",
        "mend": "If CN=Stranger is your CA, add its certificate, or let the device send its intermediate certificates.",
        "askedBy": broker.key,
        "dialect": "native",
        "passed": "certificate",
    }


def test_a_refusal_of_a_device_that_sends_intermediates_is_explained_as_it_was_decided(
    service: Service, operator: Client, viewer: Client, broker: Client
) -> None:
    """The list has everything that the device sent, so the same question has the same answer."""
    operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    inter = certs.ca("Intermediate", ROOT)
    device = certs.leaf("d:thermo:42", inter)
    fields = {"serverName": HOST, "clientId": "d:mtxpd0:thermo:43"}
    refused = broker.post("/verifyClient", fields | {"certificate": certs.bundle(device, inter)}).ok()
    assert refused["code"] == "identity_mismatch"
    service.flush()
    [entry] = viewer.get("/activity?kind=refusal").ok()["results"]
    assert (entry["code"], entry["reason"], entry["mend"]) == (refused["code"], refused["reason"], refused["mend"])
    assert entry["step"] == 10
    asked = fields | {"certificate": entry["certificate"], "explain": True}
    assert viewer.post("/verifyClient", asked).ok()["reason"] == entry["reason"]


def test_a_refusal_shows_a_client_id_that_cannot_be_read(service: Service, viewer: Client, broker: Client) -> None:
    broker.post("/verifyClient", {"serverName": HOST, "clientId": "thermo\n42 " + "x" * 400}).ok()
    service.flush()
    [entry] = viewer.get("/activity?kind=refusal").ok()["results"]
    assert entry["code"] == "client_id_invalid"
    assert entry["clientId"].startswith("thermo?42 xxx")
    assert len(entry["clientId"]) == 256


def test_a_repeated_refusal_is_listed_once(service: Service, viewer: Client, broker: Client) -> None:
    """Among the events that are written together. A device that retries does not fill the list."""
    for number in (1, 2, 1, 2, 1):
        broker.post("/verifyClient", {"serverName": HOST, "clientId": f"d:mtxpd0:thermo:{number}"}).ok()
    service.flush()
    assert len(viewer.get("/activity?kind=refusal").ok()["results"]) == 2


def test_hostile_names_do_not_break_the_list(service: Service, viewer: Client, broker: Client) -> None:
    """Names from a connection are stored shortened and shown unchanged."""
    broker.post("/verifyClient", {"serverName": "x" * 5000, "clientId": "\u202e\0é" * 100}).ok()
    service.flush()
    [refusal] = viewer.get("/activity?kind=refusal").ok()["results"]
    assert (refusal["code"], len(refusal["serverName"])) == ("sni_unknown", 256)


def test_kinds_of_activity(service: Service, viewer: Client, broker: Client) -> None:
    """One or more, separated by commas; all without the parameter. Unknown kinds are refused."""
    service.clock.now += timedelta(seconds=1)
    broker.post("/verifyClient", {"serverName": HOST}).ok()
    service.flush()

    def kinds(query: str) -> list[str]:
        return [entry["kind"] for entry in viewer.get(f"/activity{query}").ok()["results"]]

    assert kinds("") == kinds("?kind=change,refusal") == kinds("?kind=") == ["refusal", "change"]
    assert kinds("?kind=refusal") == ["refusal"]
    assert kinds("?kind=change,change") == ["change"]
    assert kinds("?kind=upload,edge") == []
    refused = viewer.get("/activity?kind=change,secrets")
    assert (refused.status, refused.code) == (400, "wrong_value")
    assert refused.json["detail"].startswith("kind takes change, upload, refusal, edge.")


# ------------------------------------------------------------------------------------------------------ session


def test_who_is_signed_in(service: Service, operator: Client, viewer: Client) -> None:
    for client, role in ((operator, "operator"), (viewer, "viewer")):
        assert client.get("/session").ok() == {
            "org": "mtxpd0",
            "role": role,
            "messagingHost": HOST,
            "key": client.key,
            "version": VERSION,
        }


def test_where_to_sign_in_and_whether_it_answers(service: Service) -> None:
    """Both are public. Without a configured issuer the sign-in is empty."""
    assert service.anonymous.get("//signin").ok() == {}
    assert service.anonymous.get("//healthz").ok() == {"status": "ok"}


# -------------------------------------------------------------------------------------------------------- roles


# Dialects answer in the broker's own format; tests/functions/dialects has their table.
ASKED_IN_HTTP = [route for route in ROUTES if not route.endpoint.is_dialect]


def address(route: Route) -> str:
    """Return the path for `Client`, with an id that does not exist."""
    return client_path(route, id="0" * 32, serverName=HOST)


# Handlers that read the caller and the rest in a single batch parse the body first.
BODIES = {
    "verify_client": b'{"explain": true}',
    "served": b'{"edge": "one", "hosts": [{"serverName": "x", "version": "x"}]}',
}


def send(client: Client, route: Route) -> tuple[int, str | None]:
    body = BODIES.get(handler_of(route), b"{}")
    answer = client.send(route.method, address(route), body, headers={"if-match": "*"})
    return answer.status, answer.json.get("code") if answer.status >= 400 else None


def test_every_route_by_every_caller(service: Service) -> None:
    """401 without a valid key and token, 403 without the role, 403 while the organization is suspended."""
    revoked = service.client("operator")
    revoke_key(service.app.context, revoked.key)
    operator = service.client("operator")
    strangers = [
        service.anonymous,
        revoked,
        Client(service.app, operator.key, "wrong"),
        Client(service.app, operator.key, ""),
        Client(service.app, f"a-mtxpd0-{'0' * 10}", operator.token),
        Client(service.app, operator.key.replace("mtxpd0", "nobody"), operator.token),
        Client(service.app, "admin", operator.token),
    ]
    members = {role: service.client(role) for role in Role}
    platform = {role: service.platform(role) for role in (Role.BROKER, Role.EDGE)}
    wrong: list[object] = []
    for route in ASKED_IN_HTTP:
        if route.endpoint.roles == PUBLIC:
            wrong += [(route, client.key) for client in [*strangers, operator] if send(client, route)[0] != 200]
            continue
        wrong += [(route, client.key) for client in strangers if send(client, route) != (401, "not_authenticated")]
        for role, member in members.items():
            answer = send(member, route)
            may = role in route.endpoint.roles
            if (answer == (403, "forbidden")) is may or answer[0] == 401 or answer[0] >= 500:
                wrong.append((route, role, answer))
        for role, client in platform.items():
            answer = send(client, route)
            if (answer == (403, "forbidden")) is (role in route.endpoint.roles):
                wrong.append((route, client.key, answer))
    assert wrong == []
    set_suspended(service.app.context, service.org_id, True)
    for route in ASKED_IN_HTTP:
        # verifyClient answers with a verdict, and an edge must learn that the organization's hosts are gone.
        if route.endpoint.roles != PUBLIC and route.endpoint.function not in ("verifyClient", "edgeFeed"):
            for name in route.endpoint.roles:
                assert send(members[Role(name)], route) == (403, "org_suspended")


@pytest.mark.parametrize(
    "header",
    ["Bearer x", "Basic", "Basic !!!", "Basic " + "A" * 5000, "Basic w6k=", basic("a-mtxpd0-\n", "x"), "é", ""],
)
def test_malformed_credentials_are_refused(service: Service, header: str) -> None:
    answer = service.anonymous.send("GET", CAS, headers={"authorization": header})
    assert (answer.status, answer.code) == (401, "not_authenticated")


def test_a_page_gets_no_basic_challenge(service: Service) -> None:
    """WWW-Authenticate would open the browser's own prompt. Other clients get it (RFC 9110, 15.5.2)."""
    assert service.anonymous.get(CAS).reply.headers["WWW-Authenticate"].startswith("Basic ")
    page = service.anonymous.send("GET", CAS, headers={"sec-fetch-mode": "cors"})
    assert (page.status, "WWW-Authenticate" in page.reply.headers) == (401, False)


def test_a_refusal_names_the_missing_role(viewer: Client) -> None:
    refused = viewer.post(CAS, {"certificate": ROOT.pem})
    assert refused.json["detail"] == (
        "This API key has the role viewer; this call needs the role operator. Use an API key with the role operator."
    )


# -------------------------------------------------------------------------------------------- addresses, methods


def test_head_is_get_without_a_body(service: Service, viewer: Client) -> None:
    """HEAD has GET's headers (RFC 9110, 9.3.2)."""
    for path in (CAS, f"{SERVERS}/default", "//healthz", "/session"):
        head, get = viewer.send("HEAD", path), viewer.get(path)
        assert (head.status, head.reply.body, head.reply.content_type) == (200, b"", get.reply.content_type)
        assert head.reply.headers == {**get.reply.headers, "content-length": str(len(get.reply.body))}
    assert service.anonymous.send("HEAD", CAS).status == 401


def test_unknown_addresses_are_not_found(viewer: Client) -> None:
    for path in ("/", "", "//", "///", "/authentication", "/nothing", "//uploadca", f"{CAS}/a/b", "//api/v0001/session",
                 f"{CAS}//", "//%2e%2e/session", "//api%2Fv0002/session", f"//{PREFIX}/session"):  # fmt: skip
        answer = viewer.get(path)
        assert (answer.status, answer.code) == (404, "not_found"), path
        assert answer.reply.content_type == "application/problem+json"


def test_a_trailing_slash_is_ignored(viewer: Client) -> None:
    assert viewer.get(f"{CAS}/").status == 200
    assert viewer.get("//healthz/").status == 200


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (CAS, "GET, POST"),
        (f"{CAS}/x", "DELETE, GET, PUT"),
        (f"{CAS}/x/pem", "GET"),
        ("/uploadCA", "POST"),
        ("//uploadCA", "POST"),
        (f"{SERVERS}/x/renewal", "POST"),
        (POLICY, "GET, PUT"),
        ("//healthz", "GET"),
    ],
)
def test_a_method_that_is_not_allowed_gets_the_allowed_methods(operator: Client, path: str, allow: str) -> None:
    """405 with Allow (RFC 9110, 15.5.6), for every caller."""
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "x" * 99} - set(allow.split(", ")):
        answer = operator.send(method, path)
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.reply.headers["Allow"] == allow


# ----------------------------------------------------------------------------------------------------- failures


def test_a_store_that_does_not_answer(service: Service, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After on every route that needs the store; the other routes still answer."""

    def down(*_: object) -> None:
        raise StoreUnavailable

    edge = service.client("edge")
    monkeypatch.setattr(service.store, "get_many", down)
    for route in ASKED_IN_HTTP:
        client = edge if route.endpoint.function == "edgeFeed" else operator
        answer = client.send(
            route.method, address(route), BODIES.get(handler_of(route), b"{}"), headers={"if-match": "*"}
        )
        if route.endpoint.roles == PUBLIC:
            assert answer.status == 200
        elif route.endpoint.function != "verifyClient":
            assert (answer.status, answer.code, answer.reply.headers["Retry-After"]) == (503, "unavailable", "2")


def test_a_change_that_the_store_refuses(service: Service, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """503: nothing was changed, or the change may be repeated; the repeated change is complete."""

    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable

    server = certs.server(HOST)
    calls: list[Callable[[], Any]] = [
        lambda: operator.post(CAS, {"certificate": ROOT.pem}),
        lambda: operator.post(SERVERS, {"certificate": server.pem, "privateKey": server.key_pem}),
        lambda: operator.put(POLICY, {"default": "TLS Optional"}),
        lambda: operator.post(DENY, {"kind": "identity", "value": "d:a:b"}),
    ]
    for call in calls:
        with monkeypatch.context() as patched:
            patched.setattr(service.store, "put", down)
            answer = call()
            assert (answer.status, answer.code) == (503, "unavailable")
        assert call().status in (200, 201)
    assert len(operator.get(CAS).ok()["results"]) == 1
    assert len(operator.get(SERVERS).ok()["results"]) == 2


def test_an_unexpected_error_shows_only_an_id(
    service: Service, operator: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 with an id that is in the log too. Neither has the text of the error, which may quote a secret."""

    secret = f"passphrase is {DEVICE.fingerprint}"

    def broken(*_: object) -> None:
        raise RuntimeError(secret)

    monkeypatch.setattr(service.store, "get_many", broken)
    answer = operator.get(CAS)
    assert (answer.status, answer.code) == (500, "internal")
    number = answer.json["detail"].removesuffix(".").rpartition(" ")[2]
    assert number in caplog.text
    verdict = operator.post("/verifyClient", {"explain": True}).ok()
    assert verdict["code"] == "unavailable"
    assert DEVICE.fingerprint not in caplog.text + answer.text + str(verdict)
