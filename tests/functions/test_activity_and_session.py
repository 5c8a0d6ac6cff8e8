"""The activity list; who is signed in; who may call what; addresses and methods."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from functions.routes import ANYBODY, PREFIX, ROUTES, Route
from functions.web.contract import CONTRACTS
from shared.errors import StoreUnavailable
from shared.records import Activity, ActivityKind, Role
from shared.repository import activity_id
from shared.usecases.orgs.api_keys import revoke_key
from shared.usecases.orgs.organizations import set_suspended
from tests import certs
from tests.certs import DAY, NOON
from tests.harness import Client, Service, basic

CAS = "/authentication/cacertificates"
SERVERS = "/authentication/servercertificates"
DENY = "/authorization/denylist"
POLICY = "/authorization/connectionpolicy"
SETTINGS = "/authorization/settings"
HOST = "mtxpd0.messaging.example.com"
ROOT = certs.ca("Root")
DEVICE = certs.leaf("d:thermo:42", ROOT)


def signed(csr: str) -> str:
    """What a CA makes of a request."""
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


def test_every_change_is_told(service: Service, operator: Client, viewer: Client) -> None:
    """One line each, newest first, with who, when and what it was about; nobody's free text, and nothing unchanged."""
    server = certs.server(HOST)

    def steps() -> Iterator[Callable[[], Any]]:
        ca: dict[str, str] = {}
        one: dict[str, str] = {}
        csr: dict[str, str] = {}
        denial: dict[str, str] = {}
        yield lambda: ca.update(operator.post(CAS, {"certificate": ROOT.pem, "comments": "secret plan"}).ok(201))
        yield lambda: operator.put(f"{CAS}/{ca['id']}", {"comments": "secret plan b"}).ok()
        yield lambda: operator.put(f"{CAS}/{ca['id']}", {"status": "inactive"}).ok()
        yield lambda: operator.put(f"{CAS}/{ca['id']}", {"status": "active"}).ok()
        yield lambda: one.update(
            operator.post(SERVERS, {"certificate": server.pem, "privateKey": server.key_pem}).ok(201)
        )
        yield lambda: operator.put(f"{SERVERS}/{one['id']}", {"comments": "secret"}).ok()
        yield lambda: operator.put(f"{SERVERS}/active", {"id": one["id"]}).ok()
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
    # what changes nothing leaves no line
    operator.put(POLICY, {"default": "TLS Optional"}).ok()
    operator.put(POLICY, {"default": "TLS Optional"}, version='"0"')
    operator.post(CAS, {"certificate": "nonsense"})
    answer = viewer.get("/activity?kind=change")
    told = answer.ok()["results"]
    assert [one["what"] for one in reversed(told)] == [
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
    assert told[0]["at"] == "2026-06-01T12:00:16Z"
    assert {one["who"] for one in told} == {operator.key, "admin"}
    assert {(one["kind"], one["result"]) for one in told} == {("change", "done")}
    assert told[9]["detail"].keys() == {"certificate", "previous"}
    assert "secret" not in answer.text


def test_activity_is_read_to_its_end(service: Service, operator: Client, viewer: Client) -> None:
    """Newest first, page by page; what happens meanwhile is newer, and disturbs nothing."""
    for number in range(7):
        service.clock.now += timedelta(minutes=1)
        operator.post(DENY, {"kind": "identity", "value": f"d:thermo:{number}"}).ok(201)
    for limit in (1, 2, 3):
        expected = [one["id"] for one in viewer.get("/activity").ok()["results"]]
        assert len(expected) > 7
        told: list[str] = []
        bookmark: str | None = ""
        while bookmark is not None:
            query = {"limit": str(limit), **({"bookmark": bookmark} if bookmark else {})}
            page = viewer.get("/activity", query=query).ok()
            told += [one["id"] for one in page["results"]]
            bookmark = page["bookmark"]
            service.clock.now += timedelta(minutes=1)
            operator.post(DENY, {"kind": "identity", "value": f"d:new{limit}:{len(told)}"}).ok(201)
        assert told == expected == sorted(set(expected))


def test_refusals_of_several_writers_are_told_in_order(service: Service, viewer: Client) -> None:
    """Each process writes its own groups of refusals, which overlap in time: none is lost between two pages."""
    groups = [[9, 8, 5, 1], [9, 7, 6, 2], [4, 3, 2]]
    for group in groups:
        entries = [
            Activity(activity_id(at), at, ActivityKind.REFUSAL, "d:a:b", "connection", "refused", str(second))
            for second in group
            for at in (NOON + timedelta(seconds=second),)
        ]
        service.app.context.repository.append(service.org_id, ActivityKind.REFUSAL, entries)
    for limit in (1, 2, 3, 100):
        told, bookmark = [], ""
        while bookmark is not None:
            query = {"kind": "refusal", "limit": str(limit), **({"bookmark": bookmark} if bookmark else {})}
            page = viewer.get("/activity", query=query).ok()
            told += [int(one["code"]) for one in page["results"]]
            bookmark = page["bookmark"]
        assert told == sorted((second for group in groups for second in group), reverse=True)


def test_a_refused_connection_is_told_with_its_certificate(
    service: Service, operator: Client, viewer: Client, broker: Client
) -> None:
    """Who tried, where, with which certificate, and what was wrong with it; an allowed one is not told."""
    operator.post(CAS, {"certificate": ROOT.pem}).ok(201)
    stranger = certs.leaf("d:thermo:42", certs.ca("Stranger"))
    fields = {"serverName": HOST, "clientId": "d:mtxpd0:thermo:42"}
    broker.post("/verifyClient", fields | {"certificate": stranger.pem}).ok()
    broker.post("/verifyClient", fields | {"certificate": stranger.pem, "explain": True}).ok()
    broker.post("/verifyClient", fields | {"certificate": DEVICE.pem}).ok()
    assert viewer.get("/activity?kind=refusal").ok()["results"] == []  # it is written behind the answer
    service.flush()
    [told] = viewer.get("/activity?kind=refusal").ok()["results"]
    assert told == {
        "id": told["id"],
        "at": "2026-06-01T12:00:00Z",
        "kind": "refusal",
        "who": "d:thermo:42",
        "what": "connection",
        "result": "refused",
        "code": "untrusted_issuer",
        "clientId": "d:mtxpd0:thermo:42",
        "serverName": HOST,
        "certificate": stranger.pem,
        "failing": {"subject": "CN=d:thermo:42", "fingerprintSha256": stranger.fingerprint},
    }


def test_the_same_refusal_many_times_is_one_line(service: Service, viewer: Client, broker: Client) -> None:
    """Of what waits together: a device that tries again and again fills no list."""
    for number in (1, 2, 1, 2, 1):
        broker.post("/verifyClient", {"serverName": HOST, "clientId": f"d:mtxpd0:thermo:{number}"}).ok()
    service.flush()
    assert len(viewer.get("/activity?kind=refusal").ok()["results"]) == 2


def test_a_hostile_device_breaks_no_list(service: Service, viewer: Client, broker: Client) -> None:
    """Names from the wire are kept shortened, and shown as they came."""
    broker.post("/verifyClient", {"serverName": "x" * 5000, "clientId": "\u202e\0é" * 100}).ok()
    service.flush()
    [told] = viewer.get("/activity?kind=refusal").ok()["results"]
    assert (told["code"], len(told["serverName"])) == ("sni_unknown", 256)


def test_kinds_of_activity(service: Service, viewer: Client, broker: Client) -> None:
    """One or more, with commas between; all where none is named; no others."""
    service.clock.now += timedelta(seconds=1)
    broker.post("/verifyClient", {"serverName": HOST}).ok()
    service.flush()

    def kinds(query: str) -> list[str]:
        return [one["kind"] for one in viewer.get(f"/activity{query}").ok()["results"]]

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
        }


def test_where_to_sign_in_and_whether_it_answers(service: Service) -> None:
    """Public: nothing of OIDC where no issuer is configured."""
    assert service.anybody.get("//signin").ok() == {}
    assert service.anybody.get("//healthz").ok() == {"status": "ok"}


# -------------------------------------------------------------------------------------------------------- roles


# A broker is told everything in its own words: tests/functions/dialects has that table.
ASKED_IN_HTTP = [route for route in ROUTES if not CONTRACTS[route.load].dialect]


def address(route: Route) -> str:
    """A path for `Client`, with an id that is nothing's."""
    path = route.path.replace("{id}", "0" * 32).replace("{serverName}", HOST)
    return f"/{path}" if route.bare else path


# Handlers that read the caller in the same batch as the rest look at the body before.
BODIES = {
    "verify_client:verify_client": b'{"explain": true}',
    "edge_feed:served": b'{"edge": "one", "hosts": [{"serverName": "x", "version": "x"}]}',
}


def send(client: Client, route: Route) -> tuple[int, str | None]:
    body = BODIES.get(route.handler, b"{}")
    answer = client.send(route.method, address(route), body, headers={"if-match": "*"})
    return answer.status, answer.json.get("code") if answer.status >= 400 else None


def test_every_route_by_every_caller(service: Service) -> None:
    """401 without a known key and its token, 403 outside the role, 403 while the org is suspended; else neither."""
    revoked = service.client("operator")
    revoke_key(service.app.context, revoked.key)
    operator = service.client("operator")
    strangers = [
        service.anybody,
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
        if route.roles == ANYBODY:
            wrong += [(route, client.key) for client in [*strangers, operator] if send(client, route)[0] != 200]
            continue
        wrong += [(route, client.key) for client in strangers if send(client, route) != (401, "not_authenticated")]
        for role, member in members.items():
            found = send(member, route)
            may = role in route.roles
            if (found == (403, "forbidden")) is may or found[0] == 401 or found[0] >= 500:
                wrong.append((route, role, found))
        for role, client in platform.items():
            found = send(client, route)
            if (found == (403, "forbidden")) is (role in route.roles):
                wrong.append((route, client.key, found))
    assert wrong == []
    set_suspended(service.app.context, service.org_id, True)
    for route in ASKED_IN_HTTP:
        # verifyClient answers with a verdict, and an edge has to hear that the org's hosts are gone.
        if route.roles != ANYBODY and route.function not in ("verifyClient", "edgeFeed"):
            for role in route.roles:
                assert send(members[role], route) == (403, "org_suspended")


@pytest.mark.parametrize(
    "header",
    ["Bearer x", "Basic", "Basic !!!", "Basic " + "A" * 5000, "Basic w6k=", basic("a-mtxpd0-\n", "x"), "é", ""],
)
def test_headers_that_are_no_credentials(service: Service, header: str) -> None:
    answer = service.anybody.send("GET", CAS, headers={"authorization": header})
    assert (answer.status, answer.code) == (401, "not_authenticated")


def test_a_page_is_not_asked_for_basic_credentials(service: Service) -> None:
    """WWW-Authenticate would open the browser's own prompt; curl and others get it (RFC 9110, 15.5.2)."""
    assert service.anybody.get(CAS).reply.headers["WWW-Authenticate"].startswith("Basic ")
    page = service.anybody.send("GET", CAS, headers={"sec-fetch-mode": "cors"})
    assert (page.status, "WWW-Authenticate" in page.reply.headers) == (401, False)


def test_an_operator_key_says_what_a_viewer_lacks(viewer: Client) -> None:
    refused = viewer.post(CAS, {"certificate": ROOT.pem})
    assert refused.json["detail"] == ("This key has the role viewer; this call needs operator. Use a key of that role.")


# -------------------------------------------------------------------------------------------- addresses, methods


def test_head_is_get_without_a_body(service: Service, viewer: Client) -> None:
    """With GET's headers (RFC 9110, 9.3.2)."""
    for path in (CAS, f"{SERVERS}/default", "//healthz", "/session"):
        head, get = viewer.send("HEAD", path), viewer.get(path)
        assert (head.status, head.reply.body, head.reply.content_type) == (200, b"", get.reply.content_type)
        assert head.reply.headers == {**get.reply.headers, "content-length": str(len(get.reply.body))}
    assert service.anybody.send("HEAD", CAS).status == 401


def test_addresses_that_are_not_there(viewer: Client) -> None:
    for path in ("/", "", "//", "///", "/authentication", "/nothing", "//uploadca", f"{CAS}/a/b", "//api/v0001/session",
                 f"{CAS}//", "//%2e%2e/session", "//api%2Fv0002/session", f"//{PREFIX}/session"):  # fmt: skip
        answer = viewer.get(path)
        assert (answer.status, answer.code) == (404, "not_found"), path
        assert answer.reply.content_type == "application/problem+json"


def test_a_slash_at_the_end_does_not_matter(viewer: Client) -> None:
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
def test_other_methods_are_told_which_ones_there_are(operator: Client, path: str, allow: str) -> None:
    """405 with Allow (RFC 9110, 15.5.6), whoever asks."""
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "x" * 99} - set(allow.split(", ")):
        answer = operator.send(method, path)
        assert (answer.status, answer.code) == (405, "method_not_allowed")
        assert answer.reply.headers["Allow"] == allow


# ----------------------------------------------------------------------------------------------------- failures


def test_a_store_that_does_not_answer(service: Service, operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, on every route that needs it; what needs no store answers still."""

    def down(*_: object) -> None:
        raise StoreUnavailable

    edge = service.client("edge")
    monkeypatch.setattr(service.store, "get_many", down)
    for route in ASKED_IN_HTTP:
        client = edge if route.function == "edgeFeed" else operator
        answer = client.send(route.method, address(route), BODIES.get(route.handler, b"{}"), headers={"if-match": "*"})
        if route.roles == ANYBODY:
            assert answer.status == 200
        elif route.function != "verifyClient":
            assert (answer.status, answer.code, answer.reply.headers["Retry-After"]) == (503, "unavailable", "2")


def test_a_change_that_the_store_did_not_take(
    service: Service, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503: nothing was changed, or the change is safe to repeat; repeated, it is whole."""

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


def test_what_was_not_foreseen_tells_nothing_but_an_id(
    service: Service, operator: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 with an id that the log has too; neither has the text of the error, which may quote what it choked on."""

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
